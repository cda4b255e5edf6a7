"""
Which pictures are held out together, and what is refused.
"""

import pytest

from tests.evaluation_parts import a_sample
from worker.errors import ConfigInvalid
from worker.evaluation.splits import RARE, by_generator, by_source, by_source_or_generator

TWO_SOURCES = [
    *(a_sample(f"a{n}", source="a", tier="matched") for n in range(3)),
    *(a_sample(f"ag{n}", generator="g", source="a", tier="matched") for n in range(3)),
    *(a_sample(f"b{n}", source="b") for n in range(3)),
    *(a_sample(f"bg{n}", generator="h", source="b") for n in range(3)),
    *(a_sample(f"c{n}", source="c") for n in range(3)),
]


def test_only_sources_with_both_labels_are_held_out() -> None:
    """
    A source with one label is trained on in every fold, and the notes say so.
    """
    split = by_source(TWO_SOURCES)

    assert ["a", "b"] == [fold.name for fold in split.folds]
    assert list(range(6)) == split.folds[0].test.tolist()
    assert list(range(6, 15)) == split.folds[0].train.tolist()
    assert split.notes == ("trained on in every fold, never judged: c",)


def test_a_tier_narrows_what_is_held_out() -> None:
    """
    A source of another tier is trained on.
    """
    assert ["a"] == [fold.name for fold in by_source(TWO_SOURCES, "matched").folds]


def test_no_source_with_both_labels_is_refused() -> None:
    """
    The message names what to do instead.
    """
    with pytest.raises(ConfigInvalid, match="--split generator"):
        by_source(TWO_SOURCES, "no such tier")


def test_small_generators_are_held_out_together() -> None:
    """
    Fewer than five pictures of a generator make no fold of their own.
    """
    samples = [
        *(a_sample(f"g{n}", generator="g") for n in range(5)),
        *(a_sample(f"h{n}", generator="h") for n in range(4)),
        *(a_sample(f"i{n}", generator="i") for n in range(2)),
        *(a_sample(f"r{n}") for n in range(8)),
    ]
    split = by_generator(samples)

    assert [RARE, "g"] == [fold.name for fold in split.folds]
    assert {"h", "i"} == {samples[row].generator for row in split.folds[0].test if samples[row].positive}
    assert "one by one" in split.notes[0]


def test_whole_sources_of_reals_are_held_out_where_there_are_enough() -> None:
    """
    With as many sources of reals as folds, no real has a companion of its source in training.
    """
    samples = [
        *(a_sample(f"g{n}", generator="g") for n in range(5)),
        *(a_sample(f"h{n}", generator="h") for n in range(5)),
        *(a_sample(f"r{n}", source=f"s{n % 3}") for n in range(9)),
    ]
    split = by_generator(samples)

    assert split.notes == ()
    for fold in split.folds:
        judged = {samples[row].source for row in fold.test if not samples[row].positive}
        trained = {samples[row].source for row in fold.train if not samples[row].positive}
        assert judged
        assert not judged & trained


def test_one_generator_cannot_be_held_out() -> None:
    """
    Without a second one there would be nothing to learn from.
    """
    with pytest.raises(ConfigInvalid, match="none can be held out"):
        by_generator([a_sample("g", generator="g"), a_sample("r")])


def test_small_generators_are_counted_in_the_refusal() -> None:
    """
    Two generators of four pictures each: the message says so.
    """
    samples = [a_sample(f"{name}{n}", generator=name) for name in "gh" for n in range(4)]

    with pytest.raises(ConfigInvalid, match="g with 4, h with 4: none can be held out"):
        by_generator([*samples, a_sample("r")])


def test_generators_stand_in_where_no_source_has_both_labels() -> None:
    """
    Folders without sources are cut by generator, with a note; a tier that was asked for is never passed over.
    """
    samples = [
        *(a_sample(f"{name}{n}", generator=name, source=None) for name in "gh" for n in range(6)),
        *(a_sample(f"r{n}", source=None) for n in range(6)),
    ]
    split = by_source_or_generator(samples)

    assert "generator" == split.name
    assert "generators are held out instead of sources" in split.notes[0]
    assert "source" == by_source_or_generator(TWO_SOURCES).name
    with pytest.raises(ConfigInvalid, match="tier matched"):
        by_source_or_generator(samples, "matched")
