"""
All that a judgement is made with, opened once and checked against each other before any upload is looked at.

Part of the composition root: this module builds adapters. What they are put together to is ``worker.app``.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from schemas.verdict import Mode
from worker import __version__
from worker.adapters.clip_encoder import load_encoder
from worker.adapters.content_credentials import credentials_reader
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_references import FaissReferences
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.bank.files import StoredBank, load_bank
from worker.bank.fit import check_fit
from worker.errors import BankInvalid, CannotStart, ConfigInvalid
from worker.flow.fitted_bank import FittedBank
from worker.judgement.model import FittedJudgement
from worker.judgement.real_scores import POOLED
from worker.judgement.store import read_judgement
from worker.policy import Policy, applied_rule, check_policy_fits, load_policy, shipped_policy
from worker.ports import Bank, Encoder, PictureDecoder, Recorder
from worker.settings.tree import DecodeSettings, PolicySettings, Settings
from worker.shipped import STARTER, STARTER_BANK
from worker.stages.assess import flag_thresholds
from worker.stages.decode import DecodeLimits, PillowDecoder, decoder_versions
from worker.stages.report import PolicyIdentity, RunVersions
from worker.views import GLOBAL_ONLY, ViewSpec

_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Instruments:
    """
    Encoder, decoder, bank and policy; ``fitted`` is there if and only if the rule that is applied is ``fused``.

    ``judgement_id``: that of the judgement which the bank carries, applied or not; None where it carries none.
    ``credentials``: see ``credentials_version``.
    """

    encoder: Encoder
    decoder: PictureDecoder
    bank: Bank
    policy: Policy
    views: ViewSpec = GLOBAL_ONLY
    fitted: FittedBank | None = None
    judgement_id: str | None = None
    credentials: str | None = None

    def versions(self, mode: Mode) -> RunVersions:
        """
        What the verdicts of a run say of them.
        """
        return RunVersions(
            encoder=self.encoder.fingerprint,
            bank=self.bank.identity,
            policy=PolicyIdentity(self.policy.id, self.policy.version, self.policy.sha256),
            worker=__version__,
            decoders=decoder_versions() | ({} if self.credentials is None else {"c2pa": self.credentials}),
            mode=mode,
            judgement=self.judgement_id,
            views=self.views.sha256,
        )


def open_decoder(settings: Settings, encoder: Encoder, views: ViewSpec = GLOBAL_ONLY) -> PillowDecoder:
    """
    The decoder that makes this encoder's input and these views, under the configured limits.

    Raises ``CannotStart`` for formats or trust anchors that cannot be read.
    """
    return PillowDecoder(
        encoder.fingerprint.preprocess,
        DecodeLimits(formats=settings.decode.formats, max_pixels=settings.decode.max_pixels),
        perceptual_hash=pdq if settings.decode.perceptual_hash else None,
        views=views,
        statistics=statistics if views.realism else None,
        credentials=credentials_reader(_trust_anchors(settings.decode)) if settings.decode.credentials else None,
    )


def credentials_version(settings: DecodeSettings) -> str | None:
    """
    How content credentials are read: library and trust anchors, which say what is valid and trusted; None if not read.
    """
    if not settings.credentials:
        return None
    anchors = _trust_anchors(settings)
    digest = "none" if anchors is None else hashlib.sha256(anchors.encode()).hexdigest()[:_SHORT]
    return f"{version('c2pa-python')}, trust anchors {digest}"


def _trust_anchors(settings: DecodeSettings) -> str | None:
    if settings.trust_anchors is None:
        return None
    try:
        return settings.trust_anchors.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as fault:
        raise CannotStart(
            f"decode.trust_anchors {settings.trust_anchors} cannot be read ({type(fault).__name__}); name a PEM file"
        ) from fault


def open_instruments(settings: Settings, recorder: Recorder) -> Instruments:
    """
    Policy, bank and its judgement, encoder, decoder, in this order: what is cheap to refuse is looked at first.

    Raises ``ConfigInvalid``, ``EncoderInvalid``, ``BankInvalid``, or ``CannotStart`` for what decoding needs.
    """
    policy = load_policy(policy_path(settings.policy))
    path = bank_path(settings)
    stored = load_bank(path)
    identity = stored.identity(settings.bank.index)
    check_policy_fits(policy, identity)
    judgement = judgement_of(stored, path)
    fused = applied_rule(policy, identity, fitted=judgement is not None) == "fused"
    if judgement is not None:
        judgement = judgement.serving(policy.rule.alpha, policy.rule.pac_delta, policy.rule.guarantee)
    thresholds = flag_thresholds(judgement, buckets_of(judgement), policy.rule) if judgement and fused else {}
    encoder = load_encoder(settings.encoder, recorder=recorder)
    decoder = open_decoder(settings, encoder, stored.views)
    check_fit(stored, encoder, decoder)
    bank = FaissBank(stored, settings.bank)
    fitted = None
    if judgement is not None and fused:
        fitted = FittedBank(judgement, FaissReferences(bank, stored), thresholds, policy.rule.grey_zone)
    return Instruments(
        encoder,
        decoder,
        bank,
        policy,
        views=stored.views,
        fitted=fitted,
        judgement_id=None if judgement is None else judgement.id,
        credentials=credentials_version(settings.decode),
    )


def bank_path(settings: Settings) -> Path:
    """
    Where the bank is: as configured, else the one that ships with the starter encoder.

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
