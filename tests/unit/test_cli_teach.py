"""
``touchstone bank add`` on a fitted bank: it is fitted again as it was, and what changed is told.
"""

import hashlib
from pathlib import Path

import pytest
import torch

from tests.bank_builders import a_source, write_pictures
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone, command_line
from worker.bank.files import read_manifest
from worker.bank.release import with_judgement
from worker.fitting.bank_fit import files_of, plan_again
from worker.judgement.model import FittedJudgement, HowFitted
from worker.judgement.store import identified, read_judgement

NEW = ("--label", "ai_generated", "--generator", "loom")


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bank ...`` beside a bank of 12 pictures of each label, and a folder of 4 new ones.
    """
    run = bank_command(monkeypatch, capsys, tmp_path)
    source = a_source(tmp_path / "source", reals=12, fakes=12)
    assert run("build", source, "--out", "bank", "--crops", "0", "--no-perturbation", "--no-realism").code == 0
    write_pictures(tmp_path / "new", *(f"{number}.png" for number in range(4)), first_seed=900)
    return run


@pytest.fixture
def fit(touchstone: Touchstone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Touchstone:
    """
    Runs ``touchstone fit ...`` beside that bank.
    """
    del touchstone
    return command_line(monkeypatch, capsys, "fit")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """
    20 reals that are in no bank.
    """
    folder = tmp_path / "others"
    write_pictures(folder, *(f"real/{number:03d}.png" for number in range(20)), first_seed=5000)
    return folder


def _judgement(tmp_path: Path) -> FittedJudgement:
    return read_judgement(tmp_path / "bank")


def _probe_file(path: Path, dim: int) -> Path:
    torch.save({"weight": torch.linspace(-1, 1, dim)[None], "bias": torch.tensor([0.25])}, path)
    return path


def test_a_bank_is_fitted_again_as_it_was(touchstone: Touchstone, fit: Touchstone, tmp_path: Path) -> None:
    """
    The heads that were asked for, the seed and the rate; not those that a fit would choose by itself.
    """
    assert 0 == fit("bank", "--head", "knn", "--seed", "7", "--alpha", "0.2", "--pac-delta", "0.3").code
    before = _judgement(tmp_path)
    ran = touchstone("add", "bank", "new", *NEW)
    after = _judgement(tmp_path)

    assert 0 == ran.code
    assert before.id != after.id
    assert HowFitted(("knn",), 7, 0.2, 0.3) == before.asked == after.asked
    assert ("knn",) == tuple(head.name for head in after.heads)


def test_a_judgement_that_does_not_say_keeps_its_heads(touchstone: Touchstone, fit: Touchstone, tmp_path: Path) -> None:
    """
    One of before it was kept.
    """
    assert 0 == fit("bank", "--head", "knn", "--head", "probe").code
    older = identified(FittedJudgement(**{name: getattr(_judgement(tmp_path), name) for name in _FIELDS}))
    with_judgement(tmp_path / "bank", files_of(older))
    ran = touchstone("add", "bank", "new", *NEW)

    assert 0 == ran.code
    assert older.asked is None
    assert ("knn", "probe") == tuple(head.name for head in _judgement(tmp_path).heads)


_FIELDS = tuple(name for name in FittedJudgement.__dataclass_fields__ if name != "asked")


def test_a_calibration_that_is_not_given_again_is_warned_of(
    touchstone: Touchstone, fit: Touchstone, others: Path, tmp_path: Path
) -> None:
    """
    In text and for machines, with how many reals there were and are.
    """
    assert 0 == fit("bank", "--head", "knn", "--calibration", others).code
    ran = touchstone("add", "bank", "new/0.png", *NEW)
    fit("bank", "--head", "knn", "--calibration", others)
    teaching = touchstone("add", "bank", "new/1.png", *NEW, "--json").json["teaching"]

    assert "warning: the bank had been calibrated on 20 real pictures that were not in it" in ran.out
    assert "of 20 before (calibrated on other pictures), " in ran.out
    assert "of 12 now (calibrated on its own)" in ran.out
    assert {"before": "separate", "after": "out_of_fold"} == teaching["calibrated_on"]
    assert (20, 12) == (teaching["reals"]["before"]["count"], teaching["reals"]["after"]["count"])
    assert "--calibration" in teaching["warning"]
    assert "out_of_fold" == _judgement(tmp_path).calibrated_on


def test_a_calibration_that_is_given_again(
    touchstone: Touchstone, fit: Touchstone, others: Path, tmp_path: Path
) -> None:
    """
    No warning; what of it cannot be used is named.
    """
    assert 0 == fit("bank", "--head", "knn", "--calibration", others).code
    (others / "real" / "torn.png").write_bytes(b"\x89PNG torn")
    said = touchstone("add", "bank", "new", *NEW, "--calibration", others, "--json").json

    assert said["teaching"]["warning"] is None
    assert {"before": "separate", "after": "separate"} == said["teaching"]["calibrated_on"]
    assert ["real/torn.png"] == [one["name"] for one in said["calibration_skipped"]]
    assert ("separate", 20) == (_judgement(tmp_path).calibrated_on, len(_judgement(tmp_path).reals.full))


def test_a_rate_that_cannot_be_kept_any_more_is_refused(
    touchstone: Touchstone, fit: Touchstone, others: Path, tmp_path: Path
) -> None:
    """
    Fitted for one in twenty with 20 reals of its own; 12 in the bank cannot promise it. The bank stays as it was.
    """
    assert 0 == fit("bank", "--head", "knn", "--calibration", others, "--alpha", "0.05").code
    before = _judgement(tmp_path).id
    ran = touchstone("add", "bank", "new", *NEW)

    assert 2 == ran.code
    assert "has 12 reals" in ran.err
    assert "give `bank add` more real pictures with --calibration" in ran.err
    assert before == _judgement(tmp_path).id
    assert 0 == touchstone("add", "bank", "new", *NEW, "--calibration", others).code


@pytest.mark.parametrize(("options", "said"), [(("--no-fit",), "--no-fit was given"), ((), "has no judgement")])
def test_a_calibration_without_a_fit_exits_2(
    touchstone: Touchstone, others: Path, options: tuple[str, ...], said: str
) -> None:
    """
    It would be ignored.
    """
    ran = touchstone("add", "bank", "new", *NEW, "--calibration", others, *options)

    assert 2 == ran.code
    assert said in ran.err


def test_the_published_probe_is_a_head(touchstone: Touchstone, fit: Touchstone, tmp_path: Path) -> None:
    """
    In the table, in the files of the bank, and still there when the bank was taught.
    """
    probe = _probe_file(tmp_path / "fc_weights.pth", read_manifest(tmp_path / "bank").encoder.dim)
    said = fit("bank", "--head", "knn", "--legacy-probe", probe, "--json").json
    before = _judgement(tmp_path)
    probe.unlink()
    ran = touchstone("add", "bank", "new", *NEW)
    after = _judgement(tmp_path)

    assert {"knn", "probe_ufd"} == set(said["heads"])
    assert any("probe_ufd came fitted" in note for note in said["notes"])
    assert ["probe_ufd"] == [head.name for head in plan_again(before).ready]
    assert 0 == ran.code
    assert ("knn", "probe_ufd") == tuple(head.name for head in after.heads)
    assert before.heads[1].state().settings == after.heads[1].state().settings


def test_a_probe_must_have_the_sha256_that_is_asked_for(fit: Touchstone, tmp_path: Path) -> None:
    """
    It becomes part of what judges: another file is refused, and the right one is told by its hash.
    """
    probe = _probe_file(tmp_path / "fc_weights.pth", read_manifest(tmp_path / "bank").encoder.dim)
    right = hashlib.sha256(probe.read_bytes()).hexdigest()
    options = ("--head", "knn", "--legacy-probe", probe, "--weights-sha256")
    wrong, malformed = fit("bank", *options, "00" * 32), fit("bank", *options, "00")
    said = fit("bank", *options, right.upper())

    assert 3 == wrong.code
    assert f"has sha256 {right}, expected {'00' * 32}" in wrong.err
    assert (2, True) == (malformed.code, "expected 64 hex digits" in malformed.err)
    assert (0, True) == (said.code, f"weights of probe_ufd: sha256 {right}" in said.out)


def test_a_probe_of_another_encoder_is_refused(fit: Touchstone, tmp_path: Path) -> None:
    """
    With both dimensions; the bank stays as it was.
    """
    ran = fit("bank", "--legacy-probe", _probe_file(tmp_path / "fc_weights.pth", 768))

    assert 0 != ran.code
    assert "is for 768 dimensions, the encoder has" in ran.err
    assert read_manifest(tmp_path / "bank").judgement is None
