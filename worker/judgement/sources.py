"""
Calibration reals by the source that they were collected from: p-values among each, and what these promise.

No judgement and no policy here; ranks among all reals, or among a kind of file, are ``worker.judgement.real_scores``.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from worker.heads.features import Column, Rows
from worker.judgement.conformal import conformal_p, reals_needed

MIN_SOURCE: Final = 10
"""Calibration reals that a source needs to be ranked among by itself, whatever the alpha."""

OTHER_SOURCES: Final = "other sources"
"""Name of the group of those sources that have too few reals of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceGroup:
    """
    Calibration reals that a picture is ranked among: ``rows`` of them, of one source, or where not ``single`` of many.
    """

    name: str
    rows: Rows = field(repr=False)
    single: bool = True


def groups_of(source: Sequence[str | None], least: int) -> tuple[SourceGroup, ...]:
    """
    The sources with at least ``least`` reals, by name, then those with fewer together, where together they have enough.

    ``source`` names that of each real; those of which it is not known (None) are never a source of their own. Reals
    that end up in no group count among all reals only.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    others: list[int] = []
    for row, name in enumerate(source):
        (others if name is None else rows[name]).append(row)
    groups = []
    for name, members in sorted(rows.items()):
        if len(members) >= least:
            groups.append(SourceGroup(name, np.asarray(members, dtype=np.int64)))
        else:
            others += members
    if len(others) >= max(1, least):
        groups.append(SourceGroup(OTHER_SOURCES, np.asarray(sorted(others), dtype=np.int64), single=False))
    return tuple(groups)


def largest_p(
    scores: Column, reference: Column, groups: Iterable[SourceGroup]
) -> tuple[Column, tuple[str | None, ...]]:
    """
    For each score the largest of its conformal p-values among the groups, and the group that gave it; 0 without groups.

    A picture that is exchangeable with the reals of any one group has P(largest p <= alpha) <= P(its own group's p <=
    alpha) <= alpha. So the bound holds in every single source of the calibration, and not only on average over their
    mixture, as that of a rank among all reals does.

    Of a source that was never seen this is said, where it and the K single sources are exchangeable draws (sources
    beyond those, and ranks among more than these groups, only make p larger):

    - Its own upper alpha quantile lies above the largest of the K others' with probability at most 1 / (K + 1). In K of
      K + 1 such sources the false-positive rate is thus at most alpha, where the flag threshold stands at the sources'
      quantiles, as it does with many reals of each. With ``delta`` (see ``largest_flagged_p``) it stands there or above
      in all but that share of calibrations, and the rate is at most alpha in all but a share 1 / (K + 1) + delta.
    - On average over such sources the rate is at most alpha + 1 / (K + 1), with any number of reals: let as many reals
      be drawn of the new source as of the others. A picture of it is flagged only if it lies above its own source's
      threshold, which has probability alpha, or if that lies above all K others, which has 1 / (K + 1).

    A bound of alpha itself on average over new sources takes more sources: see ``hierarchical_p``.
    """
    largest = np.zeros(len(scores))
    names = np.full(len(scores), None, dtype=object)
    for group in groups:
        p = conformal_p(reference[group.rows], scores)
        above = p > largest
        largest = np.where(above, p, largest)
        names[above] = group.name
    return largest, tuple(names.tolist())


def hierarchical_p(scores: Column, reference: Column, source: Sequence[str | None]) -> Column:
    """
    ``(1 + sum over sources of the share of their reals at least as high) / (K + 1)``, float64; never 0.

    Every source weighs the same, however many reals it has, and every source counts, however few. Where a picture's own
    source and these are exchangeable draws, P(p <= alpha) <= alpha on average over sources, whatever they are like;
    since p is at least 1 / (K + 1), that says something of alpha only with ``sources_needed(alpha)`` of them.
    Hierarchical conformal prediction: Dunn, Wasserman and Ramdas, "Distribution-free prediction sets for two-layer
    hierarchical models" (2022); Lee, Barber and Willett, "Distribution-free inference with hierarchical data" (2023).
    """
    groups = [group for group in groups_of(source, 1) if group.single]
    total = np.ones(len(scores))
    for group in groups:
        ordered = np.sort(reference[group.rows])
        total += (len(ordered) - np.searchsorted(ordered, scores, side="left")) / len(ordered)
    p: Column = total / (len(groups) + 1)
    return p


def sources_needed(alpha: float) -> int:
    """
    The fewest sources of reals with which ``hierarchical_p`` may reach this alpha: 1 / alpha - 1, 19 for 5 %.
    """
    return reals_needed(alpha, None)


def promise(alpha: float | None, sources: int, *, at_least: bool = False) -> str:
    """
    What ``largest_p`` among so many single sources promises, in a sentence; alpha None where it is not settled yet.
    """
    rate = "alpha" if alpha is None else f"{100 * alpha:.4g} %"
    if not sources:
        return (
            f"flagged reals: at most {rate} over all calibration reals together; no source of them has enough reals to "
            "be promised it by itself"
        )
    count = f"{'at least ' if at_least else ''}{sources}"
    return (
        f"flagged reals: at most {rate} in each of {count} calibration {'source' if sources == 1 else 'sources'}; of "
        f"sources never seen, in {sources} of {sources + 1}, if they are drawn as these were"
    )


def pooled_promise(alpha: float | None) -> str:
    """
    What a rank among all reals, or all of a kind of file, promises, in a sentence.
    """
    rate = "alpha" if alpha is None else f"{100 * alpha:.4g} %"
    return f"flagged reals: at most {rate} over all calibration sources together; in one of them it may be more"


def new_sources_note(alpha: float | None, source: Sequence[str | None]) -> str:
    """
    How far these sources are from a bound on average over sources never seen, whatever they are like.
    """
    held = len({name for name in source if name is not None})
    named = f"{held} {'source' if held == 1 else 'sources'} of reals"
    if alpha is None:
        return (
            f"{named}: with so many, no false-positive rate below {100 / (held + 1):.3g} % can be promised on average "
            f"over sources never seen without assuming anything of them; {sources_needed(0.05)} are needed for 5 %"
        )
    return (
        f"{named}; {sources_needed(alpha)} are needed for a false-positive rate of {100 * alpha:.4g} % on average over "
        "sources never seen without assuming anything of them"
    )


def too_small_note(source: Sequence[str | None], least: int) -> str | None:
    """
    Which reals are not promised anything by their own source, since it has too few of them; None where all are.
    """
    groups = groups_of(source, least)
    alone = sum(len(group.rows) for group in groups if group.single)
    if alone == len(source):
        return None
    joined = any(not group.single for group in groups)
    together = "are ranked among together" if joined else "count among all reals only"
    return (
        f"{len(source) - alone} reals of sources that are not named or have fewer than {least} reals {together}: no "
        "such source is promised its rate by itself"
    )
