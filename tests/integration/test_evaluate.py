"""
``touchstone evaluate`` from end to end: the demo's small encoder, the real heads and fit, sixty made pictures.
"""

import json
import sys
from pathlib import Path

import pytest

from tests.evaluation_parts import write_evaluation_csv
from worker.cli import main
from worker.dev.small_encoder import write_small_encoder

pytestmark = pytest.mark.slow


def test_a_listing_becomes_numbers_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every head of the fit has its row, both classes were judged, and the next run finds the embeddings again.
    """
    small = write_small_encoder(tmp_path / "model")
    listing = write_evaluation_csv(tmp_path / "pictures", each=12)
    arguments = [
        *("touchstone", "evaluate", str(listing), "--heldout-tier", "matched", "--crops", "1", "--bootstrap", "20"),
        *("--no-robustness", "--no-teaching", "--no-originals", "--json"),
        *("--work", str(tmp_path / "work"), "--out", str(tmp_path / "report.html")),
        *("--set", f"encoder.model={small.model}", "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"),
        *("--set", "encoder.device=cpu", "--set", "encoder.threads=1"),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", arguments)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    shown = json.loads(capsys.readouterr().out)

    assert ended.value.code == 0
    assert (24, 24) == (shown["n_real"], shown["n_ai"])
    assert {"knn", "probe", "real_only", "perturbation", "global_local"} <= set(shown["heads"])
    assert "min_distance_k9" in shown["rules"]
    assert all(0 <= one["ap"]["value"] <= 1 for one in shown["heads"].values())
    assert shown["fpr"]["n"] == 24
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "work").glob("embedded-*"))) == 1


def test_ufd_without_a_bank_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The paper's rule asks a bank, and the message says how to name one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["touchstone", "evaluate", str(tmp_path), "--layout", "ufd"])
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "--bank" in capsys.readouterr().err
