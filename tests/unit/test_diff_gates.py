"""
Bounds on a difference, each at its edge.
"""

import pytest

from tests.diff_worlds import Said, compared
from worker.diff.gates import Bound, Gates, ShiftBound, judge_gates
from worker.errors import ConfigInvalid

REALS = [Said(str(number), "real", score=0.5) for number in range(200)]


def flipped(count: int, to: str = "ai_generated") -> list[Said]:
    """
    The 200 events, of which so many flipped.
    """
    return [Said(str(number), to if number < count else "real", score=0.5) for number in range(200)]


def passes(gates: Gates, after: list[Said], before: list[Said] = REALS) -> bool:
    """
    Whether every gate passes.
    """
    return all(result.passed for result in judge_gates(gates, compared(before, after)))


@pytest.mark.parametrize(
    ("gates", "within", "beyond"),
    [
        (Gates(flips=Bound.parse("0")), flipped(0), flipped(1)),
        (Gates(flips=Bound.parse("3")), flipped(3), flipped(4)),
        (Gates(flips=Bound.parse("1.5%")), flipped(3), flipped(4)),
        (Gates(flips_to=[("failed", Bound.parse("1"))]), flipped(1, "failed"), flipped(2, "failed")),
        (Gates(flips_to=[("failed", Bound.parse("0.5%"))]), flipped(1, "failed"), flipped(2, "failed")),
        (Gates(flips_to=[("failed", Bound.parse("0"))]), flipped(9, "uncertain"), flipped(1, "failed")),
        (Gates(missing=Bound.parse("1")), flipped(0)[1:], flipped(0)[2:]),
        (Gates(missing=Bound.parse("0.5%")), flipped(0)[1:], flipped(0)[2:]),
        (Gates(missing=Bound.parse("1")), [*REALS, Said("new")], [*REALS[1:], Said("new")]),
        (Gates(require_equal=True), REALS, [*REALS[:-1], Said("199", "real", score=0.500001)]),
        (Gates(require_equal=True), REALS, REALS[:-1]),
        (Gates(require_equal=True), REALS, [*REALS, Said("new")]),
    ],
)
def test_each_gate_passes_at_its_edge_and_no_further(gates: Gates, within: list[Said], beyond: list[Said]) -> None:
    """
    Exactly what is allowed passes, one more does not.
    """
    assert passes(gates, within)
    assert not passes(gates, beyond)


def moved(by: float, count: int) -> list[Said]:
    """
    The 200 events, of which so many moved their score.
    """
    return [Said(str(number), "real", score=0.5 + by if number < count else 0.5) for number in range(200)]


@pytest.mark.parametrize(
    ("text", "within", "beyond"),
    [
        ("0.05", moved(0.05, 200), moved(0.050001, 200)),
        ("0.05", moved(0.4, 2), moved(0.4, 3)),
        ("p50=0", moved(-0.4, 100), moved(-0.4, 101)),
        ("max=0.4", moved(-0.4, 1), moved(-0.400001, 1)),
    ],
)
def test_the_score_shift_passes_at_its_edge(text: str, within: list[Said], beyond: list[Said]) -> None:
    """
    A quantile of the absolute shift, by default the 99th percentile: of 200 events, two may move however far.
    """
    gates = Gates(score_shift=[ShiftBound.parse(text)])

    assert passes(gates, within)
    assert not passes(gates, beyond)


def test_without_gates_nothing_is_judged() -> None:
    """
    However much differs.
    """
    assert [] == judge_gates(Gates(), compared(REALS, flipped(200)))


def test_nothing_in_common_passes_no_gate() -> None:
    """
    A promotion must not pass because nothing was compared.
    """
    results = judge_gates(Gates(flips=Bound.parse("100%")), compared([Said("1")], [Said("2")]))

    assert [("compared", False), ("max-flips", True)] == [(result.name, result.passed) for result in results]


@pytest.mark.parametrize("gates", [Gates(flips=Bound.parse("100%")), Gates(require_equal=True)])
def test_an_upload_that_a_replay_judged_twice_passes_no_gate(gates: Gates) -> None:
    """
    On whichever side, though nothing differs; without gates nothing is judged.
    """
    once = [Said("1", mode="replay", run_id="r"), Said("2", mode="replay", run_id="r")]
    twice = [*once, Said("2", mode="replay", run_id="r", age_s=3)]
    found = compared(once, twice)
    (failed,) = [result for result in judge_gates(gates, found) if not result.passed]

    assert ("once", "one verdict of a replay on an upload") == (failed.name, failed.allowed)
    assert "none more in A, 1 more in B (the first on event 2, by run r)" == failed.found
    assert not passes(gates, once, twice)
    assert passes(gates, once, once)
    assert [] == judge_gates(Gates(), found)


def test_an_unfinished_replay_passes_no_gate() -> None:
    """
    Each is told as a gate that fails, where any bound was asked for.
    """
    same = compared(REALS, REALS)
    results = judge_gates(Gates(flips=Bound.parse("0")), same, ["run r is half done"])

    assert [("finished", "run r is half done", False), ("max-flips", "0 (0.000% of 200)", True)] == [
        (result.name, result.found, result.passed) for result in results
    ]
    assert [] == judge_gates(Gates(), same, ["run r is half done"])


def test_scores_on_one_side_only_pass_no_bound_on_their_shift() -> None:
    """
    When all of B failed there is no shift to be within the bound.
    """
    (result,) = judge_gates(Gates(score_shift=[ShiftBound.parse("1")]), compared(REALS, flipped(200, "failed")))

    assert not result.passed
    assert result.found == "no event has a score in both A and B"


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "101%", "many", "1e3", "٣", "nan%"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    """
    The message says what was found and what a bound looks like.
    """
    with pytest.raises(ConfigInvalid, match="expected a") as refused:
        Bound.parse(text)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["", "p98=0.1", "p99=", "-0.1", "max=1%", "=0.1=0.1"])
def test_what_is_no_bound_on_the_shift_is_refused(text: str) -> None:
    """
    Likewise.
    """
    with pytest.raises(ConfigInvalid, match="expected a number such as"):
        ShiftBound.parse(text)


@pytest.mark.parametrize(
    "gates", [Gates(flips=Bound.parse("0")), Gates(missing=Bound.parse("0")), Gates(require_equal=True)]
)
def test_a_bound_of_nothing_is_a_bound(gates: Gates) -> None:
    """
    Zero is asked for like any other number.
    """
    assert gates.asked
    assert not Gates().asked
