"""
The end-to-end sweeps: which points there are, what they come to, and how that is drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from worker.bench.encoders import BenchEncoder
from worker.bench.live import Round
from worker.bench.measurement import Took
from worker.bench.plots import Bar, Panel, rates_svg
from worker.bench.subjects import Subject
from worker.bench.sweep import Point, SweepPlan, report_of
from worker.bench.uploads import Answers
from worker.cli.bench_sweep import sweep
from worker.settings.tree import Settings

PLAN = SweepPlan((32, 8), ("4mp", "0.2mp"), uploads=192, references=2, rounds=2)
SUBJECT: Any = Subject(
    sets=(),
    settings=Settings(),
    encoder=BenchEncoder("small", "small", None, Path(), trained=True),
    instruments=cast("Any", SimpleNamespace(encoder=SimpleNamespace(fingerprint=SimpleNamespace(precision="fp32")))),
    store=cast("Any", None),
)


def rounds_at(*rates: float) -> list[Round]:
    """
    A round of 100 uploads at each of these rates, with 10 ms of CPU each.
    """
    return [Round(Answers(0.0, [100 / per_s] * 100, {}), Took(100 / per_s, 1.0, 0.0), 0.0, 0.0) for per_s in rates]


def test_images_go_through_the_worker_that_is_configured() -> None:
    """
    No point is measured twice, and large images are fewer, but never too few for a micro-batch.
    """
    both = SweepPlan((8, 32), ("1mp", "12mp"), uploads=192, references=2, rounds=1)

    assert [Point(8, "1mp"), Point(32, "1mp"), Point(32, "12mp")] == both.points(32)
    assert [192, 192, 48, 48] == [both.uploads_of(kind) for kind in ("0.2mp", "1mp", "4mp", "12mp")]


def test_each_size_is_told_with_its_rate_and_cost() -> None:
    """
    In order of size, whatever the order in which they were asked for.
    """
    rates = {point: rounds_at(10.0 * number, 20.0 * number) for number, point in enumerate(PLAN.points(32), 1)}
    told: Any = report_of(rates, PLAN, 32, SUBJECT).summary

    assert [(8, 30.0), (32, 15.0)] == [(one["batch_size"], one["images_per_s"]) for one in told["batch_sizes"]]
    assert [("0.2mp", 60.0), ("4mp", 45.0)] == [(one["image_size"], one["images_per_s"]) for one in told["image_sizes"]]
    assert {10.0} == {one["cpu_ms_per_upload"] for one in told["batch_sizes"]}
    assert (40.0, 80.0) == (told["image_sizes"][0]["lowest_per_s"], told["image_sizes"][0]["highest_per_s"])


def test_a_drawing_is_one_file_that_asks_for_no_other() -> None:
    """
    The same numbers give the same bytes; a name with dollars is no mathematics.
    """
    panels = [Panel("size", [Bar(32, 55.0, 50.0, 56.0, 32.0), Bar(8, 53.0, 50.0, 54.0, 34.0)])]
    drawn = rates_svg("a$model$", panels)

    assert drawn == rates_svg("a$model$", panels)
    assert 'href="http' not in drawn
    assert ET.fromstring(drawn).tag.endswith("svg")  # noqa: S314 - our own drawing


@pytest.mark.parametrize(
    "wrong", [["--batch-sizes", "0"], ["--batch-sizes", "8,8"], ["--image-sizes", "3mp"], ["--image-sizes", "1mp,1mp"]]
)
def test_sizes_that_cannot_be_are_refused(wrong: Sequence[str]) -> None:
    """
    Before anything is started.
    """
    ran = CliRunner().invoke(sweep, wrong)

    assert 2 == ran.exit_code
    assert "Invalid value" in ran.output
