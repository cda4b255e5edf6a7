"""
A bank directory is loaded whole and sound, or refused with the file, what was found and what was expected.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.bank_builders import GENERATED, NOON, REAL, a_source
from tests.fake_encoder import fake_embedder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.files import load_bank, read_manifest, sha256_of
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.manifest import canonical_bytes
from worker.bank.regular_files import sum_line
from worker.bank.sources import list_source
from worker.errors import EXIT_CANNOT_START, BankInvalid
from worker.views import ViewSpec

Damage = Callable[[Path], object]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """
    A sound bank of six real and four generated references.
    """
    listing = list_source(a_source(tmp_path / "source"), SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    views = ViewSpec(native_crops=2, realism=True)
    return build_bank(listing, tmp_path / "bank", embedder=fake_embedder(views=views), plan=plan).path


def write_by_hand(bank: Path, manifest: object) -> None:
    """
    Write a manifest in other white space than ours, and its checksum as ``sha256sum`` does.
    """
    (bank / "manifest.json").write_text(json.dumps(manifest))
    (bank / "manifest.sha256").write_bytes(sum_line("manifest.json", (bank / "manifest.json").read_bytes()))


def reseal(bank: Path) -> None:
    """
    Write the checksums anew, so that only what they vouch for is wrong.
    """
    manifest = json.loads((bank / "manifest.json").read_text())
    manifest["checksums"] = {name: sha256_of(bank / name) for name in manifest["checksums"]}
    write_by_hand(bank, manifest)


def change_manifest(bank: Path, *path: str, value: object) -> None:
    """
    Set one value of the manifest.
    """
    manifest = json.loads((bank / "manifest.json").read_text())
    place = manifest
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    write_by_hand(bank, manifest)


def replace_vectors(bank: Path, content: bytes) -> None:
    """
    Put something else in the place of the tensors and vouch for it.
    """
    (bank / "vectors.safetensors").write_bytes(content)
    reseal(bank)


def change_vectors(bank: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """
    Change the tensors and vouch for them.
    """
    tensors = {name: tensor.copy() for name, tensor in load_file(bank / "vectors.safetensors").items()}
    change(tensors)
    save_file(tensors, bank / "vectors.safetensors")
    reseal(bank)


def change_lines(bank: Path, change: Callable[[list[str]], list[str]]) -> None:
    """
    Change the entries and vouch for them.
    """
    lines = (bank / "entries.jsonl").read_text().splitlines()
    (bank / "entries.jsonl").write_text("".join(line + "\n" for line in change(lines)))
    reseal(bank)


def test_a_sound_bank_is_loaded(bank: Path) -> None:
    """
    With its vectors in the order of its entries, and its manifest's hash that of the file itself.
    """
    loaded = load_bank(bank)

    assert loaded.sizes == {REAL: 6, GENERATED: 4}
    assert [entry.label for entry in loaded.entries] == [GENERATED] * 4 + [REAL] * 6
    assert loaded.vectors.shape == (10, loaded.manifest.encoder.dim)
    assert loaded.manifest.counts.per_generator == {"ai_generated": {"mill": 4}}
    assert loaded.manifest_sha256 == hashlib.sha256((bank / "manifest.json").read_bytes()).hexdigest()


def test_the_order_of_the_labels_is_the_questions(bank: Path) -> None:
    """
    Verdicts list labels as the manifest declares them, and the identity says which is asked for.
    """
    identity = load_bank(bank).identity("flat")

    assert list(identity.sizes) == [REAL, GENERATED]
    assert identity.positive == GENERATED
    assert identity.entries == 10


def test_white_space_does_not_change_who_a_bank_is(bank: Path) -> None:
    """
    A manifest that was reformatted, its checksum with it, is the same manifest.
    """
    before = load_bank(bank)
    write_by_hand(bank, json.loads((bank / "manifest.json").read_text()))

    assert load_bank(bank).manifest_sha256 == before.manifest_sha256


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "manifest.json").unlink(), "manifest.json cannot be read .*is this a bank"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is no manifest of format 2"),
        (
            lambda b: change_manifest(b, "format_version", value=1),
            "is of bank format 1, this worker reads format 2; rebuild it with `touchstone bank build`",
        ),
        (lambda b: change_manifest(b, "format_version", value=3), "is of bank format 3, .*use a newer worker"),
        (lambda b: change_manifest(b, "format_version", value="two"), "format_version is 'two'"),
        (lambda b: change_manifest(b, "views", "native_crops", value=3), "views.sha256 is .*rebuild the bank"),
        (lambda b: change_manifest(b, "views", "sha256", value="00" * 32), "made by other rules than this worker's"),
        (lambda b: change_manifest(b, "surprise", value=2), "surprise"),
        (lambda b: change_manifest(b, "question", "positive", value="cat"), "positive is 'cat', expected one of"),
        (lambda b: change_manifest(b, "counts", "entries", value=9), "per_label sums to 10, expected entries = 9"),
        (
            lambda b: change_manifest(b, "checksums", "probe.png", value="00" * 32),
            "probe.png has sha256 .*, expected 0",
        ),
        (lambda b: (b / "probe.png").unlink(), r"probe.png cannot be read \(No such file or directory\)"),
        (lambda b: (b / "probe.png").write_bytes(b""), "probe.png has sha256"),
        (lambda b: (b / "entries.jsonl").open("a").write("\n"), "entries.jsonl has sha256"),
        (lambda b: (b / "vectors.safetensors").write_bytes(b"pickled"), "vectors.safetensors has sha256"),
        (
            lambda b: replace_vectors(b, b"pickled"),
            "vectors.safetensors is no safetensors file",
        ),
        (
            lambda b: change_vectors(b, lambda t: t.update(vectors=t["vectors"][:9])),
            r"vectors is float16\[9, 24\], expected float16\[10, 24\]",
        ),
        (
            lambda b: change_vectors(b, lambda t: t.update(vectors=t["vectors"].astype(np.float32))),
            r"vectors is float32\[10, 24\], expected float16",
        ),
        (lambda b: change_vectors(b, lambda t: t.pop("probe")), "probe is missing"),
        (
            lambda b: change_vectors(b, lambda t: t["vectors"].__setitem__((3, 5), np.nan)),
            "1 vectors are not of norm 1; the first, row 3, has norm nan",
        ),
        (
            lambda b: change_vectors(b, lambda t: t.update(vectors=t["vectors"] * np.float16(2))),
            "10 vectors are not of norm 1",
        ),
        (lambda b: change_vectors(b, lambda t: t["probe"].fill(np.inf)), "probe has norm inf"),
        (lambda b: change_vectors(b, lambda t: t.pop("native")), "native is missing, expected float16"),
        (
            lambda b: change_vectors(b, lambda t: t.update(native=t["native"][:-1])),
            r"native is float16\[19, 24\], expected float16\[20, 24\]",
        ),
        (lambda b: change_vectors(b, lambda t: t["native"][7].fill(0)), "1 native are not of norm 1; the first, row 7"),
        (
            lambda b: change_vectors(b, lambda t: t["native_owner"].__setitem__(3, 9)),
            "native_owner is not ascending between 0 and 9",
        ),
        (lambda b: change_vectors(b, lambda t: t["native_owner"].__setitem__(19, 10)), "native_owner is not ascending"),
        (lambda b: change_vectors(b, lambda t: t["native_owner"].__setitem__(0, -1)), "native_owner is not ascending"),
        (lambda b: change_vectors(b, lambda t: t["native_owner"].fill(4)), "up to 20 crops of one .* say 2"),
        (
            lambda b: change_vectors(b, lambda t: t.update(native_owner=t["native_owner"].astype(np.int64))),
            r"native_owner is int64\[20\], expected int32",
        ),
        (lambda b: change_vectors(b, lambda t: t["norms"].__setitem__(5, 0)), "1 norms are not finite and above 0"),
        (lambda b: change_vectors(b, lambda t: t["norms"].fill(np.nan)), "10 norms are not finite .*row 0, is nan"),
        (
            lambda b: change_vectors(b, lambda t: t.update(realism=t["realism"][:, :4])),
            r"realism is float32\[10, 4\], expected float32\[10, 5\]",
        ),
        (lambda b: change_vectors(b, lambda t: t["realism"].__setitem__((2, 1), np.inf)), "realism is infinite in 1"),
        (lambda b: change_vectors(b, lambda t: t["shift"].__setitem__((2, 1), 0.1)), "shift is given in 1 rows"),
        (lambda b: change_lines(b, lambda lines: lines[:-1]), "entries.jsonl has 9 lines, expected 10"),
        (lambda b: change_lines(b, lambda lines: [*lines[:-1], "{}"]), "line 10: id is .*Field required"),
        (lambda b: change_lines(b, lambda lines: [*lines[:-1], "no json"]), "line 10: .*Invalid JSON"),
        (
            lambda b: change_lines(b, lambda lines: [lines[0].replace("mill", "loom"), *lines[1:]]),
            "holds per generator .*loom.*, expected",
        ),
        (
            lambda b: change_lines(b, lambda lines: [lines[0].replace("ai_generated", "real"), *lines[1:]]),
            "holds per label .*'real': 7.*, expected",
        ),
        (lambda b: change_lines(b, lambda lines: [lines[1], *lines[1:]]), "gives 1 ids more than once, the first is"),
    ],
)
def test_damage_is_named(bank: Path, damage: Damage, message: str) -> None:
    """
    Whatever is wrong, the worker does not start, and the message says where it lies.
    """
    damage(bank)

    with pytest.raises(BankInvalid, match=message) as refusal:
        load_bank(bank)
    assert refusal.value.exit_code == EXIT_CANNOT_START
    assert str(bank) in str(refusal.value) or "entries.jsonl" in str(refusal.value)


def link(path: Path) -> None:
    """
    Put a symbolic link in a file's place, to the very same bytes.
    """
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def pipe(path: Path) -> None:
    """
    Put a pipe in a file's place, which would be waited for without end.
    """
    path.unlink()
    os.mkfifo(path)


def enlarge(path: Path) -> None:
    """
    Make a file a terabyte long that takes no room.
    """
    with path.open("r+b") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "notes.txt").write_text("mine"), "'notes.txt' is no file of a bank; move it elsewhere"),
        (lambda b: (b / "deeper").mkdir(), "'deeper' is no file of a bank"),
        (lambda b: [(b / f"more-{at}").touch() for at in range(9)], "and 4 more files that are none of a bank"),
        (lambda b: link(b / "vectors.safetensors"), "vectors.safetensors is a symbolic link, expected a regular file"),
        (lambda b: link(b / "entries.jsonl"), "entries.jsonl is a symbolic link"),
        (lambda b: link(b / "manifest.json"), "manifest.json is a symbolic link"),
        (lambda b: link(b / "manifest.sha256"), "manifest.sha256 is a symbolic link"),
        (lambda b: pipe(b / "probe.png"), "probe.png is a pipe"),
        (lambda b: [(b / "probe.png").unlink(), (b / "probe.png").mkdir()], "probe.png is a directory"),
        (lambda b: enlarge(b / "vectors.safetensors"), "vectors.safetensors has 1099511627776 bytes, expected at most"),
        (lambda b: enlarge(b / "entries.jsonl"), "entries.jsonl has 1099511627776 bytes, expected at most 81920;"),
        (lambda b: enlarge(b / "probe.png"), "probe.png has 1099511627776 bytes"),
        (lambda b: enlarge(b / "manifest.json"), "manifest.json has 1099511627776 bytes"),
        (lambda b: (b / "manifest.sha256").unlink(), "manifest.sha256 is missing.*run `sha256sum manifest.json"),
        (lambda b: (b / "manifest.sha256").write_bytes(b""), "manifest.sha256 says nothing"),
        (lambda b: change_manifest(b, "checksums", value={"../escape": "00" * 32}), "checksums cover ../escape"),
        (lambda b: change_manifest(b, "encoder", "dim", value=1 << 40), "encoder.dim is '1099511627776'"),
        (lambda b: change_manifest(b, "counts", "entries", value=1 << 40), "counts.entries is '1099511627776'"),
        (lambda b: change_manifest(b, "views", "native_crops", value=1 << 40), "views.native_crops is '1099511627776'"),
    ],
)
def test_what_does_not_belong_there_is_refused(bank: Path, damage: Damage, message: str) -> None:
    """
    Strange files, links, pipes, and sizes and counts that no machine has room for: before any room is made for them.
    """
    damage(bank)

    with pytest.raises(BankInvalid, match=message):
        load_bank(bank)


def test_what_a_file_server_leaves_is_passed_over(bank: Path) -> None:
    """
    Hidden files are nobody's business: nothing of a bank begins with a dot, and nothing reads them.
    """
    (bank / ".nfs000000000001").write_bytes(b"gone, but open somewhere")

    assert 10 == len(load_bank(bank).entries)


def header(**tensors: object) -> bytes:
    """
    A safetensors file of a header and eight bytes of data.
    """
    said = json.dumps(tensors).encode()
    return len(said).to_bytes(8, "little") + said + bytes(8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff" * 16, "its header claims 18446744073709551615 bytes"),
        (b"\x00" * 8, "its header is no JSON"),
        (header(a=[1]), "tensor 'a' is not described by dtype, shape and data_offsets"),
        (header(a={"dtype": "F16", "shape": [1 << 50], "data_offsets": [0, 8]}), "a shape that does not fill its 8"),
        (header(a={"dtype": "F16", "shape": [-4], "data_offsets": [0, 8]}), "has no possible shape"),
        (header(a={"dtype": "F16", "shape": [True] * 4, "data_offsets": [0, 8]}), "has no possible shape"),
        (header(a={"dtype": "X9", "shape": [4], "data_offsets": [0, 8]}), "is of type 'X9'"),
        (header(a={"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}), "end at byte 6 of 8 bytes"),
        (header(a={"dtype": "F16", "shape": [8], "data_offsets": [0, 16]}), "end at byte 16 of 8 bytes"),
        (header(a={"dtype": "F16", "shape": [3], "data_offsets": [2, 8]}), "begins at byte 2 of the data, expected 0"),
    ],
)
def test_tensors_that_do_not_fill_their_file_are_refused(bank: Path, content: bytes, message: str) -> None:
    """
    Nothing is allocated that the length of the file does not vouch for, also where all hashes are right.
    """
    replace_vectors(bank, content)

    with pytest.raises(BankInvalid, match=message):
        load_bank(bank)


def test_all_damaged_files_are_named_at_once(bank: Path) -> None:
    """
    One line each.
    """
    (bank / "probe.png").write_bytes(b"")
    (bank / "entries.jsonl").unlink()

    with pytest.raises(BankInvalid) as refusal:
        load_bank(bank)
    assert len(str(refusal.value).splitlines()) == 2


def test_the_manifest_alone_can_be_read(bank: Path) -> None:
    """
    Also of a bank whose vectors are damaged: it says what should be there.
    """
    (bank / "vectors.safetensors").unlink()

    assert read_manifest(bank).id == "small"
    assert canonical_bytes(read_manifest(bank)) == (bank / "manifest.json").read_bytes()
