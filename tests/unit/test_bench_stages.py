"""
``touchstone bench stages`` without servers: every stage of one batch, and the roofline that they make.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.bench.measurement import Took
from worker.bench.report import plain_number
from worker.bench.stages import best_costs, best_device_s, facts_cost_s
from worker.cli.bench_stages import stages
from worker.dev.small_encoder import write_small_encoder

ALONE = ("parse", "fetch", "hash", "decode", "decode_bare", "preprocess", "encode", "search", "decide", "serialise")


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
    least = min(figures[f"{name}_cpu"]["low"] for name in ("decode", "decode_bare"))
    assert told["stage_costs_ms"]["decode"] == pytest.approx(least, rel=1e-3)
    assert any("without perceptual hash and content credentials" in note for note in told["notes"])
    assert (told["image_size"], told["references"], told["batch_size"]) == ("20kb", 50, 4)


def test_the_roofline_takes_the_cheapest_way_to_do_the_needed_work() -> None:
    """
    Encoding in the batch size that costs least, decoding without hash and credentials; none of that is a stage more.
    """
    costs_s = {"fetch": 1.0, "decode": 10.0, "decode_bare": 8.5, "encode": 20.0, "encode_8": 17.0, "encode_16": 18.0}
    costs_s |= {"search": 2.0, "fetch_https": 0.5}
    found = {name: [Took(cost_s, cost_s, 0.0)] for name, cost_s in costs_s.items()}

    assert {"fetch": 1.0, "decode": 8.5, "encode": 17.0, "search": 2.0} == best_costs(found)
    assert 1.5 == facts_cost_s(found)
    assert 17.0 == best_device_s(found, on_device=True)
    assert {"fetch": 1.0, "decode": 8.5, "search": 2.0} == best_costs(found, on_device=True)


def test_smaller_batches_are_measured_beside_the_configured_one(tmp_path: Path) -> None:
    """
    Of 16 at once there is also 8, and the roofline has the cheaper of the two.
    """
    more = ("--image-size", "tiny", "--json", "--set", "batch.size=16")
    result = CliRunner().invoke(stages, arguments(tmp_path, *more))

    assert result.exception is None, result.output
    told = json.loads(result.stdout)
    figures = told["figures"]
    assert {"encode_8_cpu", "encode_8_wall"} <= set(figures)
    assert "encode_16_cpu" not in figures
    least = min(figures[f"{name}_cpu"]["low"] for name in ("encode", "encode_8"))
    assert told["stage_costs_ms"]["encode"] == pytest.approx(least, rel=1e-3)


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

    assert 2 == result.exit_code
    assert "tiny, 20kb, 0.2mp, 0.5mp, 1mp" in result.output


@pytest.mark.parametrize(
    ("value", "text"), [(0.04567, "0.0457"), (12.3456, "12.3"), (234.56, "234.6"), (12_345.6, "12,346")]
)
def test_numbers_have_the_digits_worth_reading(value: float, text: str) -> None:
    """
    Three digits, and no fraction of thousands.
    """
    assert plain_number(value) == text
