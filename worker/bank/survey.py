"""
Reading every listed file once before any is embedded: who its bytes are, and whether its label is beyond doubt.

Conflicts and missing files come to light in the minutes this takes, not after the hours that embedding takes.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from schemas.errors import ErrorCode
from worker.bank.files import sha256_of
from worker.bank.sources import Listing, Reference
from worker.domain import ContentHash, Label
from worker.errors import BankInvalid

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Surveyed:
    """
    A reference and the sha256 of its bytes.
    """

    reference: Reference
    content_hash: ContentHash


@dataclass(frozen=True, slots=True)
class Skipped:
    """
    A reference that is left out of the bank, and why.
    """

    name: str
    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class Survey:
    """
    The references worth embedding, each content once; those that are not, and the repeated ones (name, first name).
    """

    unique: tuple[Surveyed, ...]
    skipped: tuple[Skipped, ...]
    duplicates: tuple[tuple[str, str], ...]


def no_progress(what: str, done: int, total: int) -> None:
    """
    For those who do not watch.
    """


def survey(
    listing: Listing,
    *,
    known: Mapping[ContentHash, tuple[Label, str]] | None = None,
    threads: int = 4,
    progress: Progress = no_progress,
) -> Survey:
    """
    Hash every listed file; ``known`` holds label and name of what the bank has already, which counts as a duplicate.

    The same bytes under the same label are taken once, from their first place. Raises ``BankInvalid`` naming both
    places where the same bytes have two labels: one of them is wrong, and both would vote.
    """
    first_of = dict(known or {})
    unique: list[Surveyed] = []
    skipped: list[Skipped] = []
    duplicates: list[tuple[str, str]] = []
    conflicts: list[str] = []
    total = len(listing.references)
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:
        for done, (reference, found) in enumerate(_hashed(pool, listing.references), start=1):
            progress("reading", done, total)
            if isinstance(found, Skipped):
                skipped.append(found)
            elif found not in first_of:
                first_of[found] = (reference.label, reference.name)
                unique.append(Surveyed(reference, found))
            elif first_of[found][0] == reference.label:
                duplicates.append((reference.name, first_of[found][1]))
            else:
                label, name = first_of[found]
                conflicts.append(f"{name} is {label} and {reference.name} is {reference.label}")
    if conflicts:
        more = f" (and {len(conflicts) - _NAMED} more)" if len(conflicts) > _NAMED else ""
        raise BankInvalid(
            f"{listing.name}: the same bytes have two labels: {'; '.join(conflicts[:_NAMED])}{more}. "
            "Find out which is right and remove the other."
        )
    return Survey(tuple(unique), tuple(skipped), tuple(duplicates))


def _hashed(
    pool: ThreadPoolExecutor, references: Iterable[Reference]
) -> Iterable[tuple[Reference, ContentHash | Skipped]]:
    return pool.map(lambda reference: (reference, _hash(reference)), references)


def _hash(reference: Reference) -> ContentHash | Skipped:
    try:
        # Opening a FIFO that nobody writes to would block for ever.
        if not stat.S_ISREG(reference.path.stat().st_mode):
            return Skipped(reference.name, ErrorCode.REF_FORBIDDEN, f"{reference.path} is no regular file")
        found = ContentHash(sha256_of(reference.path))
    except PermissionError as fault:
        return Skipped(reference.name, ErrorCode.FETCH_DENIED, f"{reference.path}: {fault.strerror}")
    except OSError as fault:
        return Skipped(reference.name, ErrorCode.FETCH_NOT_FOUND, f"{reference.path}: {fault.strerror}")
    if reference.sha256 is not None and reference.sha256 != found:
        return Skipped(
            reference.name, ErrorCode.INTEGRITY_MISMATCH, f"sha256 is {found}, the listing says {reference.sha256}"
        )
    return found
