"""
The head ``natural_traces``: its arithmetic, its state, and that reading it changes nothing.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.projection_worlds import DIM, world
from worker.fitting.contrastive_traces import TraceNetwork, TraceTraining, _folded
from worker.fitting.contrastive_training import whitened_directions
from worker.heads.features import FeatureTable
from worker.heads.natural_traces import NaturalTraces, TraceMap, look
from worker.heads.reference_bank import ExactBank

BANK = ExactBank(world([1]))


def any_head(*, with_native: bool = True, judges: int = 3) -> NaturalTraces:
    """
    A head with random parameters.
    """
    random = np.random.default_rng(1)
    inputs = DIM * (1 + with_native)
    shapes = ((inputs, 16), (16,), (16, 8), (8,), (5, 8))
    inner, inner_bias, outer, outer_bias, traces = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    traces /= np.linalg.norm(traces, axis=1, keepdims=True)
    return NaturalTraces(TraceMap(inner, inner_bias, outer, outer_bias), traces, judges, with_native)


def pictures() -> FeatureTable:
    """
    24 pictures with three crops each, but the second has none.
    """
    features = world([2], crops=3).features
    kept = features.native_owner != 1
    return FeatureTable(
        unit=features.unit,
        norm=features.norm,
        native=features.native[kept],
        native_owner=features.native_owner[kept],
        realism=features.realism,
        shift=features.shift,
        format=features.format,
        short_side_px=features.short_side_px,
    )


def test_folded_map_is_the_network_after_the_reduction() -> None:
    """
    What is read in numpy is what was learnt in torch, reduction, both layers and normalisation.
    """
    looks = world(range(3)).features.unit
    reduction = whitened_directions(looks, np.ones(len(looks)), most=20, power=1.0)
    network = TraceNetwork(20, TraceTraining()).eval()
    with torch.no_grad():
        learnt = network(torch.from_numpy(reduction(looks).astype(np.float32))).numpy()

    assert np.allclose(learnt, _folded(network, reduction)(looks), atol=1e-5)


def test_score_is_minus_the_mean_cosine_to_the_nearest_traces() -> None:
    """
    One picture by hand: the three nearest of five traces judge; the parts are the nearest and the common direction.
    """
    head, features = any_head(), pictures()
    seen = look(features, with_native=True)[4].astype(np.float64)
    hidden = np.maximum(seen @ head.trace_map.inner + head.trace_map.inner_bias, 0)
    z = hidden @ head.trace_map.outer + head.trace_map.outer_bias
    z /= np.linalg.norm(z)
    cosines = sorted((float(z @ trace) for trace in head.traces), reverse=True)
    common = head.traces.astype(np.float64).mean(axis=0)
    readings = head.read(features, BANK)

    assert pytest.approx(-np.mean(cosines[:3]), abs=1e-9) == readings.score[4]
    assert pytest.approx(cosines[0], abs=1e-9) == readings.parts["nearest_trace"][4]
    assert pytest.approx(z @ common / np.linalg.norm(common), abs=1e-9) == readings.parts["homogeneous_similarity"][4]


def test_look_sets_the_mean_crop_beside_the_global_view() -> None:
    """
    Both views have the same length, the whole has length 1, and a picture without crops repeats its global view.
    """
    features = pictures()
    seen = look(features, with_native=True)
    crops = features.native[features.native_owner == 3].mean(axis=0)

    assert np.allclose(1.0, np.linalg.norm(seen, axis=1), atol=1e-6)
    assert np.allclose(features.unit[3], seen[3, :DIM] * np.sqrt(2), atol=1e-6)
    assert np.allclose(crops / np.linalg.norm(crops), seen[3, DIM:] * np.sqrt(2), atol=1e-6)
    assert np.array_equal(seen[1, :DIM], seen[1, DIM:])
    assert look(features, with_native=False) is features.unit


def test_companions_do_not_matter() -> None:
    """
    A picture reads the same alone, in another order and beside others.
    """
    head, features = any_head(), pictures()
    together = head.read(features, BANK).score
    turned = head.read(features.take([5, 1, 0]), BANK).score
    alone = [head.read(features.take([row]), BANK).score[0] for row in range(len(features))]

    assert np.allclose(alone, together, atol=1e-12)
    assert np.allclose(together[[5, 1, 0]], turned, atol=1e-12)


def test_no_pictures_give_no_scores() -> None:
    """
    An empty batch is read as an empty batch.
    """
    readings = any_head().read(pictures().take([]), BANK)

    assert (0,) == readings.score.shape
    assert {"nearest_trace": (0,), "homogeneous_similarity": (0,)} == {
        name: part.shape for name, part in readings.parts.items()
    }


def test_state_brings_the_head_back() -> None:
    """
    What was written reads the same, bit for bit.
    """
    head, features = any_head(judges=2), pictures()
    back = NaturalTraces.restored(head.state())

    assert np.array_equal(head.read(features, BANK).score, back.read(features, BANK).score)
    assert ("natural_traces", "1", 2, True) == (back.name, back.version, back.judges, back.with_native)


def test_features_of_another_space_are_refused() -> None:
    """
    A head that learnt from the global view alone refuses features of another length, and says what to do.
    """
    with pytest.raises(ValueError, match="learnt for 96 inputs, these features give 48: fit it again"):
        NaturalTraces(any_head().trace_map, any_head().traces, 3, with_native=False).read(pictures(), BANK)


def test_vector_that_the_map_sends_to_nothing_is_like_no_trace() -> None:
    """
    A row of zeros has cosine 0 to everything, and no NaN.
    """
    nothing = TraceMap(*(np.zeros(shape, np.float32) for shape in ((DIM, 2), (2,), (2, 3), (3,))))
    traces = normalize(torch.ones(2, 3)).numpy()
    readings = NaturalTraces(nothing, traces, 1, with_native=False).read(pictures(), BANK)

    assert np.array_equal(np.zeros(24), readings.score)
