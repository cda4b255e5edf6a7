"""
The releases of one bank in a place: published once and never changed, one of them active, and how that came about.

``RELEASE/`` is a bank directory, with its canaries where it was published with some. ``active.json`` says which release
holds and what of it is disabled (``schemas.bank_control``); ``history/NNNNNN-STEP.json`` keeps each of its states.
Nobody locks the place: of two operators who change it in the same moment, the later one wins, and may hide a step.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from schemas.bank_control import BankControlV1
from worker.bank.control_signature import is_vouched, require_vouched, sign_control
from worker.bank.files import StoredBank, load_bank
from worker.bank.issued_words import made_control, require_listable, require_sayable
from worker.bank.leaving_out import Without
from worker.bank.manifest import CANARIES, MANIFEST, MANIFEST_SUM, SIGNATURE, BankManifest, manifest_sha256
from worker.bank.release_checks import (
    check_release,
    control_bytes,
    published_release,
    read_control,
    require_activated,
)
from worker.bank.release_history import HISTORY, ReleaseHistory, Step
from worker.bank.release_place import ReleasePlace
from worker.bank.signature import SigningKey, key_ids, public_key
from worker.errors import BankInvalid, ConfigInvalid

ACTIVE: Final = "active.json"
LOOKED_BACK: Final = 6
"""In so many releases a name is looked for that is to be disabled, from the active one back."""
RELEASE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


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
    Who changes the state of a place, why, and when; ``key`` signs what holds then. See ``require_sayable``.
    """

    name: str | None = None
    reason: str | None = None
    at: datetime | None = None
    key: SigningKey | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_sayable(self.name, self.reason)

    def stamp(self) -> dict[str, object]:
        """
        The fields of a control record that is not signed yet.
        """
        at = self.at or datetime.now(UTC)
        return {"issued_at": at, "issued_by": self.name, "reason": self.reason, "signatures": ()}


class Releases:
    """
    The releases in one place. Every method blocks; raises ``CannotStart`` where the place cannot be reached.

    With ``trusted`` public keys a release is published, activated and used only if one of them signed it, and so is
    what holds: a change needs one of the keys, and starts from the newest record that one of them signed.
    """

    def __init__(self, place: ReleasePlace, trusted: Collection[str] = ()) -> None:
        self._place = place
        self._history = ReleaseHistory(place)
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
                canaries = CANARIES in self._place.listed(name)
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
        What the pointer says, whoever wrote it (see ``require_vouched``); None where nothing was activated yet.

        Raises ``BankInvalid`` for a pointer that says nothing.
        """
        data = self._place.read(ACTIVE)
        return None if data is None else read_control(f"{self._place.name}: {ACTIVE}", data)

    def activate(self, release: str, issuer: Issuer) -> BankControlV1:
        """
        Let a release hold. What is disabled stays so: a reference that was found bad must not come back unnoticed.

        It mends a damaged pointer too: what was disabled is then taken from the newest step that can be read. Raises
        ``ConfigInvalid`` where there is no such release.
        """
        before = self._before(issuer)
        return self._store("activate", self._fresh(release, before, issuer), issuer, before)

    def damage(self) -> str | None:
        """
        What is wrong with the pointer; None where it can be followed, or where there is none yet.
        """
        try:
            if (active := self.active()) is not None:
                self.require_vouched(active)
        except BankInvalid as fault:
            return str(fault)
        return None

    def rollback(self, issuer: Issuer) -> BankControlV1:
        """
        Let the release hold that did before the active one was activated; again, and it is the one before that.

        What is disabled stays so. Raises ``ConfigInvalid`` where none was active before.
        """
        way: list[BankControlV1] = []
        present = self._before(issuer)
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
        found = self._fresh(before.release, present, issuer)
        if found.manifest_sha256 != before.manifest_sha256:
            raise BankInvalid(
                f"{self._place.name}: release {before.release} has manifest {found.manifest_sha256}, when it was "
                f"active it was {before.manifest_sha256}: it was replaced by hand; activate a release by name"
            )
        return self._store("rollback", found, issuer, present)

    def disable(
        self,
        issuer: Issuer,
        *,
        entries: frozenset[str] = frozenset(),
        generators: frozenset[str] = frozenset(),
        sources: frozenset[str] = frozenset(),
        enable: bool = False,
    ) -> BankControlV1:
        """
        Leave references out of the active release from now on, or with ``enable`` take them in again.

        Raises ``ConfigInvalid`` where nothing is active, and for names that are not in the release or not disabled.
        """
        active = self._before(issuer) if self._trusted else self.active()
        if active is None:
            raise ConfigInvalid(f"{self._place.name}: no release is active, so nothing can be disabled; activate one")
        said, present = Without(entries, generators, sources), Without.of(active)
        unknown = (said.less(present) if enable else self._strangers(active, said)).names()
        if unknown:
            what = "is not disabled" if enable else f"is not in release {active.release}, nor in one before it"
            raise ConfigInvalid(f"{self._place.name}: {unknown[0]!r} {what}; `touchstone bank releases` shows what is")
        require_listable(said)
        left = present.less(said) if enable else present.more(said)
        changed = made_control({**active.model_dump(), **left.disabled(), **issuer.stamp()})
        return self._store("disable", changed, issuer, active)

    def history(self) -> list[tuple[str, BankControlV1]]:
        """
        Every step and the state after it, oldest first; with trusted keys those alone that one of them signed.
        """
        return [(step, control) for step, control in self._history.steps() if self._believed(control)]

    def states(self) -> Iterator[BankControlV1]:
        """
        The states that the history tells of, newest first; a file of it that cannot be read is passed over.

        With trusted keys so is a state that none of them signed.
        """
        return filter(self._believed, self._history.states())

    def require_vouched(self, control: BankControlV1) -> None:
        """
        Refuse a record of what holds that none of the trusted keys signed, where there are any. Raises ``BankInvalid``.
        """
        require_vouched(f"what says that release {control.release} holds", control, self._trusted)

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
        stored = load_bank(self.verified(control), self._trusted)
        require_activated(control, stored.manifest_sha256)
        return stored

    def _before(self, issuer: Issuer) -> BankControlV1 | None:
        """
        The record that a change starts from; raises ``ConfigInvalid`` where workers would not believe the next one.
        """
        if self._trusted and (issuer.key is None or public_key(issuer.key) not in self._trusted):
            raise ConfigInvalid(
                f"{self._place.name}: bank.trusted_keys is set, so workers follow only what is signed by "
                f"{key_ids(sorted(self._trusted))}; pass the file of such a key with --key"
            )
        try:
            pointer = self.active()
        except BankInvalid:
            pointer = next(self._history.states(), None)
        if not self._trusted:
            return pointer
        signed = [one for one in (pointer, *self.states()) if one is not None and self._believed(one)]
        # Where nothing was ever signed the first signed record takes over what is disabled; `damage` tells of that.
        return max(signed, key=lambda one: one.issued_at, default=pointer)

    def _believed(self, control: BankControlV1) -> bool:
        return not self._trusted or is_vouched(control, self._trusted)

    def _fresh(self, release: str, active: BankControlV1 | None, issuer: Issuer) -> BankControlV1:
        named = re.fullmatch(RELEASE_PATTERN, release) is not None
        found = published_release(self._place, release, self._trusted) if named else None
        if found is None:
            names = ", ".join(one.name for one in self.releases()) or "none"
            raise ConfigInvalid(f"{self._place.name} has no release {release!r}, it has {names}; publish it first")
        return made_control(
            {
                "bank": found.manifest.id,
                "release": release,
                "manifest_sha256": manifest_sha256(found.manifest),
                "canaries_sha256": found.canaries_sha256,
                **(Without() if active is None else Without.of(active)).disabled(),
                **issuer.stamp(),
            }
        )

    def _store(self, step: Step, control: BankControlV1, issuer: Issuer, before: BankControlV1 | None) -> BankControlV1:
        if issuer.key is not None:
            # Only where the time before is one that was signed: nobody else pushes ours into the future.
            own = self._trusted or {public_key(issuer.key)}
            signed = before is not None and is_vouched(before, own)
            control = sign_control(control, issuer.key, after=before.issued_at if before and signed else None)
        data = control_bytes(control)
        # The history first: a state that held and is not told in it could not be rolled back to.
        self._history.add(step, data)
        self._place.write(ACTIVE, data)
        return control

    def _strangers(self, active: BankControlV1, left: Without) -> Without:
        # A worker that refused the active release judges by one before it, which may have what this one has not.
        faults, wanted = [], {(one.release, one.manifest_sha256): one for one in (active, *self.states())}
        for control in islice(wanted.values(), LOOKED_BACK):
            try:
                table = self.stored(control).entries
            except BankInvalid as fault:
                faults.append(fault)
                continue
            left = left.strangers(table)
            if left == Without():
                break
        if len(faults) == min(len(wanted), LOOKED_BACK):
            raise faults[0]
        return left


def _names(control: BankControlV1) -> tuple[str, str]:
    return control.release, control.manifest_sha256
