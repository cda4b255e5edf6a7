"""
What a worker that follows releases judges by, for those who watch it; and what of two records is the same to it.
"""

from dataclasses import dataclass

from schemas.bank_control import BankControlV1
from worker.bank.leaving_out import Without


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
    disabled_sources: int = 0


def status_of(control: BankControlV1, since_s: float, *, swaps: int, refusal: str | None = None) -> BankStatus:
    """
    The status of a worker that judges by what this record names.
    """
    return BankStatus(
        bank=control.bank,
        release=control.release,
        manifest_sha256=control.manifest_sha256,
        since_s=since_s,
        disabled_entries=len(control.disabled_entries),
        disabled_generators=len(control.disabled_generators),
        disabled_sources=len(control.disabled_sources),
        swaps=swaps,
        last_refusal=refusal,
    )


def same_files(one: BankControlV1, other: BankControlV1) -> bool:
    """
    Whether both name the same release with the same canaries.
    """
    return _files(one) == _files(other)


def same_left_out(one: BankControlV1, other: BankControlV1) -> bool:
    """
    Whether both leave out the same.
    """
    return Without.of(one) == Without.of(other)


def same_bank(one: BankControlV1, other: BankControlV1) -> bool:
    """
    Whether a worker does the same by both; who issued them, when and why is for people.
    """
    return same_files(one, other) and same_left_out(one, other)


def _files(control: BankControlV1) -> tuple[str | None, ...]:
    return control.bank, control.release, control.manifest_sha256, control.canaries_sha256
