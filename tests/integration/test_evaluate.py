"""
``touchstone evaluate`` from end to end: the demo's small encoder, the real heads and fit, made pictures.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command_line import Touchstone, command_line
from tests.evaluation_parts import SOURCES, drawn_picture, write_evaluation_csv
from worker.dev.small_encoder import write_small_encoder
from worker.policy import shipped_policy

pytestmark = pytest.mark.slow

DIM = 64
"""Of the small encoder."""

FAST = ("--crops", "1", "--bootstrap", "20", "--no-robustness", "--no-originals", "--json")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """
    The settings of a small encoder.
    """
    small = write_small_encoder(tmp_path_factory.mktemp("encoder") / "model")
    return (
        *("--set", f"encoder.model={small.model}", "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"),
        *("--set", "encoder.device=cpu", "--set", "encoder.threads=1"),
    )


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    encoder: tuple[str, ...],
) -> Touchstone:
    """
    Runs ``touchstone`` with these arguments and the small encoder: exit code, stdout, stderr.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, last=encoder)


def a_probe(path: Path, dim: int) -> Path:
    """
    A file in the format of the published probe.
    """
    weight = torch.randn((1, dim), generator=torch.Generator().manual_seed(0))
    torch.save({"weight": weight, "bias": torch.zeros(1)}, path)
    return path


def drawn(folder: Path, generator: str, seeds: range) -> None:
    """
    Made pictures in a folder.
    """
    folder.mkdir(parents=True)
    for seed in seeds:
        drawn_picture(generator, seed).save(folder / f"{seed}.png")


def test_a_listing_becomes_numbers_and_a_report(tmp_path: Path, run: Touchstone) -> None:
    """
    Every head of the fit has its row, both classes were judged, and embeddings are kept for the next run.
    """
    listing = write_evaluation_csv(tmp_path / "pictures", each=12)
    arguments = ("evaluate", listing, "--heldout-tier", "matched", *FAST, "--no-teaching", "--work", tmp_path / "work")
    code, out, _ = run(*arguments, "--out", tmp_path / "report.html")
    shown = json.loads(out)

    assert 0 == code
    assert (24, 24) == (shown["n_real"], shown["n_ai"])
    assert {"knn", "probe", "real_only", "perturbation", "global_local"} <= set(shown["heads"])
    assert "min_distance_k9" in shown["rules"]
    assert all(0 <= one["ap"]["value"] <= 1 for one in shown["heads"].values())
    assert shown["fpr"]["n"] == 24
    assert shown["teaching_notes"] == ["not asked for (--no-teaching)"]
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "work").glob("embedded-*"))) == 1


def test_a_folder_without_sources_is_cut_by_generator(tmp_path: Path, run: Touchstone) -> None:
    """
    ``real/`` and ``fake/<generator>/``: generators are held out, the note says so, and a published probe has its row.

    A dozen reals a fold promise no 0.1 %: where a policy asks for that, there is no rate, and the reason is given.
    """
    root = tmp_path / "pictures"
    drawn(root / "real", "", range(24))
    drawn(root / "fake/plasma", "plasma", range(100, 112))
    drawn(root / "fake/checker", "checker", range(200, 212))
    probe = a_probe(tmp_path / "fc_weights.pth", DIM)
    strict = tmp_path / "strict.toml"
    strict.write_text(shipped_policy().read_text().replace("\nalpha = 0.05\n", "\nalpha = 0.001\n"))
    arguments = ("evaluate", root, *FAST, "--no-teaching", "--work", tmp_path / "work")
    code, out, _ = run(*arguments, "--legacy-probe", probe, "--set", f"policy.path={strict}")
    wrong_code, _, wrong_err = run(*arguments, "--legacy-probe", a_probe(tmp_path / "other.pth", 7))
    shown: dict[str, Any] = json.loads(out)

    assert (0, "generator") == (code, shown["split"])
    assert "generators are held out instead of sources" in shown["notes"][0]
    assert (24, 24) == (shown["n_real"], shown["n_ai"])
    assert 0 <= shown["heads"]["probe_ufd"]["auroc"]["value"] <= 1
    assert 0.001 == shown["fpr"]["alpha"]
    assert shown["fpr"]["value"] is None
    assert "needs at least 999" in shown["fpr"]["reason"]
    assert shown["fused"]["shipped"]["balanced_accuracy"]["value"] is None
    assert 3 == wrong_code
    assert "is for 7 dimensions" in wrong_err


def test_the_authors_layout_is_measured(tmp_path: Path, run: Touchstone) -> None:
    """
    Two folders: diffusion sets with shared reals, and GAN sets; what does nothing with this layout is refused.
    """
    drawn(tmp_path / "bank_pictures/real", "", range(10))
    drawn(tmp_path / "bank_pictures/fake/plasma", "plasma", range(100, 110))
    drawn(tmp_path / "diffusion/laion/0_real", "", range(200, 203))
    drawn(tmp_path / "diffusion/dalle/1_fake", "plasma", range(300, 302))
    drawn(tmp_path / "gans/progan/cat/0_real", "", range(400, 402))
    drawn(tmp_path / "gans/progan/cat/1_fake", "plasma", range(500, 502))
    bank = tmp_path / "bank"
    built, _, fault = run("bank", "build", tmp_path / "bank_pictures", "--out", bank, "--id", "b", "--crops", "1")
    arguments = ("evaluate", tmp_path / "diffusion", "--layout", "ufd", "--bank", bank, "--work", tmp_path / "work")
    code, out, _ = run(*arguments, "--also", tmp_path / "gans", "--json")
    refused, _, refused_err = run(*arguments, "--out", tmp_path / "x.html", "--split", "generator")
    shown = json.loads(out)

    assert (0, "") == (built, fault if built else "")
    assert 0 == code
    assert [("progan", 2, 2), ("dalle", 3, 2)] == [(row["name"], row["n_real"], row["n_ai"]) for row in shown["sets"]]
    assert 17 == len(shown["absent"]) == len(shown["absent_because"])
    assert 2 == refused
    assert "--split, --out does nothing with --layout ufd" in refused_err


def test_a_bank_is_measured_as_it_is(tmp_path: Path, run: Touchstone) -> None:
    """
    By its own judgement, on pictures that it does not hold, source by source; one that was never fitted is refused.
    """
    listing = write_evaluation_csv(tmp_path / "pictures", each=12)
    bank, work = tmp_path / "bank", tmp_path / "work"
    drawn(tmp_path / "own/real", "", range(24))
    drawn(tmp_path / "own/fake/plasma", "plasma", range(100, 124))
    built, _, fault = run("bank", "build", tmp_path / "own", "--out", bank, "--id", "b", "--crops", "1")
    asked = ("evaluate", listing, "--bank", bank, "--bootstrap", "20", "--no-robustness", "--work", work, "--json")
    unfitted, _, unfitted_err = run(*asked)
    fitted, _, _ = run("fit", bank)
    code, out, _ = run(*asked)
    idle, _, idle_err = run(*asked, "--crops", "3")
    own, _, own_err = run("evaluate", tmp_path / "own", "--bank", bank, "--work", work)
    shown = json.loads(out)

    assert (0, "") == (built, fault if built else "")
    assert 2 == unfitted
    assert "run `touchstone fit" in unfitted_err
    assert (0, 0) == (fitted, code)
    assert "bank" == shown["split"]
    assert {*SOURCES, "only", "reals"} == {row["name"] for row in shown["folds"]}
    assert all(row["trained"] == 0 for row in shown["folds"])
    assert shown["control"] is None
    assert 0 <= shown["fused"]["mean_auroc"]["value"] <= 1
    assert 2 == idle
    assert "--crops does nothing with --layout bank and --bank" in idle_err
    assert 2 == own
    assert "there is nothing to measure" in own_err


def test_ufd_without_a_bank_is_refused(tmp_path: Path, run: Touchstone) -> None:
    """
    The paper's rule asks a bank, and the message says how to name one.
    """
    code, _, err = run("evaluate", tmp_path, "--layout", "ufd")

    assert 2 == code
    assert "--bank" in err
