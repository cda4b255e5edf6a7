"""
No split leaks, whatever the listing looks like.
"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation_parts import a_sample
from worker.errors import ConfigInvalid
from worker.evaluation.dataset import Sample
from worker.evaluation.splits import LEAST_OF_GENERATOR, Split, by_generator, by_source

kinds = st.tuples(st.sampled_from([None, "g", "h", "i", "j"]), st.sampled_from(["a", "b", "c", None]))
listings = st.lists(kinds, min_size=4, max_size=60).map(
    lambda rows: [a_sample(str(at), generator=made, source=source) for at, (made, source) in enumerate(rows)]
)


def check(split: Split, samples: list[Sample]) -> None:
    """
    No row on both sides, none judged twice, both labels to learn from in every fold.
    """
    judged = Counter(int(row) for fold in split.folds for row in fold.test)

    assert max(judged.values(), default=1) == 1
    for fold in split.folds:
        assert not set(fold.train.tolist()) & set(fold.test.tolist())
        assert len(fold.train) + len(fold.test) == len(samples)
        assert {True, False} == {samples[row].positive for row in fold.train}


@given(listings)
def test_no_source_is_on_both_sides(samples: list[Sample]) -> None:
    """
    A held-out source is wholly held out.
    """
    try:
        split = by_source(samples)
    except ConfigInvalid:
        return

    check(split, samples)
    for fold in split.folds:
        assert {fold.name} == {samples[row].source for row in fold.test}
        assert fold.name not in {samples[row].source for row in fold.train}


@given(listings)
def test_no_generator_is_on_both_sides(samples: list[Sample]) -> None:
    """
    A held-out generator is wholly held out, and every picture is judged exactly once.
    """
    try:
        split = by_generator(samples)
    except ConfigInvalid:
        return

    check(split, samples)
    counts = Counter(sample.generator for sample in samples if sample.positive)
    assert sum(len(fold.test) for fold in split.folds) == len(samples)
    for fold in split.folds:
        made = {samples[row].generator for row in fold.test if samples[row].positive}
        assert not made & {samples[row].generator for row in fold.train if samples[row].positive}
        assert len(made) == 1 or all(counts[name] < LEAST_OF_GENERATOR for name in made)
