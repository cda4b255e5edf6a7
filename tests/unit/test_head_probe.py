"""
The linear probes: scikit-learn's own decision, the authors' file, and what is refused.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.head_worlds import a_world, references_of, table_of
from worker.adapters.probe_file import read_probe_file
from worker.errors import EncoderInvalid
from worker.fitting.held_out import balanced_weights
from worker.fitting.probe import fit_probe
from worker.heads.features import FeatureTable, References
from worker.heads.native_mean import mean_crop
from worker.heads.probe import LegacyProbe, Probe
from worker.heads.reference_bank import ExactBank

pytestmark = pytest.mark.filterwarnings("error")


def bank_of(references: References) -> ExactBank:
    """
    A bank that a probe does not look at.
    """
    return ExactBank(references)


def telling_crops(seed: int = 0, n: int = 120, *, in_crops: bool) -> References:
    """
    References whose label shows only in the crops, or only in the global view.
    """
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    noise, told = rng.normal(size=(n, 6)), rng.normal(size=(n, 6))
    told[:, 0] += np.where(positive, 1.5, -1.5)
    whole, crops = (noise, told) if in_crops else (told, noise)
    return references_of(table_of(whole, crops, np.arange(n)), positive, sources=4)


@pytest.mark.parametrize("in_crops", [True, False])
def test_the_probe_is_what_scikit_learn_fits(in_crops: bool) -> None:
    """
    With the strength and the inputs that were chosen, the scores are the pipeline's decision function.
    """
    references, asked = telling_crops(in_crops=in_crops), telling_crops(1, in_crops=in_crops).features
    probe = fit_probe(references, seed=0)
    columns = [references.features.unit, references.features.native][: len(probe.weight) // 6]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=probe.c, tol=1e-9, max_iter=2000))
    pipeline.fit(
        np.concatenate(columns, axis=1).astype(np.float64),
        references.positive,
        logisticregression__sample_weight=balanced_weights(references),
    )
    expected = pipeline.decision_function(
        np.concatenate([asked.unit, asked.native][: len(columns)], axis=1).astype(np.float64)
    )

    np.testing.assert_allclose(expected, probe.read(asked, bank_of(references)).score, atol=1e-3)


def test_crops_are_looked_at_where_they_tell() -> None:
    """
    The label shows in the crops alone: both views are taken, and the probe tells unseen pictures apart by them.
    """
    references, unseen = telling_crops(in_crops=True), telling_crops(1, in_crops=True)
    probe = fit_probe(references, seed=0)
    called = probe.read(unseen.features, bank_of(references)).score > 0

    assert len(probe.weight) == 2 * unseen.features.dim
    assert (called == unseen.positive).mean() > 0.85


def test_a_picture_without_crops_is_read_by_its_global_view() -> None:
    """
    A probe of both views puts the global view where the mean crop would stand.
    """
    weight = np.arange(8, dtype=np.float64)
    probe = Probe(weight=weight, bias=0.5, c=1.0)
    asked = table_of(np.eye(4)[:2], np.eye(4)[[2, 3]], np.array([1, 1]))
    score = probe.read(asked, bank_of(a_world(0, 4, 4))).score

    np.testing.assert_allclose(score, [0 + 4 + 0.5, 1 + (6 + 7) / 2 + 0.5])


def test_mean_crops_against_a_loop() -> None:
    """
    Each picture's own crops and nobody else's.
    """
    table = a_world(3, 30).features
    expected = [
        table.native[table.native_owner == row].mean(axis=0) if (table.native_owner == row).any() else table.unit[row]
        for row in range(len(table))
    ]

    np.testing.assert_allclose(mean_crop(table), np.array(expected), atol=1e-6)


def test_a_large_source_does_not_drown_the_others() -> None:
    """
    Either class weighs half; a source of a hundred weighs ten times one of one, not a hundred times.
    """
    n = 202
    references = References(
        features=table_of(np.ones((n, 3))),
        positive=np.arange(n) == 0,
        generator=(None,) * n,
        source=("made", "small", *["large"] * 200)[:n],
        content=tuple(str(row) for row in range(n)),
    )
    weight = balanced_weights(references)

    assert weight[0] == pytest.approx(n / 2)
    assert weight[2:].sum() / weight[1] == pytest.approx(np.sqrt(200))
    assert weight.mean() == pytest.approx(1)


def test_references_of_one_class_fit_no_probe() -> None:
    """
    A clear refusal instead of scikit-learn's.
    """
    world = a_world(0, 10)
    with pytest.raises(ValueError, match="both classes"):
        fit_probe(references_of(world.features, np.ones(10, np.bool_)), seed=0)


@pytest.mark.parametrize("weights", [5, 12, 3])
def test_features_of_another_encoder_are_refused(weights: int) -> None:
    """
    Neither as many weights as dimensions, nor twice as many.
    """
    asked = a_world(0, 4, 4)
    probe = Probe(weight=np.zeros(weights), bias=0.0, c=1.0)

    with pytest.raises(ValueError, match=f"{weights} weights, features have 4"):
        probe.read(asked.features, bank_of(asked))


@pytest.mark.shared_data
def test_the_published_probe(shared_data: Path) -> None:
    """
    The authors' file has the norm and bias that the field study found, and scores raw features as their layer does.
    """
    path = shared_data / "peers" / "ufd_fc_vitl14.pth"
    probe = read_probe_file(path, dim=768)
    raw = np.random.default_rng(0).normal(size=(5, 768)) * 3
    layer = torch.nn.Linear(768, 1)
    layer.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    with torch.no_grad():
        expected = layer(torch.tensor(raw, dtype=torch.float32)).numpy()[:, 0]
    asked = table_of(raw)

    assert np.linalg.norm(probe.weight) == pytest.approx(6.200, abs=5e-4)
    assert probe.bias == pytest.approx(-0.5167, abs=5e-5)
    assert probe.state().settings["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(expected, probe.read(asked, bank_of(a_world(0, 4, 768))).score, atol=1e-4)


@pytest.mark.shared_data
def test_the_published_probe_wants_its_encoder(shared_data: Path) -> None:
    """
    Refused when the worker starts, with the encoder that would do.
    """
    with pytest.raises(EncoderInvalid, match=r"768 dimensions, the encoder has 512.*ViT-L-14-quickgelu"):
        read_probe_file(shared_data / "peers" / "ufd_fc_vitl14.pth", dim=512)


def test_a_probe_file_keeps_its_numbers(tmp_path: Path) -> None:
    """
    Weight and bias of a file in the authors' format come out as they went in.
    """
    tensors = {"weight": torch.arange(6.0).reshape(1, 6), "bias": torch.tensor([0.25])}
    torch.save(tensors, tmp_path / "probe.pth")
    probe = read_probe_file(tmp_path / "probe.pth", dim=6)

    np.testing.assert_array_equal(probe.weight, np.arange(6.0))
    assert probe.bias == 0.25


def test_a_probe_file_with_another_sha256_is_not_loaded(tmp_path: Path) -> None:
    """
    Where the caller says which it must have; one of several is enough.
    """
    path = tmp_path / "probe.pth"
    torch.save({"weight": torch.zeros(1, 6), "bias": torch.zeros(1)}, path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(EncoderInvalid, match=rf"has sha256 {right}, expected {'0' * 64}"):
        read_probe_file(path, dim=6, expected=["0" * 64])

    assert right == read_probe_file(path, dim=6, expected=["0" * 64, right]).sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": torch.zeros(1, 6)}, "holds"),
        ({"weight": torch.zeros(2, 6), "bias": torch.zeros(1)}, r"\[2, 6\]"),
        ({"weight": torch.zeros(1, 6), "bias": torch.zeros(2)}, r"\[2\]"),
        ({"weight": torch.tensor(1.0), "bias": torch.zeros(1)}, r"'weight': \[\]"),
        ({"weight": torch.zeros(1, 6), "bias": torch.zeros(1), "more": torch.zeros(1)}, "more"),
        ({"weight": "text", "bias": torch.zeros(1)}, "str"),
        ([torch.zeros(1, 6)], "list"),
        ({"weight": torch.full((1, 6), torch.nan), "bias": torch.zeros(1)}, "not finite"),
        ({"weight": np.random.default_rng(0), "bias": torch.zeros(1)}, "nothing else is unpickled"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: object, said: str) -> None:
    """
    Anything but the two tensors of the authors' format, an object that would have to be unpickled included.
    """
    torch.save(content, tmp_path / "probe.pth")

    with pytest.raises(EncoderInvalid, match=said):
        read_probe_file(tmp_path / "probe.pth", dim=6)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """
    So is one that is no checkpoint at all.
    """
    (tmp_path / "text.pth").write_text("weights")
    for name in ("nothing.pth", "text.pth"):
        with pytest.raises(EncoderInvalid, match=name):
            read_probe_file(tmp_path / name, dim=768)


def test_the_published_probe_says_nothing_without_the_length() -> None:
    """
    Where the norm was not kept its score is NaN, of that picture only; of another dimension it is an error.
    """
    world = a_world(0, 6, 4)
    features = world.features
    norm = features.norm.copy()
    norm[2] = np.nan
    asked = FeatureTable(
        unit=features.unit,
        norm=norm,
        native=features.native,
        native_owner=features.native_owner,
        realism=features.realism,
        shift=features.shift,
        format=features.format,
        short_side_px=features.short_side_px,
    )
    score = LegacyProbe(np.ones(4), 0.0, "00").read(asked, bank_of(world)).score

    assert np.flatnonzero(np.isnan(score)).tolist() == [2]
    with pytest.raises(ValueError, match="3 weights, features have 4"):
        LegacyProbe(np.ones(3), 0.0, "00").read(asked, bank_of(world))
