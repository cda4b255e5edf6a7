"""
Held-out reals that the policy flags: in all, source by source, and beside what was promised.

Which are flagged is ``worker.evaluation.fitted``; what a promise rests on is ``worker.judgement.sources``.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from schemas.judgement import Guarantee
from worker.evaluation.measures import FalsePositiveRate, SourceRate, exact_interval, false_positive_rate
from worker.evaluation.resampling import Bootstrap, Share
from worker.evaluation.scores import Scores
from worker.evaluation.shipped import reason_of
from worker.heads.features import Mask
from worker.judgement.sources import pooled_promise, promise


def flagged_reals(
    scores: Scores, positive: Mask, source: Sequence[str], draws: Bootstrap, *, asked: tuple[float, Guarantee]
) -> FalsePositiveRate:
    """
    The false-positive rate of held-out pictures; ``source`` names that of each, ``asked`` is alpha and the guarantee.
    """
    alpha, guarantee = asked
    reals, reason = ~positive, reason_of(scores)
    found = false_positive_rate(scores.flagged[reals], alpha, reason)
    found = replace(found, guarantee=guarantee, sources=scores.sources)
    if found.value is None:
        return found
    over_sources = draws.of(positive, Share(reals), scores.flagged.astype(np.float64))
    pooled = None if scores.pooled_flagged is None else false_positive_rate(scores.pooled_flagged[reals], alpha)
    return replace(
        found,
        low_sources=over_sources.low_sources,
        high_sources=over_sources.high_sources,
        pooled_value=None if pooled is None else pooled.value,
        pooled_low=None if pooled is None else pooled.low,
        pooled_high=None if pooled is None else pooled.high,
        per_source=_per_source(scores, reals, source),
    )


def promised(found: FalsePositiveRate) -> str | None:
    """
    What the policy's guarantee says of the reals of every fold, in a sentence; None where it could not be given.
    """
    if found.value is None:
        return None
    if found.guarantee == "pooled":
        return pooled_promise(found.alpha)
    return promise(found.alpha, found.sources or 0, at_least=True)


def _per_source(scores: Scores, reals: Mask, source: Sequence[str]) -> dict[str, SourceRate]:
    names = np.array(source, dtype=object)
    rates = {}
    for name in sorted(set(names[reals])):
        members = reals & (names == name)
        hits, n = int(scores.flagged[members].sum()), int(members.sum())
        low, high = exact_interval(hits, n)
        pooled = None if scores.pooled_flagged is None else float(np.mean(scores.pooled_flagged[members]))
        rates[name] = SourceRate(n, hits, hits / n, low, high, pooled)
    return rates
