"""
What is believed of a place of releases, and what is not: its records, a release before it is activated, one before use.

When any of it is asked is in ``worker.bank.releases``.
"""

import hashlib
import json
from collections.abc import Collection
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
    said = control.model_dump(mode="json")
    return (json.dumps({**said, RECORD_SUM: _sum_of(said)}, indent=2) + "\n").encode()


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
    claimed = said.pop(RECORD_SUM, None)
    if claimed is not None and claimed != _sum_of(said):
        raise _unfollowed(where, f"its {RECORD_SUM} is {str(claimed)[:64]}, expected {_sum_of(said)}: it is damaged")
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


def check_release(folder: Path, control: BankControlV1, trusted: Collection[str] = ()) -> None:
    """
    Compare every hash of a release on this machine with what was activated. Raises ``BankInvalid`` naming the file.
    """
    manifest = read_manifest(folder, trusted)
    found = manifest_sha256(manifest)
    if found != control.manifest_sha256:
        raise BankInvalid(
            f"release {control.release}: its {MANIFEST} has sha256 {found}, {control.manifest_sha256} was activated: "
            "it is another bank than the operator meant; activate the release again if it is the right one"
        )
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


def _sum_of(said: dict[str, object]) -> str:
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
