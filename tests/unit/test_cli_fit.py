"""
``touchstone fit`` on a small bank, and what adding a generator to a fitted bank tells.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bank_builders import a_source, add_to_small, build_small, write_pictures
from tests.command_line import Touchstone, command_line
from tests.fake_encoder import fake_embedder
from worker.bank.files import load_bank
from worker.bank.manifest import Question
from worker.errors import ConfigInvalid
from worker.fitting.bank_fit import Teacher, check_question, fit_bank, refit_files
from worker.fitting.fit import FitPlan
from worker.heads.reference_bank import ExactBank
from worker.judgement.store import read_judgement


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone fit ...`` beside a bank of 24 pictures, with the fake encoder for a calibration.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("worker.cli.embedders.embedder_opener", lambda _settings: lambda _views: fake_embedder())
    build_small(a_source(tmp_path / "source", reals=12, fakes=12), tmp_path / "bank")
    return command_line(monkeypatch, capsys, "fit")


def test_fit_for_machines(fit: Touchstone, tmp_path: Path) -> None:
    """
    The next version of the bank has a judgement that can be read, of the id that was printed.
    """
    code, out, _ = fit("bank", "--head", "knn", "--head", "real_only", "--json")
    said, bank = json.loads(out), load_bank(tmp_path / "bank")
    judgement = read_judgement(tmp_path / "bank")

    assert 0 == code
    assert "2" == said["version"] == bank.manifest.version
    assert judgement.id == said["judgement"]["id"]
    assert bank.manifest.judgement is not None
    assert judgement.id == bank.manifest.judgement.id
    assert {"knn", "real_only"} == set(said["heads"])
    assert 12 == said["calibration_reals"]
    assert "out_of_fold" == said["calibrated_on"]
    assert 12 == len(judgement.assess(bank.references().features.take(range(12)), ExactBank(bank.references())))


def test_fit_for_people(fit: Touchstone, tmp_path: Path) -> None:
    """
    The table of heads, what was left out, and the smallest rate that can be asked for; the old bank stays with --out.
    """
    code, out, _ = fit("bank", "--head", "knn", "--head", "realism", "--out", "fitted", "--alpha", "0.2")

    assert 0 == code
    assert "balanced" in out
    assert "fused" in out
    assert "calibrated on 12 real pictures (out of fold)" in out
    assert "asked for: 0.077" in out
    assert "kept by flagging p-values up to 0.2" in out
    assert "head realism is left out" in out
    assert load_bank(tmp_path / "bank").manifest.judgement is None
    assert load_bank(tmp_path / "fitted").manifest.judgement is not None


def test_a_calibration_folder(fit: Touchstone, tmp_path: Path) -> None:
    """
    Its pictures go through the encoder, and its reals make the p-values.
    """
    other = tmp_path / "other"
    write_pictures(other, *(f"real/{number:03d}.png" for number in range(20)), first_seed=5000)
    code, out, _ = fit("bank", "--head", "knn", "--calibration", other, "--json")

    assert 0 == code
    assert ("separate", 20) == (json.loads(out)["calibrated_on"], json.loads(out)["calibration_reals"])


def test_an_alpha_that_cannot_be_kept_exits_2(fit: Touchstone, tmp_path: Path) -> None:
    """
    Saying how many reals there are and how many it takes; the bank is left as it was.
    """
    code, _, err = fit("bank", "--alpha", "0.01")

    assert 2 == code
    assert "has 12 reals" in err
    assert "at least 99" in err
    assert load_bank(tmp_path / "bank").manifest.judgement is None


@pytest.mark.parametrize("arguments", [["--pac-delta", "0.05"], ["--alpha", "1"], ["--head", "knm"]])
def test_a_wrong_command_line_exits_2(fit: Touchstone, arguments: list[str]) -> None:
    """
    Whoever finds it.
    """
    assert 2 == fit("bank", *arguments)[0]


def test_no_bank_to_fit_exits_3(fit: Touchstone) -> None:
    """
    Saying how to make one.
    """
    code, _, err = fit("nowhere")

    assert 3 == code
    assert "touchstone bank build" in err


def test_another_question_is_refused(tmp_path: Path) -> None:
    """
    A judgement speaks of two labels.
    """
    bank = build_small(a_source(tmp_path / "source"), tmp_path / "bank").bank
    three = bank.manifest.model_copy(update={"question": Question(labels=("cat", "dog", "cow"), positive="cow")})

    with pytest.raises(ConfigInvalid, match=r"3 labels \(cat, dog, cow\)"):
        check_question(three)


def test_a_new_generator_is_taught(tmp_path: Path) -> None:
    """
    What was not recognised is, by heads that had not seen the half in question; and the bank's reals are told of too.
    """
    plan = FitPlan(heads=("knn", "probe"))
    build_small(_tinted(tmp_path / "source", "fake/red", 200, 20), tmp_path / "bank")
    fit_bank(tmp_path / "bank", plan=plan)
    teacher = Teacher(tmp_path / "bank", plan)
    added = add_to_small(tmp_path / "bank", _fakes_of(tmp_path / "more"), refit=teacher)
    assert teacher.report is not None
    taught = teacher.report.taught[0]

    assert ("blue", 20) == (taught.generator, taught.pictures)
    assert (taught.likely_before or 0.0) < 0.5 < taught.likely_after
    assert 40 == teacher.report.reals_before == teacher.report.reals_after
    assert added.bank.manifest.judgement is not None
    assert teacher.report.lines()[0].startswith("blue, 20 new: recognised ")
    assert {"blue"} == set(json.loads(json.dumps(teacher.report.values()))["generators"])


def test_refit_without_a_report(tmp_path: Path) -> None:
    """
    The plain hook gives the files of a release and their id.
    """
    bank = build_small(a_source(tmp_path / "source", reals=12, fakes=12), tmp_path / "bank").bank
    fitted = refit_files(bank, plan=FitPlan(heads=("knn",)))

    assert {"judgement.json", "heads.safetensors"} == set(fitted.files)
    assert fitted.id == read_judgement(fitted.files).id


def _tinted(root: Path, folder: str, shade: int, fakes: int) -> Path:
    """
    Grey reals and fakes in which one channel is strong: red above 128 of ``shade``, else blue.
    """
    _write(root, "real/cam", 40, (128, 128, 128))
    _write(root, folder, fakes, (shade, 100, 128 if shade > 128 else 220))
    return root


def _fakes_of(root: Path) -> Path:
    _write(root, "fake/blue", 20, (100, 128, 220))
    return root


def _write(root: Path, folder: str, count: int, colour: tuple[int, int, int]) -> None:
    from PIL import Image  # noqa: PLC0415 - nothing else here draws

    rng = np.random.default_rng(sum(colour) + len(folder))
    (root / folder).mkdir(parents=True)
    for number in range(count):
        pixels = np.clip(rng.normal(colour, 25, size=(40, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
