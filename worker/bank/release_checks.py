"""
What is believed of a place of releases, and what is not: its records, a release before it is activated, one before use.

When any of it is asked is in ``worker.bank.releases``.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from schemas.bank_control import BankControlV1
from worker.bank.files import read_manifest
from worker.bank.manifest import (
    CANARIES,
    CANARIES_SUM,
    CANARY_FILES,
    MANIFEST,
    MANIFEST_SUM,
    SIGNATURE,
    BankManifest,
    manifest_sha256,
)
from worker.bank.manifest_checks import most_bytes, parsed_manifest
from worker.bank.regular_files import FileRefused, digest_of, sum_problem
from worker.bank.release_place import ReleasePlace
from worker.bank.signature import check_signature
from worker.errors import BankInvalid

RECORD_SUM: Final = "sha256"
"""A member of each record that is written: over its other members, so that no flipped bit enables what is disabled."""


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """
    What a release in a place says of itself, checked as far as can be without its large files.
    """

    manifest: BankManifest
    canaries_sha256: str | None


def control_bytes(control: BankControlV1) -> bytes:
    """
    A record as a place keeps it, with its checksum.
    """
    return record_bytes(control.model_dump(mode="json"))


def read_control(where: str, data: bytes) -> BankControlV1:
    """
    A record that a place keeps; one without a checksum was written by hand, and is believed. Raises ``BankInvalid``.
    """
    try:
        said = json.loads(data)
        control = BankControlV1.model_validate_json(data)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        raise _unfollowed(where, f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}") from fault
    except (ValueError, RecursionError) as fault:
        raise _unfollowed(where, f"it is no JSON ({fault})") from fault
    if problem := record_problem(said):
        raise _unfollowed(where, problem)
    return control


def published_release(place: ReleasePlace, release: str, trusted: Collection[str] = ()) -> PublishedRelease | None:
    """
    A release's manifest and the hash of its canaries, held against what vouches for them; None where it is not there.

    Raises ``BankInvalid`` naming the file, also where none of the ``trusted`` keys signed it.
    """
    data = place.read(f"{release}/{MANIFEST}")
    if data is None:
        return None
    where = f"{place.name}: release {release}"
    manifest = parsed_manifest(where, data, place.read(f"{release}/{MANIFEST_SUM}"))
    check_signature(where, manifest, place.read(f"{release}/{SIGNATURE}"), trusted)
    canaries, said = (place.read(f"{release}/{name}") for name in (CANARIES, CANARIES_SUM))
    if canaries is None and said is None:
        return PublishedRelease(manifest, None)
    problem = sum_problem(CANARIES, canaries or b"", said or b"")
    if canaries is None or said is None:
        problem = f"{CANARIES if canaries is None else CANARIES_SUM} is missing, expected {' and '.join(CANARY_FILES)}"
    if problem is not None:
        raise BankInvalid(f"{where}: {problem}; publish the bank again under another name")
    return PublishedRelease(manifest, hashlib.sha256(canaries or b"").hexdigest())


def require_activated(control: BankControlV1, found: str) -> None:
    """
    Refuse a manifest with another sha256 than the one that was activated. Raises ``BankInvalid``.

    To be asked again of whatever was read after ``check_release``: the files may have been exchanged in between, and
    what is loaded is held against the manifest that was read with it.
    """
    if found != control.manifest_sha256:
        raise BankInvalid(
            f"release {control.release}: its {MANIFEST} has sha256 {found}, {control.manifest_sha256} was activated: "
            "it is another bank than the operator meant; activate the release again if it is the right one"
        )


def check_release(folder: Path, control: BankControlV1, trusted: Collection[str] = ()) -> None:
    """
    Compare every hash of a release on this machine with what was activated. Raises ``BankInvalid`` naming the file.
    """
    manifest = read_manifest(folder, trusted)
    require_activated(control, manifest_sha256(manifest))
    if manifest.id != control.bank:
        raise BankInvalid(f"release {control.release} is of bank {manifest.id!r}, the record is of {control.bank!r}")
    wanted = manifest.file_checksums
    if control.canaries_sha256 is not None:
        wanted = wanted | {CANARIES: control.canaries_sha256}
    for name, expected in wanted.items():
        try:
            digest = digest_of(folder / name, most_bytes=most_bytes(name, manifest))
        except FileRefused as fault:
            raise _damaged(control, f"{name} {fault}, expected sha256 {expected}") from fault
        if digest != expected:
            raise _damaged(control, f"{name} has sha256 {digest}, expected {expected}")


def record_bytes(said: Mapping[str, object]) -> bytes:
    """
    A record as it is written: its members, and the checksum over them.
    """
    return (json.dumps({**said, RECORD_SUM: _sum_of(said)}, indent=2) + "\n").encode()


def record_problem(said: Mapping[str, object]) -> str | None:
    """
    Why a record is not what was written; None where it is, and where it has no checksum, as one written by hand.
    """
    claimed = said.get(RECORD_SUM)
    expected = _sum_of({name: value for name, value in said.items() if name != RECORD_SUM})
    if claimed is None or claimed == expected:
        return None
    return f"its {RECORD_SUM} is {str(claimed)[:64]}, expected {expected}: it is damaged"


def _sum_of(said: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _unfollowed(where: str, why: str) -> BankInvalid:
    return BankInvalid(
        f"{where} says nothing that can be followed: {why}; activate a release again with `touchstone bank activate`"
    )


def _damaged(control: BankControlV1, what: str) -> BankInvalid:
    return BankInvalid(
        f"release {control.release}: {what}: damaged or replaced; publish the bank again under another name and "
        "activate that"
    )
