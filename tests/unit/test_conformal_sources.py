"""
P-values among single sources of reals: their definition, and what they promise of known and of unseen sources.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from worker.judgement.conformal import TooFewReals, conformal_p, largest_flagged_p
from worker.judgement.real_scores import MIN_BUCKET, POOLED, RealScores
from worker.judgement.sources import (
    MIN_SOURCE,
    OTHER_SOURCES,
    groups_of,
    hierarchical_p,
    largest_p,
    new_sources_note,
    pooled_promise,
    promise,
    sources_needed,
    too_small_note,
)

ALPHA = 0.1

Numbers = NDArray[np.float64]


def _by_hand(calibration: list[float], score: float) -> float:
    return (1 + sum(one >= score for one in calibration)) / (len(calibration) + 1)


def _reals(scores: Numbers, source: tuple[str | None, ...]) -> RealScores:
    return RealScores(scores, scores, ("JPEG/<512",) * len(scores), source)


def _p(reals: RealScores, asked: Numbers) -> Numbers:
    return reals.ranked(asked, ["JPEG/<512"] * len(asked), reference=reals.full).p


def test_p_by_its_definition() -> None:
    """
    The largest of the shares at least as high: among all, in each source, and in the small ones together.
    """
    rng = np.random.default_rng(1)
    size = {"a": 12, "b": MIN_SOURCE, "c": 6, "d": 5}
    source = (*(name for name, n in size.items() for _ in range(n)), None)
    scores = rng.integers(0, 8, len(source)).astype(float)
    asked = np.arange(-1.0, 10.0)
    held = {name: scores[[one == name for one in source]].tolist() for name in ("a", "b")}
    others = scores[[one not in held for one in source]].tolist()
    found = _reals(scores, source).ranked(asked, [POOLED] * len(asked), reference=scores)
    named = {**held, OTHER_SOURCES: others}

    for score, p, whose, pooled in zip(asked, found.p, found.source, found.bucket_p, strict=True):
        shares = {name: _by_hand(members, score) for name, members in named.items()}
        assert _by_hand(scores.tolist(), score) == pooled
        assert max(pooled, *shares.values()) == p
        assert whose is None if p == pooled else shares[str(whose)] == p


def test_which_sources_stand_alone() -> None:
    """
    Those with enough reals, by name; the others together where that is enough, and else nowhere.
    """
    source = ("b",) * 20 + ("a",) * 19 + ("c",) * 12 + (None,) * 7
    few, many = groups_of(source, 19), groups_of(source, 20)

    assert [("a", 19, True), ("b", 20, True), (OTHER_SOURCES, 19, False)] == [
        (group.name, len(group.rows), group.single) for group in few
    ]
    assert [("b", 20), (OTHER_SOURCES, 38)] == [(group.name, len(group.rows)) for group in many]
    assert ["b"] == [group.name for group in groups_of(source[:32], 20) if group.single]
    assert () == groups_of(("a",) * 5, 6)
    assert list(range(39, 58)) == few[-1].rows.tolist()


def test_a_source_called_like_the_rest_is_no_trouble() -> None:
    """
    Its reals are its own, and the rest are theirs.
    """
    groups = groups_of((OTHER_SOURCES,) * 10 + (None,) * 10, 10)

    assert [(OTHER_SOURCES, True, 0), (OTHER_SOURCES, False, 10)] == [
        (group.name, group.single, int(group.rows[0])) for group in groups
    ]


def test_a_policy_says_how_many_reals_a_source_needs() -> None:
    """
    As many as alpha and delta ask of any calibration, and never fewer than the least.
    """
    source = ("a",) * 60 + ("b",) * 25 + ("c",) * 12
    reals = _reals(np.arange(97.0), source)

    assert 3 == reals.sources == reals.serving(0.2, None).sources
    assert 2 == reals.serving(0.05, None).sources
    assert 1 == reals.serving(0.05, 0.05).sources
    assert (0, ()) == (reals.serving(0.01, None).sources, reals.serving(0.01, None).groups)
    assert (0, ()) == (reals.serving(0.2, None, "pooled").sources, reals.serving(0.2, None, "pooled").groups)


def test_pooled_asks_no_source() -> None:
    """
    Then the p-value is that of the bucket, as it was before.
    """
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(size=MIN_BUCKET), 3 + rng.normal(size=50)])
    reals = _reals(scores, ("a",) * MIN_BUCKET + ("b",) * 50)
    asked = rng.normal(size=40) + 2
    each, pooled = (
        reals.serving(ALPHA, None, guarantee).ranked(asked, ["JPEG/<512"] * 40, reference=scores)
        for guarantee in ("each_source", "pooled")
    )

    assert conformal_p(scores, asked).tolist() == pooled.p.tolist() == each.bucket_p.tolist()
    assert {None} == set(pooled.source)
    assert {"b"} == set(each.source)
    assert (each.p > pooled.p).all()


def test_reals_of_which_no_source_is_known() -> None:
    """
    Are one group, which is all of them; a kind of file of its own does not undercut it.
    """
    scores = np.concatenate([np.zeros(MIN_BUCKET), np.ones(MIN_BUCKET)])
    kinds = ("JPEG/<512",) * MIN_BUCKET + ("other/<512",) * MIN_BUCKET
    found = RealScores(scores, scores, kinds).ranked(np.array([0.5]), ["JPEG/<512"], reference=scores)

    assert [1 / (MIN_BUCKET + 1)] == found.bucket_p.tolist()
    assert [(MIN_BUCKET + 1) / (2 * MIN_BUCKET + 1)] == found.p.tolist()
    assert (OTHER_SOURCES,) == found.source


def test_columns_of_reals_have_one_length() -> None:
    """
    Sources too, where they are known.
    """
    with pytest.raises(ValueError, match="lengths 3, 3, 3, 2, want one"):
        RealScores(np.zeros(3), np.zeros(3), ("a",) * 3, ("x",) * 2)


sources_of_reals = st.lists(
    st.tuples(st.integers(-4, 4).map(float), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=60
)


@given(sources_of_reals, st.lists(st.floats(-6, 6), min_size=1, max_size=8), st.sampled_from([0.05, 0.1, 0.4]))
def test_laws(reals: list[tuple[float, str | None]], asked: list[float], alpha: float) -> None:
    """
    Never 0, never below the pooled p-value, and falling as the score rises.
    """
    scores, source = np.array([score for score, _ in reals]), tuple(name for _, name in reals)
    ordered = np.sort(np.array(asked))
    calibrated = _reals(scores, source)
    each, pooled = (_p(calibrated.serving(alpha, None, one), ordered) for one in ("each_source", "pooled"))
    hierarchical = hierarchical_p(ordered, scores, source)

    assert (each >= pooled).all()
    for p in (each, hierarchical):
        assert ((p > 0) & (p <= 1)).all()
        assert (np.diff(p) <= 1e-12).all()


def _drawn(rng: np.random.Generator, shifts: Numbers, each: int) -> RealScores:
    """
    Reals of so many sources, each around its own mean.
    """
    scores = (shifts[:, None] + rng.normal(size=(len(shifts), each))).ravel()
    return _reals(scores, tuple(f"source-{number}" for number in np.repeat(np.arange(len(shifts)), each)))


def test_no_source_is_flagged_above_alpha() -> None:
    """
    Of shifted sources the pooled bound is broken in the worst; each source's own is kept, and met in the worst.
    """
    rng, shifts = np.random.default_rng(4), np.array([0.0, -1.0, -0.5, 1.0])
    rates: dict[str, list[list[float]]] = {"each_source": [], "pooled": []}
    for _ in range(300):
        reals = _drawn(rng, shifts, 99)
        asked = shifts[:, None] + rng.normal(size=(len(shifts), 50))
        for name, found in rates.items():
            serving = reals.serving(ALPHA, None, "pooled" if name == "pooled" else "each_source")
            found.append([float((_p(serving, row) <= ALPHA).mean()) for row in asked])
    mean = {name: np.mean(found, axis=0) for name, found in rates.items()}
    error = 4 * np.std(rates["each_source"], axis=0).max() / math.sqrt(300)

    assert mean["each_source"].max() <= ALPHA + error
    assert ALPHA == pytest.approx(mean["each_source"][3], abs=error)
    assert mean["pooled"][3] > 2 * ALPHA
    assert mean["pooled"].mean() <= ALPHA + error


@pytest.mark.parametrize(("sources", "each", "delta"), [(3, 400, None), (6, 400, None), (3, 60, 0.1)])
def test_of_unseen_sources_few_are_above_alpha(sources: int, each: int, delta: float | None) -> None:
    """
    Of sources drawn alike at most 1 in K + 1 is, with delta besides, and the rate is at most alpha + 1 / (K + 1).
    """
    rng, repeats = np.random.default_rng(5), 600
    rates: dict[str, list[float]] = {"each_source": [], "pooled": []}
    for _ in range(repeats):
        *shifts, new = rng.normal(size=sources + 1)
        reals = _drawn(rng, np.array(shifts), each)
        # The threshold is one of the calibration's scores: between two of them p does not change.
        asked = np.sort(reals.full) + 1e-9
        for name, found in rates.items():
            serving = reals.serving(ALPHA, delta, "pooled" if name == "pooled" else "each_source")
            flagged = _p(serving, asked) <= serving.largest_flagged(ALPHA, delta, POOLED)
            found.append(float(stats.norm.sf(asked[flagged].min() - new)))
    share = 1 / (sources + 1)
    bound = share + (0.0 if delta is None else delta)
    above = {name: float(np.mean(np.array(found) > ALPHA)) for name, found in rates.items()}

    # Without delta the thresholds are quantiles of 400 reals, not of the sources: a little is left to chance.
    assert above["each_source"] <= bound + 3 * math.sqrt(bound * (1 - bound) / repeats) + (0.02 if delta is None else 0)
    assert np.mean(rates["each_source"]) <= ALPHA + share
    assert above["pooled"] > above["each_source"] + 0.05


def test_hierarchical_p_by_its_definition() -> None:
    """
    Every source weighs the same, whatever it holds; reals of no known source count nowhere.
    """
    reference = np.array([1.0, 3.0, 2.0, 2.0, 9.0, 9.0])
    p = hierarchical_p(np.array([0.0, 2.5, 10.0]), reference, ("a", "a", "b", "b", "b", None))

    assert pytest.approx([1.0, (1 + 1 / 2 + 1 / 3) / 3, 1 / 3]) == p.tolist()
    assert [1.0] == hierarchical_p(np.array([5.0]), np.zeros(0), ()).tolist()


def test_hierarchical_p_keeps_alpha_for_unseen_sources() -> None:
    """
    With 19 sources for 5 %, on average over sources however far apart; with one fewer it can flag nothing.
    """
    rng, flags = np.random.default_rng(6), []
    for _ in range(1500):
        *shifts, new = 5 * rng.normal(size=20)
        sources = np.repeat(np.arange(19), 8)
        scores = np.array(shifts)[sources] + rng.normal(size=len(sources))
        p = hierarchical_p(new + rng.normal(size=4), scores, tuple(map(str, sources)))
        flags.append(float((p <= 0.05).mean()))

    assert 0 < np.mean(flags) <= 0.05 + 3 * np.std(flags) / math.sqrt(len(flags))
    assert 19 == sources_needed(0.05)
    assert hierarchical_p(np.array([1e9]), np.zeros(18), tuple(map(str, range(18))))[0] > 0.05


def test_the_smallest_source_sets_the_threshold_with_delta() -> None:
    """
    One threshold is asked for all; without delta it is alpha.
    """
    reals = _reals(np.arange(600.0), ("a",) * 480 + ("b",) * 100 + ("c",) * 20)
    serving = reals.serving(0.05, 0.1)

    assert largest_flagged_p(100, 0.05, 0.1) == serving.largest_flagged(0.05, 0.1, POOLED)
    assert largest_flagged_p(600, 0.05, 0.1) == reals.serving(0.05, 0.1, "pooled").largest_flagged(0.05, 0.1, POOLED)
    assert reals.largest_flagged(0.05, 0.1, POOLED) == serving.largest_flagged(0.05, 0.1, POOLED)
    assert 0.05 == serving.largest_flagged(0.05, None, POOLED)


def test_too_few_reals_are_refused_as_ever() -> None:
    """
    Where all of them together do not support alpha; a small source refuses nothing.
    """
    reals = _reals(np.arange(60.0), ("a",) * 50 + ("b",) * 10)
    with pytest.raises(TooFewReals, match=r"the calibration has 60 reals, but .* 0\.01 needs at least 99"):
        reals.largest_flagged(0.01, None, POOLED)

    assert 0.018 == reals.largest_flagged(0.018, None, POOLED)


def test_without_groups_nothing_is_ranked() -> None:
    """
    Then no source makes any p-value larger.
    """
    p, names = largest_p(np.zeros(2), np.zeros(3), ())

    assert ([0.0, 0.0], (None, None)) == (p.tolist(), names)


def test_promises_in_words() -> None:
    """
    How many sources, what follows for those never seen, and how many it takes to say more.
    """
    assert promise(0.05, 4) == (
        "flagged reals: at most 5 % in each of 4 calibration sources; of sources never seen, in 4 of 5, if they are "
        "drawn as these were"
    )
    assert "in each of at least 1 calibration source; of sources never seen, in 1 of 2" in promise(
        None, 1, at_least=True
    )
    assert "at most alpha over all calibration reals together; no source" in promise(None, 0)
    assert "at most 0.5 % over all calibration sources together" in pooled_promise(0.005)
    assert "4 sources of reals; 19 are needed for" in new_sources_note(0.05, ("a", "b", "c", "d", "d", None))
    assert "1 source of reals: with so many, no false-positive rate below 50 %" in new_sources_note(None, ("a", "a"))


def test_what_is_not_promised_is_said() -> None:
    """
    How many reals are of sources too small to stand alone, and what becomes of them.
    """
    assert too_small_note(("a",) * 19 + ("b",) * 19, 19) is None
    alone, together = (too_small_note(("a",) * 19 + (None,) * n, 19) for n in (3, 19))

    assert alone is not None
    assert together is not None
    assert "3 reals of sources that are not named or have fewer than 19 reals count among all reals only" in alone
    assert "19 reals of sources that are not named or have fewer than 19 reals are ranked among together" in together
