"""
``touchstone bench stages`` without servers: every stage of one batch, and the roofline that they make.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.bench.report import plain_number
from worker.cli.bench_stages import stages
from worker.dev.small_encoder import write_small_encoder
from worker.errors import ConfigInvalid

ALONE = ("parse", "fetch", "hash", "decode", "preprocess", "encode", "search", "decide", "serialise")


def arguments(folder: Path, *more: str) -> list[str]:
    """
    The command line of a small run.
    """
    small = write_small_encoder(folder / "small")
    named = ["--model", small.model, "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]
    size = ["--references", "50", "--rounds", "2", "--set", "batch.size=4", "--set", "encoder.device=cpu"]
    return [*named, *size, "--no-servers", "--work-folder", str(folder / "work"), *more]


def test_every_stage_has_its_costs(tmp_path: Path) -> None:
    """
    CPU and wall clock of each stage in both rounds; the roofline is the cores over the best fetch to search.
    """
    result = CliRunner().invoke(stages, arguments(tmp_path, "--image-size", "20kb", "--json"))

    assert result.exception is None, result.output
    told = json.loads(result.stdout)
    figures = told["figures"]
    assert set(figures) == {f"{name}_{clock}" for name in ALONE for clock in ("cpu", "wall")}
    assert all(one["rounds"] == 2 and 0 < one["low"] <= one["median"] <= one["high"] for one in figures.values())
    assert told["roofline_images_per_s"] == pytest.approx(told["cores"] * 1000 / sum(told["stage_costs_ms"].values()))
    assert told["stage_costs_ms"]["decode"] == pytest.approx(figures["decode_cpu"]["low"], rel=1e-3)
    assert (told["image_size"], told["references"], told["batch_size"]) == ("20kb", 50, 4)


def test_a_person_is_shown_a_table(tmp_path: Path) -> None:
    """
    Without --json the same figures as lines of a table.
    """
    result = CliRunner().invoke(stages, arguments(tmp_path, "--image-size", "20kb"))

    assert result.exception is None, result.output
    assert "decode_cpu" in result.stdout
    assert "roofline_images_per_s" in result.stdout


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    """
    The message names the sizes that there are.
    """
    result = CliRunner().invoke(stages, arguments(tmp_path, "--image-size", "huge"))

    assert isinstance(result.exception, ConfigInvalid)
    assert "tiny, 20kb, 0.2mp, 1mp" in str(result.exception)


@pytest.mark.parametrize(
    ("value", "text"), [(0.04567, "0.0457"), (12.3456, "12.3"), (234.56, "234.6"), (12_345.6, "12,346")]
)
def test_numbers_have_the_digits_worth_reading(value: float, text: str) -> None:
    """
    Three digits, and no fraction of thousands.
    """
    assert plain_number(value) == text
