"""
Two sides' verdicts joined and compared.
"""

from collections import Counter
from dataclasses import replace

import pytest

from tests.diff_worlds import Said, compared, verdict
from worker.diff.comparison import NO_GENERATOR
from worker.diff.joining import joined
from worker.diff.seen import packed, seen_of, unpacked
from worker.diff.shifts import score_shift
from worker.diff.versions import version_rows


def test_every_kind_of_flip_is_counted() -> None:
    """
    From a label to another, to an abstention and to a failure, each under its own transition.
    """
    before = [Said("1", "real"), Said("2", "ai_generated"), Said("3", "real"), Said("4", "real"), Said("5", "failed")]
    after = [
        Said("1", "ai_generated"),
        Said("2", "uncertain"),
        Said("3", "failed"),
        Said("4", "real"),
        Said("5", "real"),
    ]
    found = compared(before, after)

    assert 5 == found.compared
    assert 4 == found.flips
    assert found.overall.transitions == Counter(
        {("real", "ai_generated"): 1, ("ai_generated", "uncertain"): 1, ("real", "failed"): 1, ("failed", "real"): 1}
    )
    assert ["1", "2", "3", "5"] == [change.event.id for change in found.flipped]


def test_events_of_one_side_only_are_counted_and_named() -> None:
    """
    They are no flips.
    """
    found = compared([Said("1"), Said("2")], [Said("2"), Said("3"), Said("4")])

    assert (1, 1, 2, 0) == (found.compared, found.a.alone, found.b.alone, found.flips)
    assert ["1"] == [event.id for event, _ in found.a.listed_alone]
    assert ["3", "4"] == [event.id for event, _ in found.b.listed_alone]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_several_verdicts_on_one_event_the_newest_counts(order: tuple[int, ...]) -> None:
    """
    In whatever order they are read; the others are counted as duplicates.
    """
    said = [Said("1", "real", age_s=0), Said("1", "failed", age_s=5), Said("1", "uncertain", age_s=9)]
    found = compared([said[place] for place in order], [Said("1", "real")])

    assert (0, 2, 0) == (found.flips, found.a.duplicates, found.b.duplicates)
    assert 1 == found.a.events


def test_an_upload_that_one_replay_judged_twice_is_told_apart() -> None:
    """
    Of further verdicts on an event only those are repeats: not another run's, not of an event that was sent twice.

    A live worker and its shadow may judge again what is delivered again.
    """
    once = Said("1", mode="replay", run_id="r", offset=4)
    after = [
        once,
        replace(once, age_s=1),
        replace(once, age_s=2),
        replace(once, run_id="s"),
        replace(once, offset=5),
        Said("2", offset=9),
        Said("2", offset=9, age_s=1),
        Said("3", mode="shadow", run_id="c", offset=7),
        Said("3", mode="shadow", run_id="c", offset=7, age_s=1),
    ]
    found = compared([Said("1"), Said("2"), Said("3")], after)

    assert (6, 2) == (found.b.duplicates, found.b.repeats)
    assert found.b.first_repeat is not None
    assert ("1", "r") == (found.b.first_repeat[0].id, found.b.first_repeat[1])
    assert (0, None) == (found.a.repeats, found.a.first_repeat)


def test_flips_by_surface_and_by_generator() -> None:
    """
    A pair counts under the attributed generator, else under that of the nearest reference, else under none.
    """
    before = [
        Said("1", "real", surface="ads", generator="midjourney"),
        Said("2", "real", near="sdxl"),
        Said("3", "real", near=None),
        Said("4", "real", generator="midjourney"),
    ]
    after = [
        Said("1", "ai_generated", surface="ads", generator="flux"),
        Said("2", "ai_generated", near="sdxl"),
        Said("3", "uncertain", near=None),
        Said("4", "real", generator="midjourney"),
    ]
    found = compared(before, after)

    assert {"ads": (1, 1), "post": (3, 2)} == {
        name: (one.compared, one.flips) for name, one in found.by_surface.items()
    }
    assert {"flux": (1, 1), "sdxl": (1, 1), NO_GENERATOR: (1, 1), "midjourney": (1, 0)} == {
        name: (one.compared, one.flips) for name, one in found.by_generator.items()
    }


def test_the_farthest_movers_come_first_with_neighbours_of_both_sides() -> None:
    """
    Only as many as asked for, and none whose score stayed.
    """
    before = [Said("1", score=0.5), Said("2", score=0.5, near="sdxl"), Said("3", score=0.5), Said("4", score=0.5)]
    after = [Said("1", score=0.6), Said("2", score=0.1, near="flux"), Said("3", score=0.5), Said("4", score=0.4)]
    found = compared(before, after, movers=2)

    assert [("2", -0.4), ("1", 0.1)] == [(change.event.id, change.shift) for change in found.movers]
    assert ("near:sdxl", "near:flux") == (
        found.movers[0].a.neighbours[0].entry_id,
        found.movers[0].b.neighbours[0].entry_id,
    )
    assert 3 == len(compared(before, after).movers)


def test_score_shift_has_the_moved_ones() -> None:
    """
    Quantiles are values that occurred; what failed on a side has no score and takes no part.
    """
    before = [Said(str(number), score=0.5) for number in range(100)] + [Said("gone", "failed")]
    after = [Said(str(number), score=0.9 if number == 7 else 0.5) for number in range(100)] + [Said("gone")]
    shift = score_shift(compared(before, after))

    assert (100, 1) == (shift.events, shift.moved)
    assert (0.0, 0.4) == (shift.absolute["p99"], shift.absolute["max"])
    assert (99, 100) == (shift.counts[len(shift.counts) // 2], sum(shift.counts))


def test_differences_without_a_flip_are_told_by_field() -> None:
    """
    A moved score and another generator are differences; volatile fields are none.
    """
    before = [Said("1", score=0.93, generator="flux", mode="live"), Said("2", age_s=100)]
    after = [Said("1", score=0.94, generator="sdxl", mode="replay", run_id="r"), Said("2", mode="replay", run_id="r")]
    found = compared(before, after)

    assert (0, 1) == (found.flips, found.differing)
    assert {"score": 1, "probability": 1, "generator": 1} == dict(found.fields)


def test_numbers_within_the_tolerance_are_equal() -> None:
    """
    Exactly at it, too; a flip is one at any tolerance.
    """
    before, after = [Said("1", score=0.5), Said("2", score=0.5)], [Said("1", score=0.51), Said("2", score=0.52)]

    assert 1 == compared(before, after, tolerance=0.01).differing
    assert 2 == compared(before, after).differing
    assert 1 == compared([Said("1", "real")], [Said("1", "failed")], tolerance=1.0).differing


def test_within_b_passes_over_what_the_replay_did_not_cover() -> None:
    """
    Uploads before the first and after the last of B, or in a partition of which B has none, are no missing ones.
    """
    before = [Said(str(number), offset=number) for number in range(10)] + [Said("other", partition=1, offset=5)]
    after = [Said(str(number), offset=number) for number in (3, 4, 6)]
    found = compared(before, after, within_b=True)

    assert (3, 1, 0) == (found.compared, found.a.alone, found.b.alone)
    assert ["5"] == [event.id for event, _ in found.a.listed_alone]
    assert 8 == compared(before, after).a.alone


def test_versions_that_differ_are_named() -> None:
    """
    Each version field of both sides with how many events were judged under it; equal ones are shown as equal.
    """
    rows = {row.name: row for row in version_rows(compared([Said("1"), Said("2")], [Said("1"), Said("2", policy="8")]))}

    assert {"policy.version", "policy.sha256"} == {name for name, row in rows.items() if row.differs}
    assert {"7": 1, "8": 1} == rows["policy.version"].b
    assert "bank.manifest_sha256" in rows
    assert "policy.surface" not in rows


def test_a_verdict_from_before_there_were_decisions_decides_all_the_same() -> None:
    """
    Verdicts of 1.0 have no decision; its label, or that it abstained, says the same.
    """
    with joined() as store:
        for said in (Said("1", "real"), Said("2", "uncertain")):
            new = verdict(said)
            old = new.model_copy(update={"outcome": new.outcome.model_copy(update={"decision": None})})
            store.add("a", old)
            store.add("b", new)
        pairs = list(store.pairs())

    assert ["real", "uncertain"] == [pair.a.seen.compared.decision for pair in pairs if pair.a is not None]
    assert [pair.a and pair.a.seen for pair in pairs] == [pair.b and pair.b.seen for pair in pairs]


@pytest.mark.parametrize("decision", ["real", "uncertain", "failed"])
def test_what_is_kept_survives_being_put_aside(decision: str) -> None:
    """
    Packing and unpacking gives the same value.
    """
    seen = seen_of(verdict(Said("1", decision, generator="flux")))

    assert unpacked(packed(seen)) == seen
