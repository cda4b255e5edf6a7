"""
The list of references of one bank that must not judge: who put each there, why, and when. One JSON file, by itself.

It is no part of the bank, whose files never change: it stays when a new version of the bank is put in place, may lie
where the bank is mounted read-only, and is signed by nobody. What leaves references out is ``leaving_out.py``; releases
keep theirs in their control record.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.wire import Line
from worker.bank.entries import MAX_WORDS
from worker.bank.issued_words import MAX_BY, MAX_REASON, require_listable
from worker.bank.leaving_out import Without
from worker.bank.manifest import Name
from worker.bank.regular_files import FileRefused, read_whole
from worker.bank.release_checks import RECORD_SUM, record_bytes, record_problem
from worker.bank.release_place import put_file
from worker.bank.releases import Issuer
from worker.errors import BankInvalid, CannotStart, ConfigInvalid

MAX_NAMES: Final = 10_000
MAX_QUARANTINE_BYTES: Final = 32 * 1_048_576
"""More than ``MAX_NAMES`` at their longest need, in JSON."""


Kind = Literal["entry", "generator", "source"]


class Quarantined(BaseModel):
    """
    One name: a reference's id or the sha256 of its file, or a generator or source with all its references.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: Annotated[Line, Field(max_length=MAX_WORDS)]
    reason: Annotated[str, Field(max_length=MAX_REASON)] | None = None
    by: Annotated[Line, Field(max_length=MAX_BY)] | None = None
    at: AwareDatetime | None = None


class Quarantine(BaseModel):
    """
    The list. ``bank`` is the bank's id: a list is never applied to another bank.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    bank: Name
    quarantined: Annotated[tuple[Quarantined, ...], Field(max_length=MAX_NAMES)] = ()

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        seen: set[tuple[str, str]] = set()
        for one in self.quarantined:
            if (one.kind, one.name) in seen:
                raise ValueError(f"{one.kind} {one.name!r} is named twice")
            seen.add((one.kind, one.name))
        return self

    def without(self) -> Without:
        """
        What is left out.
        """
        entries, generators, sources = (
            frozenset(one.name for one in self.quarantined if one.kind == kind)
            for kind in ("entry", "generator", "source")
        )
        return Without(entries, generators, sources)

    def with_more(self, more: Without, issuer: Issuer) -> "Quarantine":
        """
        The list with further names; of one that is there already the first reason stays. Raises ``ConfigInvalid``.
        """
        require_listable(more)
        fresh = list(_listed(more.less(self.without()), issuer))
        if len(self.quarantined) + len(fresh) > MAX_NAMES:
            raise ConfigInvalid(
                f"the list would have {len(self.quarantined) + len(fresh)} names, expected at most {MAX_NAMES}; build "
                "the bank again without these references, or name their generator or source instead"
            )
        return self.model_copy(update={"quarantined": (*self.quarantined, *fresh)})

    def with_less(self, less: Without) -> "Quarantine":
        """
        The list without some of its names. Raises ``ConfigInvalid`` for one that it does not have.
        """
        if unknown := less.less(self.without()).names():
            raise ConfigInvalid(
                f"{unknown[0]!r} is not disabled in bank {self.bank}; `touchstone bank disable BANK --list` shows what "
                "is"
            )
        stays = self.without().less(less)
        kept = {("entry", name) for name in stays.entries} | {("generator", name) for name in stays.generators}
        kept |= {("source", name) for name in stays.sources}
        return self.model_copy(
            update={"quarantined": tuple(one for one in self.quarantined if (one.kind, one.name) in kept)}
        )


def read_quarantine(path: Path) -> Quarantine:
    """
    A list, checked; one without a checksum was written by hand, and is believed. Raises ``BankInvalid``.
    """
    try:
        # Through links: a list that is mounted from a Kubernetes ConfigMap is one.
        data = read_whole(Path(os.path.realpath(path)), most_bytes=MAX_QUARANTINE_BYTES)
    except FileRefused as fault:
        raise BankInvalid(
            f"bank.quarantine_path: {path} {fault}; without it references that were found bad would judge again. Put "
            'it back; while nothing is disabled, write {"bank": "ID"} into it, or do not set bank.quarantine_path'
        ) from fault
    try:
        said = json.loads(data)
        if not isinstance(said, dict):
            raise _unusable(path, "it is no object")
        problem = record_problem(said)
        found = Quarantine.model_validate({name: value for name, value in said.items() if name != RECORD_SUM})
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        raise _unusable(path, f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from fault
    except (ValueError, RecursionError) as fault:
        raise _unusable(path, f"it is no JSON ({fault})") from fault
    if problem is not None:
        raise _unusable(path, problem)
    return found


def write_quarantine(path: Path, quarantine: Quarantine) -> None:
    """
    Put a list in place in one step. Raises ``CannotStart`` where it cannot be written, or its folder is not there.

    Of two who change it in the same moment the later one wins.
    """
    require_folder(path)
    try:
        put_file(Path(os.path.realpath(path)), record_bytes(quarantine.model_dump(mode="json")))
    except OSError as fault:
        raise CannotStart(
            f"bank.quarantine_path: {path} cannot be written ({fault.strerror or fault}); name a file in a folder that "
            "you may write"
        ) from fault


def require_folder(path: Path) -> None:
    """
    Refuse a list whose folder is not there: it is not begun anew where a mount was lost. Raises ``CannotStart``.
    """
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise CannotStart(
            f"bank.quarantine_path: {folder}, the folder of {path}, is not there: where it is a mount that was lost, "
            "what was disabled is on it; mount it, or make the folder if there was no list yet"
        )


def require_bank(quarantine: Quarantine, path: Path, bank: str) -> None:
    """
    Refuse a list of another bank. Raises ``ConfigInvalid``.
    """
    if quarantine.bank != bank:
        raise ConfigInvalid(
            f"bank.quarantine_path: {path} is of bank {quarantine.bank!r}, this bank is {bank!r}; give each bank a "
            "list of its own"
        )


def _listed(left: Without, issuer: Issuer) -> Iterator[Quarantined]:
    at = issuer.at or datetime.now(UTC)
    kinds: tuple[tuple[Kind, frozenset[str]], ...] = (
        ("entry", left.entries),
        ("generator", left.generators),
        ("source", left.sources),
    )
    for kind, names in kinds:
        for name in sorted(names):
            yield Quarantined(kind=kind, name=name, reason=issuer.reason, by=issuer.name, at=at)


def _unusable(path: Path, why: str) -> BankInvalid:
    return BankInvalid(
        f"bank.quarantine_path: {path} cannot be followed: {why}; mend it, or take it from a backup: without it "
        "references that were found bad would judge again"
    )
