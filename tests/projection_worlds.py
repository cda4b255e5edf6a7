"""
Made-up features for the learnt projections: strong content, and one weak direction that all reals share.
"""

from collections.abc import Iterable

import numpy as np

from worker.heads.features import REALISM, SHIFT, FeatureTable, Matrix, References

DIM = 48
PER_SUBJECT = 24


def world(subjects: Iterable[int], *, crops: int = 0, shared: float = 1.2) -> References:
    """
    Half real, half generated pictures of each subject; every real, and no other, lies ``shared`` along one direction.

    Subjects lie about 11 apart and pictures of one about 3, so that the nearest neighbours of a picture show the same
    as it does. The source of a picture is its subject.
    """
    pictures, owners, natives = [], [], []
    names: list[str] = []
    for subject in subjects:
        random = np.random.default_rng([subject, 5])
        centre = random.normal(size=DIM) * 8 / np.sqrt(DIM)
        raw = centre + random.normal(size=(PER_SUBJECT, DIM)) * 0.35
        raw[:, 0] = random.normal(size=PER_SUBJECT) * 0.35
        raw[: PER_SUBJECT // 2, 0] += shared
        owners.append(np.repeat(np.arange(PER_SUBJECT), crops) + len(names))
        natives.append(np.repeat(raw, crops, axis=0) + random.normal(size=(PER_SUBJECT * crops, DIM)) * 0.35)
        pictures.append(raw)
        names.extend([f"subject{subject}"] * PER_SUBJECT)
    n = len(names)
    positive = np.arange(n) % PER_SUBJECT >= PER_SUBJECT // 2
    raw = np.concatenate(pictures)
    return References(
        features=FeatureTable(
            unit=unit(raw),
            norm=np.linalg.norm(raw, axis=1),
            native=unit(np.concatenate(natives)),
            native_owner=np.concatenate(owners).astype(np.int64),
            realism=np.full((n, len(REALISM)), np.nan),
            shift=np.full((n, len(SHIFT)), np.nan),
            format=(None,) * n,
            short_side_px=np.full(n, np.nan),
        ),
        positive=positive,
        generator=tuple(f"maker{row % 3}" if made else None for row, made in enumerate(positive)),
        source=tuple(names),
        content=tuple(f"{name}-{row}" for row, name in enumerate(names)),
    )


def unit(rows: np.ndarray) -> Matrix:
    """
    The rows brought to length 1.
    """
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
