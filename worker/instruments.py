"""
All that a judgement is made with, opened once and checked against each other before any upload is looked at.

Part of the composition root: this module builds adapters. What they are put together to is ``worker.app``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.bank_control import BankControlV1
from schemas.verdict import Mode
from worker import __version__
from worker.adapters.system_clock import SystemClock
from worker.bank.canary_files import Canary, activated_canaries, read_canaries
from worker.bank.files import StoredBank
from worker.bank.fit import check_fit, check_space
from worker.bank.leaving_out import Without
from worker.decoders import credentials_version, device_version, look_rules, open_decoder
from worker.encoders import encode_threads, for_pipeline, load_encoder
from worker.errors import BankInvalid, TouchstoneError
from worker.flow.ahead import Ahead
from worker.flow.bank_judge import BankJudge
from worker.flow.fitted_bank import FittedBank
from worker.flow.shared_encoder import SharedEncoder
from worker.judgement.model import FittedJudgement
from worker.judgement.real_scores import POOLED
from worker.operation.active_release import ActiveRelease
from worker.operation.canaries import try_canaries, try_own_canaries
from worker.operation.quarantined import quarantined
from worker.operation.start_phases import Phase, start_phase, timed, told
from worker.operation.starting_release import Refusal, starting_release
from worker.policy import Policy, applied_rule, check_policy_fits, load_policy, shipped_policy
from worker.ports import Bank, Encoder, PictureDecoder, Recorder
from worker.settings.tree import PolicySettings, Settings
from worker.stages.assess import flag_thresholds
from worker.stages.decode import decoder_versions
from worker.stages.report import PolicyIdentity, RunVersions
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, ViewSpec
from worker.whole_banks import WholeBank, bank_path, left_out, read_bank, read_release

if TYPE_CHECKING:
    from worker.adapters.faiss_bank import FaissBank

_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class OpenRelease:
    """
    What holds of a bank that comes from a place of releases, the bank with nothing left out, and its canaries.

    It costs two bytes per dimension of every vector, so that something can be left out without reading it again.
    ``refusal`` is there where something else was announced, which cannot be used.
    """

    control: BankControlV1
    whole: WholeBank
    canaries: tuple[Canary, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """
    What a worker goes on with when its bank is exchanged.
    """

    encoder: Encoder
    decoder: PictureDecoder
    policy: Policy
    views: ViewSpec


@dataclass(frozen=True, slots=True)
class Instruments:
    """
    Encoder, decoder, bank and policy; ``fitted`` is there if and only if the rule that is applied is ``fused``.

    ``judgement_id``: that of the judgement which the bank carries, applied or not; None where it carries none.
    ``credentials``: see ``credentials_version``; ``looks``: see ``look_rules``. ``release`` is there
    where the bank comes from a place of releases.
    """

    encoder: Encoder
    decoder: PictureDecoder
    bank: Bank
    policy: Policy
    views: ViewSpec = GLOBAL_ONLY
    fitted: FittedBank | None = None
    judgement_id: str | None = None
    credentials: str | None = None
    looks: str | None = None
    release: OpenRelease | None = None

    @property
    def beside(self) -> Beside:
        """
        What another bank is opened with, without this one's.
        """
        return Beside(self.encoder, self.decoder, self.policy, self.views)

    def versions(self, mode: Mode) -> RunVersions:
        """
        What the verdicts of a run say of them.
        """
        return RunVersions(
            encoder=self.encoder.fingerprint,
            bank=self.bank.identity,
            policy=PolicyIdentity(self.policy.id, self.policy.version, self.policy.sha256),
            worker=__version__,
            decoders=decoder_versions(self.encoder.fingerprint.preprocess)
            | ({} if self.credentials is None else {"c2pa": self.credentials})
            | ({} if self.looks is None else {"looks": self.looks})
            | ({} if (device := device_version(self.decoder)) is None else {"device_jpegs": device}),
            mode=mode,
            judgement=self.judgement_id,
            views=self.views.sha256,
        )


def open_instruments(settings: Settings, recorder: Recorder) -> Instruments:
    """
    Policy, bank and its judgement, encoder, decoder: the first of these that is refused is what is told.

    The encoder is loaded while the bank is read, and the bank's index is built while decoders start. Of a place of
    releases several banks may be tried, with one encoder, whose refusal counts before theirs. Raises ``ConfigInvalid``,
    ``EncoderInvalid``, ``BankInvalid``, or ``CannotStart`` for what decoding needs.
    """
    policy = load_policy(policy_path(settings.policy))
    start = starting_release(settings)
    if start is None:
        encoder = Ahead("encoder-load", lambda: timed(lambda: _encoder(settings, recorder)))
        return _of_bank(_Opening(settings, policy, encoder, recorder))
    # Banks are tried beside the one in use, with this encoder and in another thread.
    shared = Ahead("encoder-load", lambda: timed(lambda: _shared(settings, recorder)))
    opening = _Opening(settings, policy, shared, recorder)
    try:
        return start.first_usable(lambda active, refusal: _of_release(opening, active, refusal))
    except TouchstoneError:
        shared.result()  # without an encoder no release can be used: what it raises is the fault to be told
        raise


def _shared(settings: Settings, recorder: Recorder) -> SharedEncoder:
    return SharedEncoder(_encoder(settings, recorder), calls=encode_threads(settings.encoder))


def _encoder(settings: Settings, recorder: Recorder) -> Encoder:
    return load_encoder(for_pipeline(settings.encoder), recorder=recorder, batch_size=settings.batch.size)


def _of_bank(opening: "_Opening") -> Instruments:
    settings = opening.settings
    with start_phase("bank"):
        whole = read_bank(bank_path(settings), settings.bank.trusted_keys)
    kept = left_out(whole, quarantined(settings, whole.stored))
    opened = _opened_first(opening, kept)
    of_whole = None if kept.stored is whole.stored else _whole_judge(opened, settings, whole)
    with start_phase("canaries"):
        canaries = read_canaries(bank_path(settings), whole.stored.manifest)
        try_own_canaries(trial_judge(opened), canaries, settings.bank, whole=of_whole)
    return opened


def _whole_judge(opened: Instruments, settings: Settings, whole: WholeBank) -> Callable[[], BankJudge]:
    return lambda: trial_judge(open_release(opened.beside, settings, whole, Without()))


@dataclass(frozen=True, slots=True)
class _Opening:
    settings: Settings
    policy: Policy
    encoder: Ahead[Phase[Encoder]]
    recorder: Recorder


def _opened_first(opening: _Opening, whole: WholeBank) -> Instruments:
    settings = opening.settings
    read = _read(settings, whole, opening.policy)
    index = Ahead("bank-index", lambda: timed(lambda: _index(read, settings)))
    encoder = told("encoder", opening.encoder.result())
    decoder = open_decoder(settings, encoder, read.stored.views, recorder=opening.recorder)
    return _assembled(read, encoder, decoder, settings, index=lambda: told("index", index.result()))


def _of_release(opening: _Opening, active: ActiveRelease, refusal: Refusal | None) -> Instruments:
    settings = opening.settings
    with start_phase("bank"):
        whole = read_release(active.folder, active.control, settings.bank.trusted_keys)
    opened = _opened_first(opening, left_out(whole, Without.of(active.control)))
    of_whole = _whole_judge(opened, settings, whole)
    with start_phase("canaries"):
        canaries = activated_canaries(active.folder, whole.stored.manifest, active.control.canaries_sha256)
        try_canaries(trial_judge(opened), canaries, active.control, wanted=settings.bank, whole=of_whole)
    return replace(opened, release=OpenRelease(active.control, whole, canaries, refusal))


def trial_judge(opened: Instruments) -> BankJudge:
    """
    The judge that a worker would have with these, counting for nobody.
    """
    recorder, versions = InMemoryRecorder(), opened.versions("live")
    return BankJudge(opened.bank, opened.policy, versions, SystemClock(), recorder, fitted=opened.fitted)


def open_beside(beside: Beside, settings: Settings, *, whole: WholeBank, left: Without | None = None) -> Instruments:
    """
    Another bank, judgement or policy with the encoder and decoder that are open already, for a judge beside the live.

    Raises ``ConfigInvalid`` or ``BankInvalid``, also for a bank of another space or of other views.
    """
    advice = "Rebuild it with the live bank's views, or run it in a worker of its own with another kafka.group_id"
    return _opened_over(beside, settings, whole=whole, left=left or Without(), advice=advice)


@dataclass(frozen=True, slots=True)
class _Read:
    stored: StoredBank
    policy: Policy
    judgement: FittedJudgement | None
    fused: bool
    thresholds: Mapping[str, float]


def open_release(beside: Beside, settings: Settings, whole: WholeBank, left: Without) -> Instruments:
    """
    Another bank for a worker that runs, with ``left`` left out of it. Raises as ``open_beside``.
    """
    advice = "Views change with a restart only: restart the workers to use this bank"
    return _opened_over(beside, settings, whole=whole, left=left, advice=advice)


def _opened_over(beside: Beside, settings: Settings, *, whole: WholeBank, left: Without, advice: str) -> Instruments:
    read = _read(settings, left_out(whole, left), beside.policy)
    check_space(read.stored.manifest, beside.encoder.fingerprint)
    if read.stored.views != beside.views:
        raise BankInvalid(
            f"bank {read.stored.manifest.id} {read.stored.manifest.version} was built with views "
            f"{read.stored.views.sha256[:_SHORT]}, this worker runs with {beside.views.sha256[:_SHORT]}: what is "
            f"measured of an upload for the one says nothing to the other. {advice}"
        )
    return _assembled(read, beside.encoder, beside.decoder, settings)


def _read(settings: Settings, whole: WholeBank, policy: Policy) -> _Read:
    stored, judgement = whole.stored, whole.judgement
    identity = stored.identity(settings.bank.index)
    check_policy_fits(policy, identity)
    fused = applied_rule(policy, identity, fitted=judgement is not None) == "fused"
    if judgement is not None:
        judgement = judgement.serving(policy.rule.alpha, policy.rule.pac_delta, policy.rule.guarantee)
    thresholds = flag_thresholds(judgement, buckets_of(judgement), policy.rule) if judgement and fused else {}
    return _Read(stored, policy, judgement, fused, thresholds)


def _index(read: _Read, settings: Settings) -> "FaissBank":
    from worker.adapters.faiss_bank import FaissBank  # noqa: PLC0415 - FAISS and torch: while the bank is read

    return FaissBank(read.stored, settings.bank)


def _assembled(
    read: _Read,
    encoder: Encoder,
    decoder: PictureDecoder,
    settings: Settings,
    *,
    index: "Callable[[], FaissBank] | None" = None,
) -> Instruments:
    with start_phase("probe"):
        check_fit(read.stored, encoder, decoder)
    bank = _index(read, settings) if index is None else index()
    fitted = None
    if read.judgement is not None and read.fused:
        from worker.adapters.faiss_references import FaissReferences  # noqa: PLC0415 - as in _index

        references = FaissReferences(bank, read.stored)
        fitted = FittedBank(read.judgement, references, read.thresholds, read.policy.rule.grey_zone)
    return Instruments(
        encoder,
        decoder,
        bank,
        read.policy,
        views=read.stored.views,
        fitted=fitted,
        judgement_id=None if read.judgement is None else read.judgement.id,
        credentials=credentials_version(settings.decode),
        looks=look_rules(settings.decode),
    )


def buckets_of(judgement: FittedJudgement) -> set[str]:
    """
    The names of all calibration sets that a p-value may be taken from.
    """
    return {POOLED, *(judgement.reals.served_by(bucket) for bucket in set(judgement.reals.bucket))}


def policy_path(settings: PolicySettings) -> Path:
    """
    Where the policy is: as configured; where nobody configured it and this is no checkout, the one that ships.
    """
    untouched = settings == PolicySettings() and not settings.path.exists()
    return shipped_policy() if untouched else settings.path
