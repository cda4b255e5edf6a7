"""
All that a judgement is made with, opened once and checked against each other before any upload is looked at.

Part of the composition root: this module builds adapters. What they are put together to is ``worker.app``.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from schemas.bank_control import BankControlV1
from schemas.verdict import Mode
from worker import __version__
from worker.adapters.clip_encoder import load_encoder
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_references import FaissReferences
from worker.adapters.system_clock import SystemClock
from worker.bank.canary_files import Canary, activated_canaries, read_canaries
from worker.bank.files import StoredBank, load_bank
from worker.bank.fit import check_fit, check_space
from worker.bank.leaving_out import Without, leave_out
from worker.bank.release_checks import require_activated
from worker.bank.settled import read_settled
from worker.decoders import credentials_version, look_rules, open_decoder
from worker.errors import BankInvalid, ConfigInvalid
from worker.flow.bank_judge import BankJudge
from worker.flow.fitted_bank import FittedBank
from worker.flow.shared_encoder import SharedEncoder
from worker.judgement.model import FittedJudgement
from worker.judgement.real_scores import POOLED
from worker.judgement.store import read_judgement
from worker.operation.active_release import ActiveRelease, active_release
from worker.operation.canaries import try_canaries, try_own_canaries
from worker.operation.quarantined import quarantined
from worker.operation.starting_release import Refusal, starting_release
from worker.policy import Policy, applied_rule, check_policy_fits, load_policy, shipped_policy
from worker.ports import Bank, Encoder, PictureDecoder, Recorder
from worker.settings.tree import PolicySettings, Settings
from worker.shipped import STARTER, STARTER_BANK
from worker.stages.assess import flag_thresholds
from worker.stages.decode import decoder_versions
from worker.stages.report import PolicyIdentity, RunVersions
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, ViewSpec

_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class WholeBank:
    """
    A bank's files with the judgement that it carries; ``serving`` a policy is still to be said.
    """

    stored: StoredBank
    judgement: FittedJudgement | None


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
            decoders=decoder_versions()
            | ({} if self.credentials is None else {"c2pa": self.credentials})
            | ({} if self.looks is None else {"looks": self.looks}),
            mode=mode,
            judgement=self.judgement_id,
            views=self.views.sha256,
        )


def open_instruments(settings: Settings, recorder: Recorder) -> Instruments:
    """
    Policy, bank and its judgement, encoder, decoder, in this order: what is cheap to refuse is looked at first.

    Of a place of releases several banks may be tried, with one encoder that is loaded before them. Raises
    ``ConfigInvalid``, ``EncoderInvalid``, ``BankInvalid``, or ``CannotStart`` for what decoding needs.
    """
    policy = load_policy(policy_path(settings.policy))
    start = starting_release(settings)
    if start is None:
        return _of_bank(settings, policy, recorder)
    # Banks are tried beside the one in use, with this encoder and in another thread.
    shared = SharedEncoder(load_encoder(settings.encoder, recorder=recorder))
    opening = _Opening(settings, policy, shared, recorder)
    return start.first_usable(lambda active, refusal: _of_release(opening, active, refusal))


def _of_bank(settings: Settings, policy: Policy, recorder: Recorder) -> Instruments:
    whole = read_bank(bank_path(settings), settings.bank.trusted_keys)
    read = _read(settings, left_out(whole, quarantined(settings, whole.stored)), policy)
    encoder = load_encoder(settings.encoder, recorder=recorder)
    opened = _assembled(read, encoder, open_decoder(settings, encoder, read.stored.views, recorder=recorder), settings)
    of_whole = None if read.stored is whole.stored else _whole_judge(opened, settings, whole)
    canaries = read_canaries(bank_path(settings), whole.stored.manifest)
    try_own_canaries(trial_judge(opened), canaries, settings.bank, whole=of_whole)
    return opened


def _whole_judge(opened: Instruments, settings: Settings, whole: WholeBank) -> Callable[[], BankJudge]:
    return lambda: trial_judge(open_release(opened.beside, settings, whole, Without()))


@dataclass(frozen=True, slots=True)
class _Opening:
    settings: Settings
    policy: Policy
    encoder: Encoder
    recorder: Recorder


def _of_release(opening: _Opening, active: ActiveRelease, refusal: Refusal | None) -> Instruments:
    settings, encoder, recorder = opening.settings, opening.encoder, opening.recorder
    whole = read_release(active.folder, active.control, settings.bank.trusted_keys)
    read = _read(settings, left_out(whole, Without.of(active.control)), opening.policy)
    opened = _assembled(read, encoder, open_decoder(settings, encoder, read.stored.views, recorder=recorder), settings)
    canaries = activated_canaries(active.folder, whole.stored.manifest, active.control.canaries_sha256)
    of_whole = _whole_judge(opened, settings, whole)
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


def read_bank(path: Path, trusted: Collection[str] = ()) -> WholeBank:
    """
    A bank's files with its judgement, every check done that needs no encoder; signed by a ``trusted`` key, if any are.

    One that is replaced while it is read is read once more. Raises ``BankInvalid``.
    """
    return read_settled(path, lambda: WholeBank(stored := load_bank(path, trusted), judgement_of(stored, path)))


def read_release(folder: Path, control: BankControlV1, trusted: Collection[str] = ()) -> WholeBank:
    """
    As ``read_bank``, of a release that was verified; one that was exchanged since is refused. Raises ``BankInvalid``.
    """
    whole = read_bank(folder, trusted)
    require_activated(control, whole.stored.manifest_sha256)
    return whole


def configured_bank(settings: Settings) -> WholeBank:
    """
    The bank that the settings name, without what the operator keeps from judging. Raises as ``bank_path``.
    """
    active = active_release(settings)
    if active is None:
        whole = read_bank(bank_path(settings), settings.bank.trusted_keys)
        return left_out(whole, quarantined(settings, whole.stored))
    return left_out(read_release(active.folder, active.control, settings.bank.trusted_keys), Without.of(active.control))


def left_out(whole: WholeBank, left: Without) -> WholeBank:
    """
    The bank without what is disabled: out of the search, and out of what the judgement knows of each reference.

    The judgement is the same otherwise, its heads, calibration and conformal scores as they were fitted to all.
    """
    rows = left.kept_rows(whole.stored.entries)
    stored, judgement = leave_out(whole.stored, rows), whole.judgement
    if judgement is None or stored is whole.stored:
        return WholeBank(stored, judgement)
    attribution = replace(judgement.attribution, code=judgement.attribution.code[rows])
    return WholeBank(stored, replace(judgement, attribution=attribution))


def _read(settings: Settings, whole: WholeBank, policy: Policy) -> _Read:
    stored, judgement = whole.stored, whole.judgement
    identity = stored.identity(settings.bank.index)
    check_policy_fits(policy, identity)
    fused = applied_rule(policy, identity, fitted=judgement is not None) == "fused"
    if judgement is not None:
        judgement = judgement.serving(policy.rule.alpha, policy.rule.pac_delta, policy.rule.guarantee)
    thresholds = flag_thresholds(judgement, buckets_of(judgement), policy.rule) if judgement and fused else {}
    return _Read(stored, policy, judgement, fused, thresholds)


def _assembled(read: _Read, encoder: Encoder, decoder: PictureDecoder, settings: Settings) -> Instruments:
    check_fit(read.stored, encoder, decoder)
    bank = FaissBank(read.stored, settings.bank)
    fitted = None
    if read.judgement is not None and read.fused:
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


def bank_path(settings: Settings) -> Path:
    """
    Where the bank is that is no release: as configured, else the one of the starter encoder.

    Raises ``ConfigInvalid`` for another encoder without a bank: only vectors of one encoder can be compared.
    """
    if settings.bank.path is not None:
        return settings.bank.path
    if settings.encoder.model == STARTER and settings.encoder.checkpoint is None:
        return STARTER_BANK
    raise ConfigInvalid(
        f"bank.path is not set, and encoder.model is {settings.encoder.model!r}; only the starter encoder brings a "
        "bank. Build one with this encoder (`touchstone bank build SOURCE --out bank`) and set bank.path"
    )


def buckets_of(judgement: FittedJudgement) -> set[str]:
    """
    The names of all calibration sets that a p-value may be taken from.
    """
    return {POOLED, *(judgement.reals.served_by(bucket) for bucket in set(judgement.reals.bucket))}


def judgement_of(stored: StoredBank, path: Path) -> FittedJudgement | None:
    """
    The judgement that a bank carries. Raises ``BankInvalid`` where it is damaged or belongs to other references.
    """
    record = stored.manifest.judgement
    if record is None:
        return None
    judgement = read_judgement(path)
    attributed = len(judgement.attribution.code)
    if judgement.id != record.id or attributed != len(stored.entries):
        raise BankInvalid(
            f"bank {path}: its manifest names judgement {record.id} over {len(stored.entries)} references, found "
            f"{judgement.id} over {attributed}: the files do not belong together; run `touchstone fit {path}`"
        )
    return judgement


def policy_path(settings: PolicySettings) -> Path:
    """
    Where the policy is: as configured; where nobody configured it and this is no checkout, the one that ships.
    """
    untouched = settings == PolicySettings() and not settings.path.exists()
    return shipped_policy() if untouched else settings.path
