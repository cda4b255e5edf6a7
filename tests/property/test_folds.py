"""
Laws of dividing references: nobody is judged by what learnt from their own generator or source.
"""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judgement_worlds import some_references, table_of
from worker.fitting.folds import MIN_PER_LABEL, folds_of, group_weights
from worker.fitting.held_out import held_out
from worker.heads.features import References

Groups = list[tuple[bool, str | None, str | None]]


@st.composite
def references(draw: st.DrawFn) -> References:
    """
    References of any mixture of generators and sources, at least as many of each label as are needed.
    """
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    names = st.sampled_from([None, "a", "b", "c", "d"])
    groups: Groups = [(True, draw(names), draw(names)) for _ in range(draw(st.integers(1, 8)))]
    groups += [(False, None, draw(names)) for _ in range(draw(st.integers(1, 5)))]
    rows = [group for group in groups for _ in range(draw(st.integers(MIN_PER_LABEL, 40)))]
    return References(
        features=table_of(rng.normal(size=(len(rows), 3)), rng),
        positive=np.asarray([positive for positive, _, _ in rows]),
        generator=tuple(generator for _, generator, _ in rows),
        source=tuple(source for _, _, source in rows),
        content=tuple(f"{number:064x}" for number in range(len(rows))),
    )


@given(references())
@settings(deadline=None, max_examples=30)
def test_generators_and_sources_are_whole(known: References) -> None:
    """
    In one fold each, but for those that a note says were divided; and every fold leaves both labels to learn from.
    """
    folds = folds_of(known)
    homes: dict[str, set[int]] = {}
    for row in range(len(known)):
        if known.positive[row]:
            name = f"generator {known.generator[row]}" if known.generator[row] else None
            name = name or f"generated of {known.source[row] or 'unknown source'}"
        else:
            name = f"reals of {known.source[row] or 'unknown source'}"
        homes.setdefault(name, set()).add(int(folds.fold[row]))
    divided = {name for name, at in homes.items() if len(at) > 1}

    assert divided == {note.split(":")[0] for note in folds.notes}
    for number in range(folds.count):
        rest = known.positive[folds.fold != number]
        assert rest.any()
        assert not rest.all()
        assert (folds.fold == number).any()


@given(references(), st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_order_means_nothing(known: References, seed: int) -> None:
    """
    Shuffled references fall into the same folds.
    """
    order = np.random.default_rng(seed).permutation(len(known))
    shuffled = folds_of(known.take([int(row) for row in order]))

    assert folds_of(known).fold[order].tolist() == shuffled.fold.tolist()


@given(references(), st.permutations(["a", "b", "c", "d"]))
@settings(deadline=None, max_examples=30)
def test_names_mean_nothing(known: References, others: list[str]) -> None:
    """
    Generators and sources that are called something else fall into the same folds, also within the fit of a head.
    """
    called: dict[str | None, str | None] = {None: None}
    called |= dict(zip("abcd", others, strict=True))
    renamed = replace(
        known,
        generator=tuple(called[name] for name in known.generator),
        source=tuple(called[name] for name in known.source),
    )

    assert folds_of(known).fold.tolist() == folds_of(renamed).fold.tolist()
    for one, other in zip(held_out(known, seed=3), held_out(renamed, seed=3), strict=True):
        assert one.test.tolist() == other.test.tolist()


@given(st.permutations(range(6)))
@settings(deadline=None, max_examples=10)
def test_names_of_equally_many_mean_nothing(order: list[int]) -> None:
    """
    Where sizes decide nothing, contents do, and still not the names.
    """
    known = some_references(each=12, generators=6, sources=6, shift=False)
    renamed = replace(
        known,
        generator=tuple(name and f"mill-{order[int(name[-1])]}" for name in known.generator),
        source=tuple(
            f"{name[:-1]}{order[int(name[-1])]}" if name != "web" else name for name in map(str, known.source)
        ),
    )

    assert folds_of(known).fold.tolist() == folds_of(renamed).fold.tolist()
    for one, other in zip(held_out(known, seed=3), held_out(renamed, seed=3), strict=True):
        assert one.test.tolist() == other.test.tolist()


@given(references())
@settings(deadline=None, max_examples=15)
def test_weights_are_fair(known: References) -> None:
    """
    Both labels weigh the same, every reference something, and all together as many as there are.
    """
    weights = group_weights(known)

    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(), len(known))
    np.testing.assert_allclose(weights[known.positive].sum(), len(known) / 2)
