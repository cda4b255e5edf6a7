"""
What is measured by shares of known bytes and by teams of workers: what they are given, and what their rounds come to.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.bench import cache_share, scaling
from worker.bench.cache_share import CachePlan, mixed
from worker.bench.encoders import BenchEncoder
from worker.bench.live import Round
from worker.bench.measurement import Took
from worker.bench.scaling import ScalingPlan, Team
from worker.bench.subjects import Subject
from worker.bench.uploads import Answers
from worker.settings.tree import Settings

SUBJECT: Any = Subject(
    sets=(),
    settings=Settings(),
    encoder=BenchEncoder("small", "small", None, Path(), trained=False),
    instruments=cast("Any", SimpleNamespace(encoder=SimpleNamespace(fingerprint=SimpleNamespace(precision="fp32")))),
    store=cast("Any", None),
)


def rounds_at(*rates: float) -> list[Round]:
    """
    A round of 100 uploads at each of these rates.
    """
    return [Round(Answers(0.0, [100 / per_s] * 100, {}), Took(100 / per_s, 1.0, 0.0), 0.0, 0.0) for per_s in rates]


@settings(max_examples=30, deadline=None)
@given(shares=st.lists(st.floats(0.0, 0.9), min_size=1, max_size=3), new=st.integers(24, 40), rounds=st.integers(1, 2))
def test_new_pictures_last_for_all_rounds(shares: Sequence[float], new: int, rounds: int) -> None:
    """
    Whatever the shares: as many as were made are enough for the warm-up and every round, and a share is what was asked.
    """
    plan = CachePlan(tuple(shares), new, references=2, rounds=rounds)
    made = (f"new/{number}" for number in range(plan.most_new))
    known = (f"known/{number}" for number in count())
    mixed(made, known, new, 0.0)
    for share in list(shares) * rounds:
        uploads = plan.uploads(share)
        events = mixed(made, known, uploads, share)

        assert uploads == len(events)
        assert abs(sum(b"known/" in event.value for event in events) - share * uploads) <= 1


def test_a_share_is_compared_with_the_first_round_by_round() -> None:
    """
    Three times as fast in each round is a gain of three, whatever the rounds.
    """
    found = {"0": rounds_at(10, 20, 30), "0.95": rounds_at(30, 60, 90)}

    summary = cache_share.report_of(found, SUBJECT).summary

    assert ({"0": 1.0, "0.95": 3.0}, [0.0, 0.95]) == (summary["gain"], summary["shares"])
    assert {"0": 20.0, "0.95": 60.0} == summary["images_per_s"]


def test_a_team_is_held_against_as_many_times_its_smallest() -> None:
    """
    Two workers that do 1.8 times what one does are 0.9 of linear.
    """
    found = {Team(1, 4): rounds_at(10, 10, 20), Team(2, 4): rounds_at(18, 18, 36)}

    teams: Any = scaling.report_of(found, SUBJECT).summary["teams"]

    assert [(1, 4), (2, 4)] == [(team["workers"], team["partitions"]) for team in teams]
    assert [1.0, pytest.approx(0.9)] == [team["share_of_linear"] for team in teams]


def test_nobody_is_flattered_by_a_worker_with_too_few_partitions() -> None:
    """
    What one worker does at its best in a round is what two are held against, whatever it does with other partitions.
    """
    found = {
        Team(1, 1): rounds_at(5, 20),
        Team(1, 4): rounds_at(10, 10),
        Team(2, 2): rounds_at(16, 32),
    }

    teams: Any = scaling.report_of(found, SUBJECT).summary["teams"]

    assert [0.75, 0.75, 0.8] == [pytest.approx(team["share_of_linear"]) for team in teams]


def test_every_team_is_tried_over_every_number_of_partitions() -> None:
    """
    As many for each worker, so that none is without; pictures last for the largest team.
    """
    plan = ScalingPlan((2, 1), (4, 1), uploads=24, references=2, rounds=3)

    assert [Team(1, 1), Team(1, 4), Team(2, 2), Team(2, 8)] == plan.teams
    assert 2 * (3 * 24 + scaling.WARM_UP) == plan.most_new


@pytest.mark.parametrize(
    ("workers", "partitions"), [((), (4,)), ((0, 1), (4,)), ((2, 2), (4,)), ((1,), (0,)), ((1,), ()), ((1,), (2, 2))]
)
def test_teams_that_cannot_be_are_refused(workers: tuple[int, ...], partitions: tuple[int, ...]) -> None:
    """
    None at all, nobody, twice the same, and no partition.
    """
    with pytest.raises(ValueError, match="expected"):
        ScalingPlan(workers, partitions, uploads=24, references=2, rounds=1)
