"""
The releases of one bank in a place: published once and never changed, one of them active, and how that came about.

``RELEASE/`` is a bank directory, with its canaries where it was published with some. ``active.json`` says which release
holds and what of it is disabled (``schemas.bank_control``); ``history/NNNNNN-STEP.json`` keeps each of its states.
Nobody locks the place: of two operators who change it in the same moment, the later one wins, and may hide a step.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from schemas.bank_control import BankControlV1
from worker.bank.files import StoredBank, load_bank
from worker.bank.manifest import CANARIES, MANIFEST, MANIFEST_SUM, SIGNATURE, BankManifest, manifest_sha256
from worker.bank.release_checks import check_release, control_bytes, published_release, read_control
from worker.bank.release_place import ReleasePlace
from worker.errors import BankInvalid, ConfigInvalid

ACTIVE: Final = "active.json"
HISTORY: Final = "history"
LOOKED_BACK: Final = 6
"""In so many releases a name is looked for that is to be disabled, from the active one back."""
RELEASE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Step = Literal["activate", "rollback", "disable"]
_STEP_FILE: Final = re.compile(r"^(\d{6,})-(activate|rollback|disable)\.json$")


@dataclass(frozen=True, slots=True)
class Release:
    """
    One release as a list shows it; ``manifest`` is None where it cannot be read, and ``problem`` says why.
    """

    name: str
    manifest: BankManifest | None
    has_canaries: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Issuer:
    """
    Who changes the state of a place, why, and when.
    """

    name: str | None = None
    reason: str | None = None
    at: datetime | None = None

    def stamp(self) -> dict[str, object]:
        """
        The fields of a control record.
        """
        return {"issued_at": self.at or datetime.now(UTC), "issued_by": self.name, "reason": self.reason}


class Releases:
    """
    The releases in one place. Every method blocks; raises ``CannotStart`` where the place cannot be reached.

    With ``trusted`` public keys a release is published, activated and used only if one of them signed it.
    """

    def __init__(self, place: ReleasePlace, trusted: Collection[str] = ()) -> None:
        self._place = place
        self._trusted = frozenset(trusted)

    @property
    def place(self) -> ReleasePlace:
        """
        Where they lie.
        """
        return self._place

    def publish(self, bank: Path, release: str | None = None, *, canaries: Mapping[str, Path] | None = None) -> str:
        """
        Put a bank into the place under a name of its own (by default the bank's version), and return it.

        It is not activated. ``canaries`` are the files of ``worker.bank.canary_files``. Raises ``BankInvalid`` for a
        bank that fails its checks or has another id than those in the place, ``ConfigInvalid`` for a name that is taken
        or no name.
        """
        stored = load_bank(bank, self._trusted)
        name = release or stored.manifest.version
        if re.fullmatch(RELEASE_PATTERN, name) is None or name in {ACTIVE, HISTORY}:
            raise ConfigInvalid(
                f"the release is named {name!r}; expected at most 128 letters, digits, dots, dashes and underscores, a "
                f"letter or digit first, and neither {ACTIVE} nor {HISTORY}"
            )
        there = self._place.listed()
        if name in there:
            raise ConfigInvalid(
                f"{self._place.name} has a release {name} already, and releases never change; choose another --release"
            )
        present = self.bank_id()
        if present is not None and present != stored.manifest.id:
            raise BankInvalid(
                f"{self._place.name} holds releases of bank {present!r}, this one is {stored.manifest.id!r}: workers "
                "would answer another question; publish it to a place of its own"
            )
        files = {file: bank / file for file in (*stored.manifest.file_checksums, MANIFEST_SUM, MANIFEST)}
        if (bank / SIGNATURE).exists():
            files[SIGNATURE] = bank / SIGNATURE
        files |= canaries or {}
        # The manifest last: a release is there when its manifest is.
        files[MANIFEST] = files.pop(MANIFEST)
        self._place.put(name, files)
        return name

    def releases(self) -> list[Release]:
        """
        All releases, by name.
        """
        found = []
        for name in self._place.listed():
            if name in {ACTIVE, HISTORY}:
                continue
            try:
                one = published_release(self._place, name, self._trusted)
            except BankInvalid as fault:
                canaries = self._place.read(f"{name}/{CANARIES}") is not None
                found.append(Release(name, None, canaries, str(fault)))
                continue
            if one is not None:
                found.append(Release(name, one.manifest, one.canaries_sha256 is not None))
        return found

    def bank_id(self) -> str | None:
        """
        Which bank the releases are of; None while there is none.
        """
        # Whoever signed them: a first signed release may follow those of a time when none were.
        return next((one.manifest.id for one in Releases(self._place).releases() if one.manifest is not None), None)

    def active(self) -> BankControlV1 | None:
        """
        What holds now; None where nothing was activated yet. Raises ``BankInvalid`` for a pointer that says nothing.
        """
        data = self._place.read(ACTIVE)
        return None if data is None else self._control(ACTIVE, data)

    def activate(self, release: str, issuer: Issuer) -> BankControlV1:
        """
        Let a release hold. What is disabled stays so: a reference that was found bad must not come back unnoticed.

        It mends a damaged pointer too: what was disabled is then taken from the newest step that can be read. Raises
        ``ConfigInvalid`` where there is no such release.
        """
        return self._store("activate", self._fresh(release, self._last(), issuer))

    def damage(self) -> str | None:
        """
        What is wrong with the pointer; None where it can be followed, or where there is none yet.
        """
        try:
            self.active()
        except BankInvalid as fault:
            return str(fault)
        return None

    def rollback(self, issuer: Issuer) -> BankControlV1:
        """
        Let the release hold that did before the active one was activated; again, and it is the one before that.

        What is disabled stays so. Raises ``ConfigInvalid`` where none was active before.
        """
        way: list[BankControlV1] = []
        for step, control in self.history():
            if step == "activate" and (not way or _names(way[-1]) != _names(control)):
                way.append(control)
            elif step == "rollback" and len(way) > 1:
                way.pop()
        if len(way) < 2:  # noqa: PLR2004 - the present and the one before
            raise ConfigInvalid(
                f"{self._place.name}: no release was active before the present one; activate one by name"
            )
        before = way[-2]
        found = self._fresh(before.release, self._last(), issuer)
        if found.manifest_sha256 != before.manifest_sha256:
            raise BankInvalid(
                f"{self._place.name}: release {before.release} has manifest {found.manifest_sha256}, when it was "
                f"active it was {before.manifest_sha256}: it was replaced by hand; activate a release by name"
            )
        return self._store("rollback", found)

    def disable(
        self, issuer: Issuer, *, entries: frozenset[str], generators: frozenset[str], enable: bool = False
    ) -> BankControlV1:
        """
        Leave references out of the active release from now on, or with ``enable`` take them in again.

        Raises ``ConfigInvalid`` where nothing is active, and for names that are not in the release or not disabled.
        """
        active = self.active()
        if active is None:
            raise ConfigInvalid(f"{self._place.name}: no release is active, so nothing can be disabled; activate one")
        left_entries, left_generators = set(active.disabled_entries), set(active.disabled_generators)
        if enable:
            unknown = sorted((entries - left_entries) | (generators - left_generators))
            left_entries -= entries
            left_generators -= generators
        else:
            unknown = self._strangers(active, entries, generators)
            left_entries |= entries
            left_generators |= generators
        if unknown:
            what = "is not disabled" if enable else f"is not in release {active.release}, nor in one before it"
            raise ConfigInvalid(f"{self._place.name}: {unknown[0]!r} {what}; `touchstone bank releases` shows what is")
        left = {"disabled_entries": tuple(sorted(left_entries)), "disabled_generators": tuple(sorted(left_generators))}
        return self._store("disable", BankControlV1.model_validate({**active.model_dump(), **left, **issuer.stamp()}))

    def history(self) -> list[tuple[str, BankControlV1]]:
        """
        Every step and the state after it, oldest first.
        """
        found = ((step, name, self._place.read(name)) for _, step, name in self._steps())
        return [(step, self._control(name, data)) for step, name, data in found if data is not None]

    def states(self) -> Iterator[BankControlV1]:
        """
        The states that the history tells of, newest first; a file of it that cannot be read is passed over.
        """
        for _, _, name in reversed(self._steps()):
            data = self._place.read(name)
            try:
                found = None if data is None else self._control(name, data)
            except BankInvalid:
                continue
            if found is not None:
                yield found

    def verified(self, control: BankControlV1) -> Path:
        """
        The directory of the release that a record names, every hash compared; ``load_bank`` may follow.

        Raises ``BankInvalid`` where it is not the release that was activated, or is damaged.
        """
        folder = self._place.folder(control.release, control.manifest_sha256)
        try:
            check_release(folder, control, self._trusted)
        except BankInvalid:
            self._place.forget_copy(control.release, control.manifest_sha256)
            raise
        return folder

    def stored(self, control: BankControlV1) -> StoredBank:
        """
        The release that a record names, loaded. Raises ``BankInvalid``.
        """
        return load_bank(self.verified(control), self._trusted)

    def _last(self) -> BankControlV1 | None:
        try:
            return self.active()
        except BankInvalid:
            return next(self.states(), None)

    def _steps(self) -> list[tuple[int, str, str]]:
        matches = [match for name in self._place.listed(HISTORY) if (match := _STEP_FILE.fullmatch(name))]
        return sorted((int(match[1]), match[2], f"{HISTORY}/{match[0]}") for match in matches)

    def _fresh(self, release: str, active: BankControlV1 | None, issuer: Issuer) -> BankControlV1:
        named = re.fullmatch(RELEASE_PATTERN, release) is not None
        found = published_release(self._place, release, self._trusted) if named else None
        if found is None:
            names = ", ".join(one.name for one in self.releases()) or "none"
            raise ConfigInvalid(f"{self._place.name} has no release {release!r}, it has {names}; publish it first")
        return BankControlV1.model_validate(
            {
                "bank": found.manifest.id,
                "release": release,
                "manifest_sha256": manifest_sha256(found.manifest),
                "canaries_sha256": found.canaries_sha256,
                "disabled_entries": () if active is None else active.disabled_entries,
                "disabled_generators": () if active is None else active.disabled_generators,
                **issuer.stamp(),
            }
        )

    def _store(self, step: Step, control: BankControlV1) -> BankControlV1:
        data = control_bytes(control)
        newest = max((number for number, _, _ in self._steps()), default=0)
        # The history first: a state that held and is not told in it could not be rolled back to.
        self._place.write(f"{HISTORY}/{newest + 1:06d}-{step}.json", data)
        self._place.write(ACTIVE, data)
        return control

    def _strangers(self, active: BankControlV1, entries: frozenset[str], generators: frozenset[str]) -> list[str]:
        # A worker that refused the active release judges by one before it, which may have what this one has not.
        faults, wanted = [], {(one.release, one.manifest_sha256): one for one in (active, *self.states())}
        for control in islice(wanted.values(), LOOKED_BACK):
            try:
                table = self.stored(control).entries
            except BankInvalid as fault:
                faults.append(fault)
                continue
            entries -= {table.entry(int(row)).id for row in table.rows_named(entries)}
            generators -= frozenset(name for name in table.generators() if name)
            if not entries | generators:
                return []
        if len(faults) == min(len(wanted), LOOKED_BACK):
            raise faults[0]
        return sorted(entries | generators)

    def _control(self, name: str, data: bytes) -> BankControlV1:
        return read_control(f"{self._place.name}: {name}", data)


def _names(control: BankControlV1) -> tuple[str, str]:
    return control.release, control.manifest_sha256
