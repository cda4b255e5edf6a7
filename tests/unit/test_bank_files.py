"""
A bank directory is loaded whole and sound, or refused with the file, what was found and what was expected.
"""

import hashlib
import json
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


def reseal(bank: Path) -> None:
    """
    Write the checksums anew, so that only what they vouch for is wrong.
    """
    manifest = json.loads((bank / "manifest.json").read_text())
    manifest["checksums"] = {name: sha256_of(bank / name) for name in manifest["checksums"]}
    (bank / "manifest.json").write_text(json.dumps(manifest))


def change_manifest(bank: Path, *path: str, value: object) -> None:
    """
    Set one value of the manifest.
    """
    manifest = json.loads((bank / "manifest.json").read_text())
    place = manifest
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    (bank / "manifest.json").write_text(json.dumps(manifest))


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
    A manifest that was reformatted is the same manifest.
    """
    before = load_bank(bank)
    (bank / "manifest.json").write_text(json.dumps(json.loads((bank / "manifest.json").read_text())))

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


def test_all_damaged_files_are_named_at_once(bank: Path) -> None:
    """
    One line each.
    """
    (bank / "probe.png").write_bytes(b"")
    (bank / "entries.jsonl").unlink()

    with pytest.raises(BankInvalid) as refusal:
        load_bank(bank)
    assert len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize("path", ["nowhere", "source/real/000.png"])
def test_what_is_no_directory_is_no_bank(bank: Path, path: str) -> None:
    """
    And the message says how to make one.
    """
    with pytest.raises(BankInvalid, match="touchstone bank build"):
        load_bank(bank.parent / path)


def test_the_manifest_alone_can_be_read(bank: Path) -> None:
    """
    Also of a bank whose vectors are damaged: it says what should be there.
    """
    (bank / "vectors.safetensors").unlink()

    assert read_manifest(bank).id == "small"
    assert canonical_bytes(read_manifest(bank)) == (bank / "manifest.json").read_bytes()
