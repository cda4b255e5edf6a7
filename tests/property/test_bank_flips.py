"""
One flipped bit, anywhere in a bank, a release or the records of a place: refused, and the message names the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank_builders import a_source, build_small
from tests.fake_teacher import Fitted
from tests.release_worlds import canaries_of
from worker.bank.canary_files import read_canaries
from worker.bank.files import load_bank
from worker.bank.manifest import CANARY_FILES, JUDGEMENT_FILES, MANIFEST, MANIFEST_SUM, SIGNATURE
from worker.bank.release import with_judgement
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.bank.signature import public_key, signed
from worker.errors import BankInvalid

BITS = 8
NAMES = (
    MANIFEST,
    MANIFEST_SUM,
    SIGNATURE,
    "vectors.safetensors",
    "entries.jsonl",
    "probe.png",
    *JUDGEMENT_FILES,
    *CANARY_FILES,
)
names = st.sampled_from(NAMES)
places = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@dataclass(frozen=True, slots=True)
class World:
    """
    A fitted, signed bank of ten references, published with canaries and active; ``trusted`` is the key that signed.
    """

    releases: Releases
    release: Path
    place: Path
    trusted: tuple[str, ...]
    by: Issuer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """
    Made once: each example mends what it broke.
    """
    folder = tmp_path_factory.mktemp("flips")
    build_small(a_source(folder / "source"), folder / "bank")
    manifest = with_judgement(folder / "bank", Fitted()).manifest
    key = Ed25519PrivateKey.generate()
    (folder / "bank" / SIGNATURE).write_bytes(signed(manifest, key))
    trusted = (public_key(key),)
    releases = Releases(DirectoryPlace(folder / "place"), trusted)
    (folder / "canaries").mkdir()
    releases.publish(folder / "bank", "one", canaries=canaries_of(folder / "bank", folder))
    by = Issuer("a test", key=key)
    releases.activate("one", by)
    return World(releases, folder / "place" / "one", folder / "place", trusted, by)


def flipped(path: Path, place: float, bit: int) -> Iterator[None]:
    """
    Flip one bit while whoever asks looks, and mend it.
    """
    whole = path.read_bytes()
    content = bytearray(whole)
    content[round(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        yield
    finally:
        path.write_bytes(whole)


def read_all(world: World) -> None:
    """
    Everything that a worker reads of a release, as of a bank that nobody activated.
    """
    bank = load_bank(world.release, world.trusted)
    assert len(read_canaries(world.release, bank.manifest)) > 0


def test_every_file_is_flipped(world: World) -> None:
    """
    What the laws below draw from is all that a release consists of; whole, it is read.
    """
    read_all(world)

    assert sorted(NAMES) == sorted(path.name for path in world.release.iterdir())


@given(names, places, st.integers(0, BITS - 1))
@settings(max_examples=150, deadline=None)
def test_no_flipped_bit_of_a_bank_is_loaded(world: World, name: str, place: float, bit: int) -> None:
    """
    Also without a pointer that vouches for the manifest, and without trusted keys: the message names the file.
    """
    for _ in flipped(world.release / name, place, bit):
        with pytest.raises(BankInvalid, match=name.replace(".", r"\.")):
            read_all(replace(world, trusted=()))


@given(names, places, st.integers(0, BITS - 1))
@settings(max_examples=100, deadline=None)
def test_no_flipped_bit_of_a_release_is_used(world: World, name: str, place: float, bit: int) -> None:
    """
    A release that was activated whole and damaged since is refused when it is to be used.
    """
    control = world.releases.active()
    assert control is not None
    for _ in flipped(world.release / name, place, bit):
        with pytest.raises(BankInvalid, match=name.replace(".", r"\.")):
            read_canaries(world.releases.verified(control), world.releases.stored(control).manifest)


@given(st.sampled_from([MANIFEST, MANIFEST_SUM, SIGNATURE, "canaries.json", "canaries.sha256"]), places, st.data())
@settings(max_examples=100, deadline=None)
def test_no_flipped_bit_is_activated(world: World, name: str, place: float, data: st.DataObject) -> None:
    """
    What the pointer is to vouch for is held against what was published, before the pointer is written.
    """
    before = (world.place / "active.json").read_bytes()
    for _ in flipped(world.release / name, place, data.draw(st.integers(0, BITS - 1))):
        with pytest.raises(BankInvalid, match=name.replace(".", r"\.")):
            world.releases.activate("one", world.by)

    assert before == (world.place / "active.json").read_bytes()


@given(places, st.integers(0, BITS - 1))
@settings(max_examples=100, deadline=None)
def test_no_flipped_bit_changes_what_holds(world: World, place: float, bit: int) -> None:
    """
    A damaged pointer is refused by name; a bit that says nothing (the checksum's own name) changes nothing.
    """
    expected = world.releases.active()
    for _ in flipped(world.place / "active.json", place, bit):
        damage = world.releases.damage()
        found = expected if damage is not None else world.releases.active()

    assert damage is None or "active.json" in damage
    assert expected == found
