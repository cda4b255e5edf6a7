"""
A running worker follows its place of releases: looks what holds, loads it beside the old bank, tries it, changes over.

Whatever is wrong with a new release, the worker goes on with the bank it has, without what is disabled, and says why.
Which release it starts with is in ``starting_release.py``. The exchange itself is in
``worker.flow.swapping_judge``, and what a place holds in ``worker.bank.releases``.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from schemas.bank_control import BankControlV1
from worker.adapters.heap import give_back_memory
from worker.bank.canary_files import Canary, activated_canaries
from worker.bank.leaving_out import Without
from worker.bank.releases import Releases
from worker.errors import BankInvalid, CannotStart, ConfigInvalid, TouchstoneError
from worker.flow.bank_judge import BankJudge
from worker.flow.crew import Crew
from worker.flow.judging import Judge
from worker.flow.swapping_judge import SwappingJudge
from worker.instruments import Instruments, open_release, trial_judge
from worker.operation.active_release import control_reader
from worker.operation.bank_status import BankStatus, same_bank, same_files, same_left_out, status_of
from worker.operation.canaries import try_canaries
from worker.operation.followed_records import FollowedRecords
from worker.operation.passing_faults import Attempts, is_passing
from worker.operation.short_turns import short_turns
from worker.operation.starting_release import leaving_out_as
from worker.ports import Clock, Recorder
from worker.settings.tree import Settings
from worker.whole_banks import WholeBank, read_release

log = structlog.get_logger(__name__)

ENDS_S: Final = 1.0
"""How long the watch may take to end; a load that is under way then is left behind."""

Look = Callable[[], BankControlV1 | None]
Result = Literal["refused", "unreachable"]
Outcome = Literal["done", "refused", "passing"]


@dataclass(frozen=True, slots=True)
class _Trial:
    whole: WholeBank
    canaries: tuple[Canary, ...]


class BankWatch:
    """
    One for a worker. ``around`` is called once, before ``start``; ``status`` by any thread.

    ``on_change``, which may be set before ``start``, is told each judge that is changed over to.
    """

    def __init__(
        self, settings: Settings, live: Instruments, releases: Releases, *, clock: Clock, recorder: Recorder
    ) -> None:
        if live.release is None:
            raise ValueError("the instruments were not opened from a place of releases")
        self._settings = settings
        # Not the instruments themselves: they would keep the first bank for as long as the worker lives.
        self._beside = live.beside
        self._releases = releases
        self._clock = clock
        self._recorder = recorder
        release, refusal = live.release, live.release.refusal
        self._control = release.control
        self._present = _Trial(release.whole, release.canaries)
        self._refused = None if refusal is None or refusal.passing else refusal.announced
        self._why_refused = "" if refusal is None else refusal.why
        self._unbelieved: BankControlV1 | None = None
        self._not_left_out: BankControlV1 | None = None
        self._records = FollowedRecords(releases, release.control, signed=bool(settings.bank.trusted_keys))
        self._attempts = Attempts(clock, settings.bank.look_every_s)
        self._status = status_of(
            self._control, clock.wall_s(), swaps=0, refusal=None if refusal is None else refusal.why
        )
        if refusal is not None:
            recorder.count("bank_swaps_total", result="refused")
        self.on_change: Callable[[BankJudge], None] = _untold
        self._first: BankJudge | None = None
        self._judge: SwappingJudge | None = None
        self._crew = Crew()
        self._stopped = threading.Event()

    def around(self, judge: BankJudge) -> Judge:
        """
        The judge whose bank this watch exchanges.
        """
        self._first = judge
        self._judge = SwappingJudge(judge, self._clock, perturbation=self._beside.views.perturbation)
        return self._judge

    def start(self) -> None:
        """
        Look every ``bank.look_every_s`` from now on, in a thread of its own.
        """
        self._crew.start("bank-watch", self._run)

    def status(self) -> BankStatus:
        """
        What is in use at this moment.
        """
        return self._status

    def check(self) -> None:
        """
        Raise if the watch has died.
        """
        self._crew.check()

    def close(self) -> None:
        """
        Look no more.
        """
        self._stopped.set()
        left_behind = self._crew.join(ENDS_S)
        if left_behind:
            log.warning("threads.left_behind", threads=left_behind, waited_s=ENDS_S)

    def follow(self, control: BankControlV1) -> None:
        """
        Change over to what holds now, unless it is in use or was refused already; whatever is wrong, keep the old.

        What is disabled is left out of the present bank first, so that it goes at once whatever comes of the release.
        What could not be done because of a fault that may pass is tried again, after longer and longer.
        """
        if control == self._unbelieved or not self._attempts.due(control):
            return
        # Whatever became of a record before: nothing of it is done unless it is believed now.
        if not self._believed(control):
            return
        refused = control == self._refused
        if refused:
            # Something else may have been told of since.
            self._status = replace(self._status, last_refusal=self._why_refused)
        elif same_bank(control, self._control):
            self._control = control
            self._as_announced()
            return
        left: Outcome = "done"
        if not same_files(control, self._control) and not same_left_out(control, self._control):
            left = self._leave_out(control)
        if refused:
            # Which it stays, whatever could be left out of the bank in use by now.
            self._refused = control
        outcome = "refused" if refused else self._change_over(control)
        # Once for a look, though both may have failed.
        if outcome == "passing" or (outcome == "refused" and left == "passing"):
            self._attempts.failed(control)

    def _change_over(self, control: BankControlV1) -> Outcome:
        began_s = self._clock.monotonic_s()
        try:
            with short_turns():
                trial = self._loaded(control)
                judge = self._opened(trial, control)
        except Exception as fault:
            # Of whatever kind: the old bank judges on, and this one is told of.
            if is_passing(fault):
                self._out_of_reach(fault, f"release {control.release}: ")
                return "passing"
            if not isinstance(fault, (BankInvalid, ConfigInvalid)):
                log.exception("bank.load_failed", release=control.release, error=type(fault).__name__)
            self._refuse(control, fault)
            return "refused"
        self._change(control, trial, judge, loading_s=self._clock.monotonic_s() - began_s)
        self._attempts.ended(control)
        return "done"

    def _believed(self, control: BankControlV1) -> bool:
        try:
            self._records.require_believed(control)
        except BankInvalid as fault:
            # What it leaves out stays in, too: it is nobody's word. It is no refused release either, whose names
            # would be left out all the same.
            self._unbelieved = control
            self._tell("refused", _why(control, fault))
            return False
        self._unbelieved = None
        return True

    def _run(self) -> None:
        look: Look | None = None
        close: Callable[[], None] = _nothing
        try:
            while not self._stopped.wait(self._settings.bank.look_every_s):
                if look is None:
                    look, close = self._reader()
                if look is not None:
                    self._look(look)
        finally:
            close()

    def _reader(self) -> tuple[Look | None, Callable[[], None]]:
        try:
            return control_reader(self._settings, self._releases)
        except (TouchstoneError, OSError) as fault:
            self._out_of_reach(fault)
            return None, _nothing

    def _look(self, look: Look) -> None:
        try:
            control = look()
        except (TouchstoneError, OSError) as fault:
            self._out_of_reach(fault)
            return
        if control is None:
            self._out_of_reach(CannotStart("no release is active any more; activate one"))
            return
        self.follow(control)

    def _loaded(self, control: BankControlV1) -> _Trial:
        if same_files(control, self._control):
            # Only what is left out differs: nothing is read again.
            return self._present
        folder = self._releases.verified(control)
        whole = read_release(folder, control, self._settings.bank.trusted_keys)
        return _Trial(whole, activated_canaries(folder, whole.stored.manifest, control.canaries_sha256))

    def _opened(self, trial: _Trial, control: BankControlV1) -> BankJudge:
        if self._first is None:
            raise ValueError("around() was not called")
        opened = open_release(self._beside, self._settings, trial.whole, Without.of(control))
        judge = replace(
            self._first,
            bank=opened.bank,
            fitted=opened.fitted,
            versions=replace(self._first.versions, bank=opened.bank.identity, judgement=opened.judgement_id),
        )

        def whole() -> BankJudge:
            return trial_judge(open_release(self._beside, self._settings, trial.whole, Without()))

        # The present one has passed, at the start or before it was changed over to.
        passed = trial is self._present
        try_canaries(judge, trial.canaries, control, wanted=self._settings.bank, whole=None if passed else whole)
        return judge

    def _leave_out(self, control: BankControlV1) -> Outcome:
        if self._not_left_out is not None and same_left_out(control, self._not_left_out):
            return "refused"
        kept = leaving_out_as(self._control, control)
        began_s = self._clock.monotonic_s()
        try:
            with short_turns():
                judge = self._opened(self._present, kept)
        except Exception as fault:
            # As when a release is loaded: the bank in use judges on, and why it is whole is told.
            log.exception("bank.not_left_out", kept=kept.release, error=type(fault).__name__, why=str(fault))
            if is_passing(fault):
                return "passing"
            self._not_left_out = control
            return "refused"
        loading_s = self._clock.monotonic_s() - began_s
        self._change(kept, self._present, judge, loading_s=loading_s, refusal=self._status.last_refusal)
        return "done"

    def _change(
        self,
        control: BankControlV1,
        trial: _Trial,
        judge: BankJudge,
        *,
        loading_s: float,
        refusal: str | None = None,
    ) -> None:
        if self._judge is None:
            raise ValueError("around() was not called")
        before = self._status
        self._judge.swap(judge)
        self.on_change(judge)
        self._first, self._present, self._control = judge, trial, control
        self._refused = self._not_left_out = None
        self._status = status_of(control, self._clock.wall_s(), swaps=before.swaps + 1, refusal=refusal)
        self._recorder.count("bank_swaps_total", result="swapped")
        log.info(
            "bank.swapped",
            release=control.release,
            before=before.release,
            manifest=control.manifest_sha256,
            index=judge.bank.identity.index,
            loading_s=round(loading_s, 3),
            disabled_entries=len(control.disabled_entries),
            disabled_generators=len(control.disabled_generators),
            disabled_sources=len(control.disabled_sources),
            issued_by=control.issued_by,
            reason=control.reason,
        )
        give_back_memory()

    def _refuse(self, control: BankControlV1, fault: Exception) -> None:
        # Looked at again only when something else is announced: a wrong bank does not mend itself.
        self._refused, self._why_refused = control, _why(control, fault)
        self._tell("refused", self._why_refused)

    def _out_of_reach(self, fault: Exception, what: str = "") -> None:
        # Tried again; an outage is told once.
        why = f"{what}{fault}"
        if isinstance(fault, MemoryError):
            why = f"{what}there is no memory to have it beside the bank in use ({type(fault).__name__}: {fault})"
        if why != self._status.last_refusal:
            self._tell("unreachable", why)

    def _tell(self, result: Result, why: str) -> None:
        self._status = replace(self._status, last_refusal=why)
        self._recorder.count("bank_swaps_total", result=result)
        log.warning(
            "bank.refused",
            result=result,
            why=why,
            kept=self._status.release,
            advice="the worker goes on with the bank it has; correct what is named, or `touchstone bank rollback`",
        )

    def _as_announced(self) -> None:
        self._refused = None
        self._attempts.ended(self._control)
        if self._status.last_refusal is not None:
            self._status = replace(self._status, last_refusal=None)
            log.info("bank.as_announced", release=self._status.release)


def _why(control: BankControlV1, fault: Exception) -> str:
    return f"release {control.release}: {type(fault).__name__}: {fault}"


def _untold(_judge: BankJudge) -> None:
    return None


def _nothing() -> None:
    return None
