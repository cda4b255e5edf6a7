"""
The heads without neighbours, realism and perturbation, against their definitions; and how folds are dealt.
"""

import math

import numpy as np
import pytest

from tests.head_worlds import a_world, full_table, references_of, table_of
from worker.fitting.held_out import held_out, log_loss
from worker.fitting.plain import best_temperature, fit_perturbation, fit_realism
from worker.heads.features import REALISM, FeatureTable, References
from worker.heads.knn import TEMPERATURE
from worker.heads.realism import Realism, pentagon_area
from worker.heads.reference_bank import ExactBank

pytestmark = pytest.mark.filterwarnings("error")


def with_columns(table: FeatureTable, **columns: np.ndarray) -> FeatureTable:
    """
    The table with some columns replaced.
    """
    names = ("unit", "norm", "native", "native_owner", "realism", "shift", "format", "short_side_px")
    return FeatureTable(**{name: columns.get(name, getattr(table, name)) for name in names})


def shoelace(radii: list[float]) -> float:
    """
    The area of the polygon whose corners lie at these distances, by the surveyor's formula.
    """
    corners = [
        (radius * math.cos(math.tau * place / len(radii)), radius * math.sin(math.tau * place / len(radii)))
        for place, radius in enumerate(radii)
    ]
    following = [*corners[1:], corners[0]]
    return abs(sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(corners, following, strict=True))) / 2


def test_realism_is_the_pentagons_area() -> None:
    """
    Ratios to the reals' means, energy, Laplacian variance and spectrum inverted, and the polygon that they span.
    """
    world = a_world(0, 50)
    reals = world.features.realism[~world.positive]
    head = fit_realism(world, seed=0)
    read = head.read(world.features, ExactBank(world))
    for row, values in enumerate(world.features.realism):
        ratios = [
            mean / value if name in {"glcm_energy", "laplacian_variance", "mean_spectrum"} else value / mean
            for name, value, mean in zip(REALISM, values, reals.mean(axis=0), strict=True)
        ]

        assert ratios == pytest.approx([read.parts[name][row] for name in REALISM])
        assert shoelace(ratios) == pytest.approx(read.parts["area"][row])
        assert -math.log(shoelace(ratios)) == pytest.approx(read.score[row])


def test_a_picture_like_the_mean_real_has_the_regular_pentagon() -> None:
    """
    Area 5/2 sin 72 degrees, 2.378.
    """
    head = Realism(mean=np.array([0.1, 200.0, 0.01, 900.0, 4000.0]))

    assert 2.3776 == pytest.approx(pentagon_area(head.ratios(head.mean[np.newaxis]))[0], abs=1e-4)


def test_a_flat_picture_has_a_finite_score() -> None:
    """
    No edges, no contrast, energy 1, no Laplacian, no spectrum.
    """
    head = Realism(mean=np.array([0.1, 200.0, 0.01, 900.0, 4000.0]))
    flat = with_columns(table_of(np.ones((1, 3))), realism=np.array([[0.0, 0.0, 1.0, 0.0, 0.0]]))

    assert np.isfinite(head.read(flat, ExactBank(a_world(0, 4, 3))).score).all()


def test_realism_knows_what_was_not_measured() -> None:
    """
    A picture with one statistic missing has no score; neither has any where the reals have none.
    """
    world = a_world(0, 30)
    realism = world.features.realism.copy()
    realism[4, 2] = np.nan
    asked = with_columns(world.features, realism=realism)
    bare = references_of(with_columns(asked, realism=np.full_like(realism, np.nan)), world.positive)

    assert [4] == np.flatnonzero(np.isnan(fit_realism(world, seed=0).read(asked, ExactBank(world)).score)).tolist()
    assert np.isnan(fit_realism(bare, seed=0).read(asked, ExactBank(world)).score).all()


def test_perturbation_is_the_mean_of_standardised_logarithms() -> None:
    """
    Median and 1.4826 times the median deviation of the real references' log distances; parts are the distances.
    """
    world = a_world(0, 60)
    read = fit_perturbation(world, seed=0).read(world.features, ExactBank(world))
    logs = np.log(world.features.shift)
    reals = logs[~world.positive]
    spread = 1.4826 * np.median(np.abs(reals - np.median(reals, axis=0)), axis=0)

    np.testing.assert_allclose(((logs - np.median(reals, axis=0)) / spread).mean(axis=1), read.score)
    np.testing.assert_array_equal(world.features.shift[:, :2].min(axis=1), read.parts["minder"])
    np.testing.assert_array_equal(world.features.shift[:, 2], read.parts["high_frequency"])


def test_an_embedding_that_moves_more_scores_higher() -> None:
    """
    The direction in which the sources report generated pictures.
    """
    world = a_world(0, 60)
    head = fit_perturbation(world, seed=0)
    more = with_columns(world.features, shift=world.features.shift * 1.5)
    bank = ExactBank(world)

    assert (head.read(more, bank).score > head.read(world.features, bank).score).all()


def test_perturbation_without_perturbed_copies() -> None:
    """
    A picture of which a distance was not measured has no score; fitted on none, the head has none for anybody.
    """
    world = a_world(0, 30)
    bank = ExactBank(world)
    shift = world.features.shift.copy()
    shift[3, 1] = np.nan
    some = fit_perturbation(world, seed=0).read(with_columns(world.features, shift=shift), bank)
    bare = references_of(world.features.without_shift(), world.positive)

    assert [3] == np.flatnonzero(np.isnan(some.score)).tolist()
    assert np.isnan(fit_perturbation(bare, seed=0).read(world.features, bank).score).all()


def test_a_distance_that_no_reference_has_is_not_waited_for() -> None:
    """
    A column missing everywhere, as for an encoder that cannot measure it, leaves the score to the others.
    """
    world = a_world(0, 30)
    shift = world.features.shift.copy()
    shift[:, 2] = np.nan
    references = references_of(with_columns(world.features, shift=shift), world.positive)
    read = fit_perturbation(references, seed=0).read(references.features, ExactBank(references))

    assert np.isfinite(read.score).all()


def named(positive: list[bool], source: list[str], generator: list[str | None] | None = None) -> References:
    """
    References that matter only by name.
    """
    n = len(positive)
    return References(
        full_table(0, n, 3),
        np.array(positive),
        tuple(generator or [None] * n),
        tuple(source),
        tuple(str(row) for row in range(n)),
    )


def test_whole_sources_are_held_out() -> None:
    """
    Every reference once, no source on both sides, both classes to learn from.
    """
    source = [f"s{row % 7}" for row in range(70)]
    references = named([row % 2 == 0 for row in range(70)], source)
    parts = held_out(references, seed=0)

    assert sorted(row for part in parts for row in part.test) == list(range(70))
    for part in parts:
        assert {source[row] for row in part.test}.isdisjoint({source[row] for row in part.train})
        assert set(references.positive[part.train]) == {True, False}


def test_generators_are_held_out_where_a_source_is_all_of_a_class() -> None:
    """
    Reals of one source and fakes of another: no generator is on both sides.
    """
    maker = [f"m{row % 3}" if row < 30 else None for row in range(60)]
    references = named([row < 30 for row in range(60)], ["made"] * 30 + ["taken"] * 30, maker)
    parts = held_out(references, seed=0)

    assert len(parts) > 1
    for part in parts:
        made = {maker[row] for row in part.test} - {None}
        assert made.isdisjoint({maker[row] for row in part.train})
        assert set(references.positive[part.train]) == {True, False}


def test_single_pictures_are_held_out_where_names_do_not_help() -> None:
    """
    One source and one generator still give folds; one reference per class gives none.
    """
    many = named([row < 10 for row in range(20)], ["one"] * 20, ["m"] * 10 + [None] * 10)

    assert len(held_out(many, seed=0)) == 5
    assert held_out(named([True, False], ["one"] * 2), seed=0) == ()


def test_log_loss_against_its_definition() -> None:
    """
    Weighted mean of -log p of the true class, over the pictures whose odds are known.
    """
    odds, positive = np.array([2.0, -1.0, np.nan]), np.array([True, True, False])
    expected = (3 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 4

    assert expected == pytest.approx(log_loss(odds, positive, weight=np.array([3.0, 1.0, 9.0])))
    assert math.isinf(log_loss(np.array([np.nan]), np.array([True]), weight=np.ones(1)))


def test_the_temperature_follows_the_encoders_range() -> None:
    """
    An encoder whose similarities crowd together is given a lower temperature than one that spreads them.
    """
    rng = np.random.default_rng(0)
    positive = rng.random(240) < 0.5
    spread = rng.normal(size=(240, 5)) + np.where(positive[:, np.newaxis], 0.8, -0.8)
    wide = best_temperature(references_of(table_of(spread), positive), "global", seed=0)
    crowded = references_of(table_of(np.concatenate([spread, np.full((240, 1), 10.0)], axis=1)), positive)

    assert best_temperature(crowded, "global", seed=0) < wide


def test_the_usual_temperature_where_nothing_can_be_held_out() -> None:
    """
    Two references, or no crops.
    """
    crowd = references_of(table_of(np.random.default_rng(0).normal(size=(30, 4))), np.arange(30) % 2 == 0)

    assert best_temperature(named([True, False], ["one"] * 2), "global", seed=0) == TEMPERATURE
    assert best_temperature(crowd, "native", seed=0) == TEMPERATURE
