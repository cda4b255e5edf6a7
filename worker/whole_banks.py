"""
A bank's files with the judgement that it carries, read and checked as far as no encoder is needed.

Part of the composition root: settings say which bank. What is built over it is ``worker.instruments``.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.bank_control import BankControlV1
from worker.bank.files import StoredBank, load_bank
from worker.bank.leaving_out import Without, leave_out
from worker.bank.release_checks import require_activated
from worker.bank.settled import read_settled
from worker.errors import BankInvalid, ConfigInvalid
from worker.judgement.model import FittedJudgement
from worker.judgement.store import read_judgement
from worker.operation.active_release import active_release
from worker.operation.quarantined import quarantined
from worker.settings.tree import Settings
from worker.shipped import STARTER, STARTER_BANK


@dataclass(frozen=True, slots=True)
class WholeBank:
    """
    A bank's files with the judgement that it carries; ``serving`` a policy is still to be said.
    """

    stored: StoredBank
    judgement: FittedJudgement | None


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
