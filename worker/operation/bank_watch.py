"""
A running worker follows its place of releases: looks what holds, loads it beside the old bank, tries it, changes over.

Whatever is wrong with a new release, the worker goes on with the bank it has and says why. The exchange itself is in
``worker.flow.swapping_judge``, and what a place holds in ``worker.bank.releases``.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from schemas.bank_control import BankControlV1
from worker.adapters.heap import give_back_memory
from worker.adapters.system_clock import SystemClock
from worker.bank.canary_files import Canary, read_canaries
from worker.bank.leaving_out import Without
from worker.bank.releases import Releases
from worker.errors import BankInvalid, CannotStart, ConfigInvalid, TouchstoneError
from worker.flow.bank_judge import BankJudge
from worker.flow.crew import Crew
from worker.flow.judging import Judge
from worker.flow.swapping_judge import SwappingJudge
from worker.instruments import Instruments, WholeBank, open_release, read_bank
from worker.operation.active_release import control_reader, open_releases
from worker.operation.canaries import canary_misses, require_agreement
from worker.operation.short_turns import short_turns
from worker.ports import Clock, Recorder
from worker.settings.tree import Settings

log = structlog.get_logger(__name__)

ENDS_S: Final = 1.0
"""How long the watch may take to end; a load that is under way then is left behind."""

Look = Callable[[], BankControlV1 | None]
Result = Literal["refused", "unreachable"]


@dataclass(frozen=True, slots=True)
class BankStatus:
    """
    What the worker judges by: the release, its manifest, since when (seconds since the epoch), and what is disabled.

    ``last_refusal`` says why the newest of what was announced is not in use; None where it is.
    """

    bank: str
    release: str
    manifest_sha256: str
    since_s: float
    disabled_entries: int
    disabled_generators: int
    swaps: int
    last_refusal: str | None = None


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
        self._control = live.release.control
        self._present = _Trial(live.release.whole, self._canaries(live.release.control, live.release.whole))
        self._refused: BankControlV1 | None = None
        self._status = _status(self._control, clock.wall_s(), swaps=0)
        self.on_change: Callable[[BankJudge], None] = _untold
        self._first: BankJudge | None = None
        self._judge: SwappingJudge | None = None
        self._crew = Crew()
        self._stopped = threading.Event()

    def around(self, judge: BankJudge) -> Judge:
        """
        The judge whose bank this watch exchanges; the first one's canaries are judged now. Raises ``BankInvalid``.
        """
        self._try(judge, self._present, self._control)
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
        """
        if control == self._refused:
            return
        if _means(control) == _means(self._control):
            self._control = control
            self._as_announced()
            return
        began_s = self._clock.monotonic_s()
        try:
            with short_turns():
                trial = self._loaded(control)
                judge = self._opened(trial, control)
        except (BankInvalid, ConfigInvalid) as fault:
            self._refuse(control, fault)
        except (CannotStart, OSError) as fault:
            self._out_of_reach(fault)
        except Exception as fault:
            # Of whatever kind, no memory for two banks included: the old bank judges on, and this one is told of.
            log.exception("bank.load_failed", release=control.release, error=type(fault).__name__)
            self._refuse(control, fault)
        else:
            self._change(control, trial, judge, loading_s=self._clock.monotonic_s() - began_s)

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
        if _files(control) == _files(self._control):
            # Only what is left out differs: nothing is read again.
            return self._present
        whole = read_bank(self._releases.verified(control))
        return _Trial(whole, self._canaries(control, whole))

    def _canaries(self, control: BankControlV1, whole: WholeBank) -> tuple[Canary, ...]:
        if control.canaries_sha256 is None:
            return ()
        return read_canaries(self._releases.verified(control), whole.stored.manifest)

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
        self._try(judge, trial, control)
        return judge

    def _try(self, judge: BankJudge, trial: _Trial, control: BankControlV1) -> None:
        if control.canaries_sha256 is None:
            log.info("bank.no_canaries", release=control.release, advice="publish with --canaries, to try a bank first")
            return
        canaries = trial.canaries
        misses = canary_misses(judge, canaries)
        if trial is self._present and (control.disabled_entries or control.disabled_generators):
            # The files have passed already. What an operator takes out of them must go at once, and must not keep a
            # worker from starting; canaries that leaned on it are told of.
            if misses:
                log.warning("bank.canaries_missed", release=control.release, missed=len(misses), canaries=len(canaries))
            return
        require_agreement(misses, len(canaries), agreement=self._settings.bank.canary_agreement)
        log.info("bank.canaries_judged", release=control.release, canaries=len(canaries), missed=len(misses))

    def _change(self, control: BankControlV1, trial: _Trial, judge: BankJudge, *, loading_s: float) -> None:
        if self._judge is None:
            raise ValueError("around() was not called")
        before = self._status
        self._judge.swap(judge)
        self.on_change(judge)
        self._first, self._present, self._control, self._refused = judge, trial, control, None
        self._status = _status(control, self._clock.wall_s(), swaps=before.swaps + 1)
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
            issued_by=control.issued_by,
            reason=control.reason,
        )
        give_back_memory()

    def _refuse(self, control: BankControlV1, fault: Exception) -> None:
        # Looked at again only when something else is announced: a wrong bank does not mend itself.
        self._refused = control
        self._tell("refused", f"release {control.release}: {type(fault).__name__}: {fault}")

    def _out_of_reach(self, fault: Exception) -> None:
        # Tried again at each look; an outage is told once.
        if str(fault) != self._status.last_refusal:
            self._tell("unreachable", str(fault))

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
        if self._status.last_refusal is not None:
            self._status = replace(self._status, last_refusal=None)
            log.info("bank.as_announced", release=self._status.release)


@contextmanager
def bank_watching(settings: Settings, live: Instruments, *, recorder: Recorder) -> Iterator[BankWatch | None]:
    """
    The watch over the configured place of releases, not started yet; None where none is configured.
    """
    place = settings.bank.releases
    if place is None or live.release is None:
        yield None
        return
    watch = BankWatch(settings, live, open_releases(place, settings), clock=SystemClock(), recorder=recorder)
    try:
        yield watch
    finally:
        watch.close()


def followed(judge: BankJudge, watch: BankWatch | None, on_judge: Callable[[BankJudge], None]) -> Judge:
    """
    The judge that the pipeline asks: the one whose bank is exchanged, where releases are followed.

    ``on_judge`` is told this one, and each that is changed over to.
    """
    on_judge(judge)
    if watch is None:
        return judge
    watch.on_change = on_judge
    exchanged = watch.around(judge)
    watch.start()
    return exchanged


def _means(control: BankControlV1) -> tuple[object, ...]:
    """
    What of a record a worker follows; who issued it, when and why is for people.
    """
    left = Without.of(control)
    return *_files(control), left


def _files(control: BankControlV1) -> tuple[str | None, ...]:
    return control.bank, control.release, control.manifest_sha256, control.canaries_sha256


def _status(control: BankControlV1, since_s: float, *, swaps: int) -> BankStatus:
    return BankStatus(
        bank=control.bank,
        release=control.release,
        manifest_sha256=control.manifest_sha256,
        since_s=since_s,
        disabled_entries=len(control.disabled_entries),
        disabled_generators=len(control.disabled_generators),
        swaps=swaps,
    )


def _untold(_judge: BankJudge) -> None:
    return None


def _nothing() -> None:
    return None
