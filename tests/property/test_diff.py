"""
Laws of a comparison: order does not matter, the sides are alike, and nothing differs from itself.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.diff_worlds import Said, compared
from worker.diff.comparison import Comparison
from worker.diff.gates import Bound, Gates, ShiftBound, judge_gates
from worker.diff.json_view import diff_object

says = st.builds(
    Said,
    event=st.sampled_from("abcdefgh"),
    decision=st.sampled_from(["real", "ai_generated", "uncertain", "failed"]),
    score=st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.93, 1.0]),
    surface=st.sampled_from(["post", "ads"]),
    generator=st.sampled_from([None, "flux", "sdxl"]),
    age_s=st.sampled_from([0.0, 1.0, 2.0]),
    policy=st.sampled_from(["7", "8"]),
)
sides = st.lists(says, min_size=1, max_size=12)


def told(found: Comparison) -> object:
    """
    All that a comparison says; of the versions, only how often each value stands behind an event.
    """
    whole = diff_object(found, [])
    for row in whole["versions"]:
        for side in "ab":
            row[side] = sorted(row[side], key=repr)
    whole["versions"] = sorted(whole["versions"], key=repr)
    for name in ("fields", "transitions", "by_surface", "by_generator"):
        whole[name] = sorted(whole[name].items(), key=repr)
    return whole


@settings(max_examples=40, deadline=None)
@given(side=sides)
def test_nothing_differs_from_itself(side: list[Said]) -> None:
    """
    No flip, no difference, nothing on one side only; every gate at nothing passes where a score was had.
    """
    found = compared(side, side)
    scored = [ShiftBound.parse("max=0")] if len(found.shifts) else []
    gates = Gates(flips=Bound.parse("0"), missing=Bound.parse("0"), score_shift=scored, require_equal=True)

    assert (0, 0, 0, 0) == (found.flips, found.differing, found.a.alone, found.b.alone)
    assert len({said.event for said in side}) == found.compared
    assert [] == found.movers
    assert all(result.passed for result in judge_gates(gates, found))


@settings(max_examples=40, deadline=None)
@given(a=sides, b=sides)
def test_the_sides_are_alike(a: list[Said], b: list[Said]) -> None:
    """
    Exchanging them reverses every transition and shift, and changes no count.
    """
    there, back = compared(a, b), compared(b, a)

    assert (there.compared, there.flips, there.differing) == (back.compared, back.flips, back.differing)
    assert (there.a.alone, there.b.alone) == (back.b.alone, back.a.alone)
    assert there.fields == back.fields
    assert {(after, before): n for (before, after), n in there.overall.transitions.items()} == back.overall.transitions
    assert list(there.shifts) == list(-back.shifts)
    assert there.compared + there.a.alone == there.a.events


@settings(max_examples=40, deadline=None)
@given(a=sides, b=sides, seed=st.integers())
def test_order_changes_nothing(a: list[Said], b: list[Said], seed: int) -> None:
    """
    However the verdicts of a side are shuffled.
    """
    drawn = random.Random(seed)
    shuffled = [drawn.sample(side, len(side)) for side in (a, b)]

    assert told(compared(a, b)) == told(compared(*shuffled))


@settings(max_examples=40, deadline=None)
@given(a=sides, b=sides)
def test_groups_add_up(a: list[Said], b: list[Said]) -> None:
    """
    Every compared event and every flip is counted under one surface and one generator.
    """
    found = compared(a, b)

    for groups in (found.by_surface, found.by_generator):
        assert sum(group.compared for group in groups.values()) == found.compared
        assert sum(group.flips for group in groups.values()) == found.flips
    assert found.flips == sum(found.fields[name] for name in ("decision",))
    assert sum(found.a.decisions.values()) == found.a.events
    assert len(found.flipped) + found.flipped_left_out == found.flips


@settings(max_examples=60, deadline=None)
@given(a=sides, b=sides, most=st.integers(0, 8))
def test_a_gate_is_a_comparison_with_its_bound(a: list[Said], b: list[Said], most: int) -> None:
    """
    It passes exactly when what was counted is at most the bound, and something was compared.
    """
    found = compared(a, b)
    results = judge_gates(Gates(flips=Bound(most=Bound.parse(str(most)).most, percent=False)), found)

    assert all(result.passed for result in results) == (found.flips <= most and found.compared > 0)
