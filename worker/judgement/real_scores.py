"""
The calibration's reals: what a new score is ranked among, by kind of file and by source.

P-values as such are ``worker.judgement.conformal``; what ranks among single sources promise is
``worker.judgement.sources``. No policy is applied here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np

from schemas.judgement import Guarantee
from worker.heads.features import Column
from worker.judgement.conformal import conformal_p, largest_flagged_p, reals_needed
from worker.judgement.sources import MIN_SOURCE, SourceGroup, groups_of, largest_p

MIN_BUCKET: Final = 100
"""Calibration reals that a kind of file needs for a threshold of its own; with fewer, all reals together are asked."""

POOLED: Final = "all"
"""Name of the bucket that holds every calibration real."""

_BANDS_PX: Final = ((512.0, "<512"), (1024.0, "512-1023"), (math.inf, ">=1024"))


def bucket_of(image_format: str | None, short_side_px: float) -> str:
    """
    The kind of a file: ``JPEG``, ``other`` or ``unknown``, and the band of its short side, such as ``JPEG/<512``.
    """
    kind = "unknown" if image_format is None else "JPEG" if image_format.upper() in {"JPEG", "JPG", "MPO"} else "other"
    band = next((name for below, name in _BANDS_PX if short_side_px < below), "unknown")
    return f"{kind}/{band}"


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """
    P-values of n scores: ``p`` is held against the flag threshold, ``bucket_p`` is that among the bucket's reals alone.

    float64[n] each. ``bucket`` names the calibration set of ``bucket_p``; ``source`` the group of reals that made ``p``
    larger than it, None where none did.
    """

    p: Column = field(repr=False)
    bucket_p: Column = field(repr=False)
    bucket: tuple[str, ...] = field(repr=False)
    source: tuple[str | None, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class RealScores:
    """
    Fused scores of the calibration's reals, which a new score is ranked among.

    ``full`` float64[n] with every head, ``cheap`` float64[n] with those that need no further encoding; equal where
    there is no such head. ``bucket`` names the kind of each real's file, ``source`` where it was collected, None where
    that is not known; () where it is known of none, as in judgements that were fitted before it was kept. ``least`` is
    how many reals a kind of file needs to answer for itself, never under ``MIN_BUCKET``, and ``least_of_source`` how
    many a source needs, never under ``MIN_SOURCE``; see ``serving``. ``guarantee`` is ``each_source`` where the bound
    on false positives is to hold in each source, ``pooled`` where it is to hold over all reals, or all of a kind.
    """

    full: Column = field(repr=False)
    cheap: Column = field(repr=False)
    bucket: tuple[str, ...] = field(repr=False)
    source: tuple[str | None, ...] = field(default=(), repr=False)
    least: int = MIN_BUCKET
    least_of_source: int = MIN_SOURCE
    guarantee: Guarantee = "each_source"

    def __post_init__(self) -> None:
        lengths = [len(self.full), len(self.cheap), len(self.bucket), *([len(self.source)] if self.source else [])]
        if len(set(lengths)) > 1:
            raise ValueError(f"columns of reals have lengths {', '.join(map(str, lengths))}, want one")

    def serving(self, alpha: float, delta: float | None, guarantee: Guarantee = "each_source") -> Self:
        """
        The same reals, where a kind of file or a source with too few of them for this alpha is answered by more.

        ``alpha`` and ``delta`` as in ``largest_flagged_p``. Such a kind is answered by all reals: its promise is then
        that of all kinds together, which the bucket of its p-values says. Such a source is joined with others like it.
        """
        needed = reals_needed(alpha, delta)
        return replace(
            self, least=max(MIN_BUCKET, needed), least_of_source=max(MIN_SOURCE, needed), guarantee=guarantee
        )

    def served_by(self, bucket: str) -> str:
        """
        The bucket whose reals answer for this kind of file: its own when it has ``least`` of them, else all.
        """
        return bucket if self.bucket.count(bucket) >= max(MIN_BUCKET, self.least) else POOLED

    def size(self, bucket: str) -> int:
        """
        Calibration reals in a bucket; ``POOLED`` names all.
        """
        return len(self.bucket) if bucket == POOLED else self.bucket.count(bucket)

    @property
    def groups(self) -> tuple[SourceGroup, ...]:
        """
        The sources that every picture is ranked among beside its bucket; none where the guarantee is pooled.
        """
        if self.guarantee == "pooled":
            return ()
        return groups_of(self.source or (None,) * len(self.full), max(MIN_SOURCE, self.least_of_source))

    @property
    def sources(self) -> int:
        """
        How many single sources every picture is ranked among, each by itself.
        """
        return sum(group.single for group in self.groups)

    def ranked(self, scores: Column, buckets: Sequence[str], *, reference: Column) -> Ranked:
        """
        For each score its p-values among ``reference``: ``full``, ``cheap`` or a mixture; ``buckets`` as asked for.

        The largest of that among its kind of file, or among all reals, and of those among the reals of each group of
        sources (see ``worker.judgement.sources.largest_p`` for what this promises).
        """
        among_kind, names = self._bucket_p(scores, buckets, reference)
        among_sources, sources = largest_p(scores, reference, self.groups)
        larger = among_sources > among_kind
        return Ranked(
            p=np.maximum(among_kind, among_sources),
            bucket_p=among_kind,
            bucket=names,
            source=tuple(name if is_larger else None for name, is_larger in zip(sources, larger, strict=True)),
        )

    def largest_flagged(self, alpha: float, delta: float | None, bucket: str) -> float:
        """
        The largest p-value that may be flagged in a bucket: the smallest that its reals and all groups' reals support.

        One threshold is asked for, so with ``delta`` the smallest group's counts; without it, all are ``alpha``. Raises
        ``TooFewReals`` where the bucket's reals do not support it. Groups that do not are not ranked among.
        """
        what = "the calibration" if bucket == POOLED else f"the calibration for {bucket}"
        own = largest_flagged_p(self.size(bucket), alpha, delta, what)
        groups = self.serving(alpha, delta, self.guarantee).groups
        return min([own, *(largest_flagged_p(len(group.rows), alpha, delta, group.name) for group in groups)])

    def _bucket_p(self, scores: Column, buckets: Sequence[str], reference: Column) -> tuple[Column, tuple[str, ...]]:
        """
        P-values conditional on the kind of file where it has a bucket of its own (Mondrian), and the buckets asked.

        The pooled p-value promises its alpha over all kinds together only, which is less than for the kind at hand.
        """
        kinds = np.asarray(self.bucket)
        served = {bucket: self.served_by(bucket) for bucket in set(buckets)}
        names = tuple(served[bucket] for bucket in buckets)
        asked = np.asarray(names)
        p = np.ones(len(scores))
        for name in set(names):
            among = reference if name == POOLED else reference[kinds == name]
            p[asked == name] = conformal_p(among, scores[asked == name])
        return p, names
