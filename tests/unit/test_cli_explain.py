"""
``touchstone explain``: the picture that it draws, what it prints for people and machines, and its exit codes.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bank_builders import a_source, build_small, write_pictures
from tests.command_line import Touchstone, command_line
from tests.fake_encoder import SPEC, FakeEncoder, fake_decoder
from tests.hidden_frames import AS_WORKERS_DO, hiding_generated
from tests.loop_rig import KNOWN_GENERATED, KNOWN_REAL
from tests.pictures import encoded, photograph, png_that_announces
from tests.review_judgements import judging_by
from tests.small_encoder import loaded
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import load_bank
from worker.cli import explain as command
from worker.dev.small_encoder import write_small_encoder
from worker.heads.knn import Knn
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import ViewSpec


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone explain ...`` in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "explain")


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A bank of the fake encoder, which the command then opens instead of a real one.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    opened = command._Opened(FakeEncoder(), fake_decoder(), load_bank(tmp_path / "bank"))
    monkeypatch.setattr(command, "_open", lambda _settings, _bank: opened)
    return tmp_path / "bank"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """
    A photograph of 150 x 100 pixels.
    """
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(photograph(150, 100), "PNG"))
    return file


@pytest.mark.usefixtures("bank")
def test_for_machines(touchstone: Touchstone, image: Path) -> None:
    """
    Every tile with its evidence, and the crops in order, each with entries of the bank.
    """
    ran = touchstone(image, "--out", "review.png", "--json")
    found = ran.json
    tiles, crops = found["tiles"], found["crops"]
    entries = {entry.id: entry for entry in load_bank(Path("bank")).entries}

    assert ran.code == 0
    assert (found["width"], found["height"], found["view"]) == (150, 100, "global")
    assert len(tiles) == found["rows"] * found["columns"] == 6 * 9
    assert [crop["log_odds"] for crop in crops] == sorted((crop["log_odds"] for crop in crops), reverse=True)
    assert crops[0]["log_odds"] == max(tile["log_odds"] for tile in tiles)
    assert [tiles[crop["tile"]] for crop in crops] == [{key: crop[key] for key in tiles[0]} for crop in crops]
    for reference in (one for crop in crops for one in crop["references"]):
        assert entries[reference["entry_id"]].label == reference["label"]
        assert -1 <= reference["similarity"] <= 1.000001


@pytest.mark.usefixtures("bank")
def test_without_a_judgement_the_raw_vote_is_said(touchstone: Touchstone, image: Path) -> None:
    """
    To machines and to people.
    """
    for_machines = touchstone(image, "--out", "review.png", "--json").json["vote"]
    for_people = touchstone(image, "--out", "review.png").out

    assert for_machines == {
        "judgement": None,
        "k": 9,
        "temperature": 0.07,
        "direction": 1.0,
        "neutral": 0.0,
        "head": None,
    }
    assert "raw vote, temperature 0.07" in for_people


@pytest.mark.usefixtures("bank")
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_judgement_says_what_is_evidence(
    touchstone: Touchstone, image: Path, monkeypatch: pytest.MonkeyPatch, direction: float
) -> None:
    """
    Its head's temperature, and its direction: the place that is most like generated references comes first or last.
    """
    plain = touchstone(image, "--out", "plain.png", "--json").json
    judgement = judging_by(Knn(temperature=0.07), direction=direction)
    opened = command._Opened(FakeEncoder(), fake_decoder(), load_bank(Path("bank")), judgement)
    monkeypatch.setattr(command, "_open", lambda _settings, _bank: opened)
    found = touchstone(image, "--out", "review.png", "--json").json
    said = touchstone(image, "--out", "review.png").out
    raw, evidence = (np.array([tile["log_odds"] for tile in one["tiles"]]) for one in (plain, found))

    assert found["vote"]["judgement"] == judgement.id
    assert (found["vote"]["head"], found["vote"]["direction"]) == ("knn", direction)
    np.testing.assert_allclose(evidence, direction * (raw - 0.5), atol=1e-9)
    assert raw[found["crops"][0]["tile"]] == (raw.max() if direction > 0 else raw.min())
    assert ("direction turned" in " ".join(said.split())) == (direction < 0)
    assert Path("plain.png").read_bytes() != Path("review.png").read_bytes()


@pytest.mark.usefixtures("bank")
def test_the_picture(touchstone: Touchstone, image: Path) -> None:
    """
    A PNG of the promised size, with something drawn on both sides; equal input gives equal pixels.
    """
    touchstone(image, "--out", "review.png")
    touchstone(image, "--out", "again.png")
    with Image.open(io.BytesIO(Path("review.png").read_bytes())) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    with Image.open("again.png") as drawn:
        again = np.asarray(drawn.convert("RGB"))

    assert pixels.shape == (1000, 1600, 3)
    assert pixels[:, :800].std() > 10
    assert pixels[:, 800:].std() > 10
    np.testing.assert_array_equal(pixels, again)


@pytest.mark.usefixtures("bank")
def test_for_people(touchstone: Touchstone, image: Path) -> None:
    """
    Places with their evidence, and a word on what the bank lacks.
    """
    ran = touchstone(image, "--out", "review.png")

    assert ran.code == 0
    assert "places by evidence for ai_generated" in ran.out
    assert "no native crops" in ran.out
    assert "drawn in review.png" in ran.out


@pytest.mark.usefixtures("bank")
@pytest.mark.parametrize(
    ("data", "code"), [(b"no picture", "FORMAT_UNSUPPORTED"), (png_that_announces(9000, 9000), "DECODE_BOMB")]
)
def test_what_cannot_be_decoded(touchstone: Touchstone, tmp_path: Path, data: bytes, code: str) -> None:
    """
    The decoder's limits hold here too; nothing is drawn.
    """
    (tmp_path / "odd.png").write_bytes(data)
    ran = touchstone("odd.png", "--out", "review.png")

    assert ran.code == 1
    assert code in ran.err
    assert not Path("review.png").exists()


@pytest.mark.usefixtures("bank")
def test_files_that_cannot_be_used(touchstone: Touchstone, image: Path) -> None:
    """
    No image, no folder to draw into, or a drawing over the image itself: each is told, and the image is left alone.
    """
    before = image.read_bytes()
    ran = [
        touchstone("missing.png", "--out", "review.png"),
        touchstone(image, "--out", "nowhere/review.png"),
        touchstone(image, "--out", image),
    ]

    assert [one.code for one in ran] == [2, 2, 2]
    assert ["cannot be read" in ran[0].err, "cannot be written" in ran[1].err, "itself" in ran[2].err] == [True] * 3
    assert image.read_bytes() == before


@pytest.fixture
def animation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A GIF of a real reference of the bank that is opened, with a generated one as its seventh frame; beside it that one.
    """
    source = tmp_path / "known"
    write_pictures(source, *(f"real/{number}.png" for number in range(8)), first_seed=KNOWN_REAL)
    write_pictures(source, *(f"fake/mill/{number}.png" for number in range(8)), first_seed=KNOWN_GENERATED)
    build_small(source, tmp_path / "known-bank")
    decoder = PillowDecoder(SPEC, AS_WORKERS_DO, None)
    opened = command._Opened(FakeEncoder(), decoder, load_bank(tmp_path / "known-bank"))
    monkeypatch.setattr(command, "_open", lambda _settings, _bank: opened)
    file = tmp_path / "hidden.gif"
    hidden, alone = hiding_generated("GIF", 40, 6)
    file.write_bytes(hidden)
    file.with_name("alone.gif").write_bytes(alone)
    return file


def test_of_an_animation_the_deciding_frame_is_drawn(touchstone: Touchstone, animation: Path) -> None:
    """
    That which the verdict rests on; another one where it is asked for, if the decoder has looked at it.
    """
    ran = touchstone(animation, "--out", "deciding.png", "--json").json
    first = touchstone(animation, "--out", "first.png", "--frame", 0, "--json").json
    alone = touchstone(animation.with_name("alone.gif"), "--out", "alone.png", "--json").json
    for_people = touchstone(animation, "--out", "deciding.png").out
    refused = touchstone(animation, "--out", "none.png", "--frame", 41)

    assert (ran["frame"], ran["ground"], first["frame"], first["ground"]) == (6, "white", 0, "white")
    assert {0, 6} <= set(ran["frames_looked_at"])
    assert alone["tiles"] == ran["tiles"] != first["tiles"]
    assert "frame 6 on white, which decides" in " ".join(for_people.split())
    assert (refused.code, "--frame 41" in refused.err, Path("none.png").exists()) == (2, True, False)


def test_with_a_real_encoder(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Settings, weights, decoder and a bank with native crops, all opened for real; names are drawn as they stand.
    """
    small = write_small_encoder(tmp_path / "model")
    encoder = loaded(small)
    views = ViewSpec(native_crops=2)
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), None, views=views)
    source = tmp_path / "source"
    for number in range(4):
        for folder in ("real", "fake/$\\frac{mill"):  # matplotlib would take it for a formula
            file = source / folder / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            seed = number + 10 * (folder != "real")
            file.write_bytes(encoded(photograph(90, 80, seed=seed), "PNG"))
    build_small(source, tmp_path / "native", ReferenceEmbedder(encoder, decoder, views=views))
    (tmp_path / "photo.jpg").write_bytes(encoded(photograph(200, 150, seed=11), "JPEG"))
    chosen = ("--set", f"encoder.model={small.model}", "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}")
    ran = touchstone(
        "photo.jpg", "--bank", "native", "--out", "review.png", "--json", *chosen, "--set", "encoder.device=cpu"
    )

    assert ran.err == ""
    assert ran.code == 0
    assert ran.json["view"] == "native"
    assert ran.json["encoder"] == encoder.fingerprint.id
    assert ran.json["bank"]["id"] == "small"
    assert Path("review.png").stat().st_size > 10_000
