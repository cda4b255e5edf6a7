"""
Parts of an evaluation for tests: pictures in folders, samples without files, and a fit that is no fit.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from schemas.verdict import Action
from tests.bank_builders import sha
from worker.bank.sources import Reference
from worker.domain import Label
from worker.evaluation.dataset import FileFacts, Sample
from worker.evaluation.scores import FUSED, Scorer, Scores
from worker.heads.features import REALISM, SHIFT, FeatureTable, References
from worker.policy import LabelRule, SurfacePolicy

GENERATORS = ("plasma", "checker", "stripes")
SOURCES = ("left", "right")
SURFACE = SurfacePolicy(
    min_similarity=0.0,
    min_margin=0.2,
    min_side_px=32,
    max_aspect=20.0,
    abstained=Action.REVIEW,
    failed=Action.BLOCK,
    labels={
        "real": LabelRule(threshold=0.5, action=Action.NONE),
        "ai_generated": LabelRule(threshold=0.65, action=Action.LABEL),
    },
)


def a_sample(name: str, *, generator: str | None = None, source: str | None = "one", tier: str | None = None) -> Sample:
    """
    A picture that no file holds; generated where a generator is named.
    """
    label = Label("real" if generator is None else "ai_generated")
    reference = Reference(Path(name), name, label, generator=generator, source=source, sha256=sha(name))
    return Sample(reference, generator is not None, FileFacts("PNG", 64, 48, 3000), tier)


def a_table(unit: np.ndarray) -> FeatureTable:
    """
    Features of which only the global view was measured.
    """
    rows = np.asarray(unit, dtype=np.float32)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    n, dim = rows.shape
    return FeatureTable(
        unit=rows,
        norm=np.ones(n),
        native=np.empty((0, dim), np.float32),
        native_owner=np.empty(0, np.int64),
        realism=np.full((n, len(REALISM)), np.nan),
        shift=np.full((n, len(SHIFT)), np.nan),
        format=("JPEG",) * n,
        short_side_px=np.full(n, 300.0),
    )


def references_of(samples: Sequence[Sample], features: FeatureTable) -> References:
    """
    The samples with these features.
    """
    return References(
        features=features,
        positive=np.array([sample.positive for sample in samples]),
        generator=tuple(sample.reference.generator for sample in samples),
        source=tuple(sample.reference.source for sample in samples),
        content=tuple(sample.content for sample in samples),
    )


def a_nearest_fit(train: References) -> Scorer:
    """
    Implements ``worker.evaluation.scores.Fit``: of which class is the nearest reference.
    """
    made, real = (train.features.unit[train.positive == label] for label in (True, False))

    def score(features: FeatureTable) -> Scores:
        nearest = [(features.unit @ members.T).max(axis=1).astype(np.float64) for members in (made, real)]
        fused = (nearest[0] - nearest[1]) * 10
        n = len(features)
        words = np.where(fused > 1, "ai_generated", np.where(fused < -1, "real", "uncertain"))
        return Scores(
            columns={FUSED: fused, "knn": fused / 2, "min_distance_k1": -fused},
            p_value=np.where(fused > 1, 0.01, 0.5),
            coverage_p=np.full(n, 0.5),
            flagged=fused > 1,
            outcome=tuple(words.tolist()),
            attributed=(None,) * n,
        )

    return score


def write_evaluation_csv(folder: Path, *, each: int = 10) -> Path:
    """
    ``each`` smooth "reals" per source and ``each`` pictures per generator; two sources with both labels, one with one.
    """
    rows = []
    for number in range(each):
        for at, source in enumerate(SOURCES):
            rows.append((f"real/{source}-{number}.png", "real", "", source, "matched"))
            generator = GENERATORS[at]
            rows.append((f"fake/{generator}-{number}.png", "ai_generated", generator, source, "matched"))
        rows.append((f"fake/stripes-{number}.png", "ai_generated", "stripes", "only", "single-class"))
        rows.append((f"real/only-{number}.png", "real", "", "reals", "single-class"))
    for at, (name, _, generator, _, _) in enumerate(rows):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn_picture(generator, seed=at).save(path)
    file = folder / "pictures.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "generator", "source", "tier"])
        writer.writerows(rows)
    return file


def drawn_picture(generator: str, seed: int) -> Image.Image:
    """
    Coloured clouds for a real one; for a generated one the same with a pattern of its generator.
    """
    rng = np.random.default_rng(seed)
    clouds = rng.uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    picture = Image.fromarray(clouds).resize((64, 48), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    if not generator:
        return picture
    pixels = np.asarray(picture).astype(np.int64)
    y, x = np.mgrid[0:48, 0:64]
    pattern = {"plasma": y < 16, "checker": (x + y) % 2, "stripes": x < 20}[generator]
    pixels[..., 0] += 90 * pattern.astype(np.int64)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
