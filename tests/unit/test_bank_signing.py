"""
Signed banks: who may vouch, what is refused where keys are trusted, and how one key follows another.
"""

import shutil
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.release_worlds import BY, SignedPlace
from worker.bank.files import load_bank, read_manifest
from worker.bank.manifest import SIGNATURE, canonical_bytes
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.bank.signature import MAX_SIGNATURES, key_id
from worker.bank.signing_key import make_key, read_key, sign_bank
from worker.errors import BankInvalid, ConfigInvalid, TouchstoneError

STRANGER = "11" * 32


@pytest.fixture
def touchstone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, bank: Path
) -> Touchstone:
    """
    ``touchstone bank ...`` in the folder of the bank and the keys.
    """
    assert bank.is_dir()
    return bank_command(monkeypatch, capsys, tmp_path)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """
    A bank that nobody signed.
    """
    return build_small(a_source(tmp_path / "source"), tmp_path / "bank").path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """
    The public keys of two files, ``old.pem`` and ``new.pem``.
    """
    return {name: make_key(tmp_path / f"{name}.pem") for name in ("old", "new")}


def sign(bank: Path, name: str) -> None:
    """
    Sign with one of the keys beside the bank.
    """
    sign_bank(bank, read_key(bank.parent / f"{name}.pem"))


def test_a_signed_bank_is_loaded_where_its_key_is_trusted(bank: Path, keys: dict[str, str]) -> None:
    """
    By any of the trusted keys, and everywhere where none is.
    """
    sign(bank, "old")
    found = [load_bank(bank, trusted) for trusted in ((keys["old"],), (keys["new"], keys["old"]), ())]

    assert 3 == len(found)


def test_an_unsigned_bank_is_refused_where_keys_are_trusted(bank: Path, keys: dict[str, str]) -> None:
    """
    The message names the file, the setting and the id of the key that is wanted.
    """
    with pytest.raises(BankInvalid, match=rf"manifest\.sig is missing, .*key {key_id(keys['old'])} .*trusted_keys"):
        load_bank(bank, (keys["old"],))


def test_a_stranger_vouches_for_nothing(bank: Path, keys: dict[str, str]) -> None:
    """
    The message names both keys.
    """
    sign(bank, "new")
    with pytest.raises(BankInvalid, match=rf"is by key {key_id(keys['new'])}, expected key {key_id(keys['old'])}"):
        load_bank(bank, (keys["old"],))


def test_a_signature_is_of_one_manifest(bank: Path, keys: dict[str, str], tmp_path: Path) -> None:
    """
    Of another bank it is refused, whoever is trusted: with every checksum right.
    """
    sign(bank, "old")
    other = build_small(a_source(tmp_path / "other-source", reals=7), tmp_path / "other").path
    shutil.copy(bank / SIGNATURE, other / SIGNATURE)

    for trusted in ((keys["old"],), ()):
        with pytest.raises(BankInvalid, match=rf"key {key_id(keys['old'])} in line 1 is not over this manifest"):
            load_bank(other, trusted)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"ed25519 00 11\n",
        b"rsa " + b"00" * 32 + b" " + b"00" * 64 + b"\n",
        b"ed25519 " + b"00" * 32 + b" " + b"00" * 64,
        b"ed25519 " + b"AB" * 32 + b" " + b"00" * 64 + b"\n",
        b"ed25519 " + b"00" * 32 + b" " + b"00" * 64 + b"\n",
        (b"ed25519 " + b"00" * 32 + b" " + b"00" * 64 + b"\n") * (MAX_SIGNATURES + 1),
        b"x" * 100_000,
    ],
)
def test_what_is_no_signature_is_refused(bank: Path, content: bytes) -> None:
    """
    Also where nobody is trusted: a file that vouches for nothing was damaged, or put there.
    """
    (bank / SIGNATURE).write_bytes(content)

    with pytest.raises(BankInvalid, match=r"manifest\.sig"):
        load_bank(bank)


def test_keys_are_rotated_without_a_gap(bank: Path, keys: dict[str, str]) -> None:
    """
    Signed by both, the bank is good for workers that trust the old key and for those that trust the new.
    """
    for name in ("old", "new", "old"):
        sign(bank, name)

    assert 2 == len((bank / SIGNATURE).read_bytes().splitlines())
    assert load_bank(bank, (keys["old"],)).manifest == load_bank(bank, (keys["new"],)).manifest
    with pytest.raises(BankInvalid, match="expected key"):
        load_bank(bank, (STRANGER,))


def test_a_damaged_bank_is_not_signed(bank: Path, keys: dict[str, str]) -> None:
    """
    Nobody vouches for what does not pass its checks; no signature is left.
    """
    (bank / "probe.png").write_bytes(b"")
    with pytest.raises(BankInvalid, match=r"probe\.png has sha256"):
        sign(bank, next(iter(keys)))

    assert not (bank / SIGNATURE).exists()


def test_openssl_can_check_a_signature(bank: Path, keys: dict[str, str]) -> None:
    """
    It is over the file's own bytes, so that any tool that knows ed25519 can check it.
    """
    sign(bank, "old")
    public, signature = (bank / SIGNATURE).read_text().split()[1:]
    read_key(bank.parent / "old.pem").public_key().verify(
        bytes.fromhex(signature), (bank / "manifest.json").read_bytes()
    )

    assert public == keys["old"]
    assert (bank / "manifest.json").read_bytes() == canonical_bytes(read_manifest(bank))


def test_a_key_that_others_can_read_is_not_used(bank: Path, keys: dict[str, str]) -> None:
    """
    Made, it is its owner's alone; opened to others it is refused, and nothing of it is said.
    """
    path = bank.parent / "old.pem"
    made = path.stat().st_mode & 0o777
    path.chmod(0o640)
    with pytest.raises(ConfigInvalid, match=r"has mode 0640.*chmod 600") as refusal:
        read_key(path)

    assert (0o600, 2) == (made, len(keys))
    assert not any(line in str(refusal.value) for line in path.read_text().splitlines())


def test_a_key_is_never_replaced(tmp_path: Path, keys: dict[str, str]) -> None:
    """
    Neither a key that is there, nor what a link points to.
    """
    before = (tmp_path / "old.pem").read_bytes()
    (tmp_path / "link.pem").symlink_to(tmp_path / "nowhere.pem")

    for name in ("old.pem", "link.pem", "no/such/folder.pem"):
        with pytest.raises(ConfigInvalid, match="cannot be made"):
            make_key(tmp_path / name)
    assert (2, before) == (len(keys), (tmp_path / "old.pem").read_bytes())
    assert not (tmp_path / "nowhere.pem").exists()


@pytest.mark.parametrize(
    "content", [b"", b"secret words", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_told_without_its_content(tmp_path: Path, content: bytes) -> None:
    """
    Whatever the file holds stays in it.
    """
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigInvalid, match="is no unencrypted PEM private key") as refusal:
        read_key(path)

    assert "c2VjcmV0" not in str(refusal.value)
    assert "words" not in str(refusal.value)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_key(tmp_path / "none.pem")
    with pytest.raises(ConfigInvalid, match=r"cannot be read|no regular file"):
        read_key(tmp_path)


def test_unsigned_releases_are_neither_published_nor_activated(
    bank: Path, keys: dict[str, str], tmp_path: Path
) -> None:
    """
    By whoever trusts keys: an operator's command, and later the worker.
    """
    place = DirectoryPlace(tmp_path / "place")
    strict, free = Releases(place, [keys["old"]]), Releases(place)
    with pytest.raises(BankInvalid, match=r"manifest\.sig is missing"):
        strict.publish(bank)
    free.publish(bank, "unsigned")
    control = free.activate("unsigned", BY)
    refused = []
    by = Issuer("a test", key=read_key(tmp_path / "old.pem"))
    for attempt in (lambda: strict.activate("unsigned", by), lambda: strict.stored(control)):
        with pytest.raises(BankInvalid, match=r"manifest\.sig is missing") as refusal:
            attempt()
        refused.append(refusal.value)
    sign(bank, "old")
    strict.publish(bank, "signed")

    assert "signed" == strict.activate("signed", by).release
    assert load_bank(strict.verified(strict.activate("signed", by)), [keys["old"]]).manifest.id == "small"
    assert ["signed"] == [one.name for one in strict.releases() if one.problem is None]
    assert 2 == len(refused)


def test_a_worker_keeps_its_bank_when_an_unsigned_release_is_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever can write to the place of releases still decides nothing: that takes the key.
    """
    place = SignedPlace(tmp_path, monkeypatch)
    (place.root / "2" / SIGNATURE).unlink()
    watch = place.watch()
    watch.follow(Releases(DirectoryPlace(place.root)).activate("2", place.by))
    refused = watch.status()
    sign_bank(place.root / "2", place.key)
    watch.follow(place.releases.activate("2", place.by))

    assert ("1", True) == (refused.release, "manifest.sig is missing" in (refused.last_refusal or ""))
    assert "2" == watch.status().release


def test_keygen_sign_and_verify(touchstone: Touchstone, keys: dict[str, str], tmp_path: Path) -> None:
    """
    What an operator types: the commands of the guide, with and without --json.
    """
    made = touchstone("keygen", "mine.pem", "--json")
    said = touchstone("keygen", "other.pem")
    public = made.json["public_key"]
    trusting = ("--set", f'bank.trusted_keys=["{public}"]')
    before = touchstone("verify", "bank", "--no-encoder", "--json", *trusting)
    signed = touchstone("sign", "bank", "--key", "mine.pem")
    again = touchstone("sign", "bank", "--key", "mine.pem", "--json")
    after = touchstone("verify", "bank", "--no-encoder", "--json", *trusting)

    assert (0, 0, 0, 0, 1, 0) == tuple(one.code for one in (made, said, signed, again, before, after))
    assert "PRIVATE" not in made.out + said.out + signed.out + again.out
    assert 'trusted_keys = ["' in said.out
    assert "manifest.sig is missing" in before.json["findings"][0]["message"]
    assert "signature" in after.json["checks"]
    assert public == again.json["public_key"]
    assert public not in keys.values()
    assert (tmp_path / "bank" / SIGNATURE).stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_signed_has_an_exit_code(touchstone: Touchstone, keys: dict[str, str], tmp_path: Path) -> None:
    """
    2 for a key, 3 for a bank.
    """
    (tmp_path / "old.pem").chmod(0o644)
    codes = [
        touchstone("sign", "bank", "--key", "old.pem").code,
        touchstone("sign", "nothing", "--key", "new.pem").code,
        touchstone("keygen", "new.pem").code,
    ]

    assert [2, 3, 2] == codes
    assert issubclass(ConfigInvalid, TouchstoneError)
    assert 2 == len(keys)
