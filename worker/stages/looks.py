"""
Of several looks at one picture, which decides.

Which looks are taken is ``worker/stages/frames.py`` and ``colour.on_grey``; each is judged by ``decide.py``.
"""

from collections.abc import Sequence
from dataclasses import replace

from schemas.verdict import ImageFacts
from worker.domain import Judgement


def deciding_look(judgements: Sequence[Judgement], facts: ImageFacts) -> Judgement:
    """
    The judgement of the look that seems most generated: of the highest score, the earliest among equals.

    The score is the probability where there is one. Its evidence says of which frame it is and, where frames were
    looked at on two grounds, on which. An image that is hidden in an animation is so judged as it would be alone; and
    of a real animation of k frames the share that is flagged may be up to k times the policy's alpha, for a p-value
    holds for one look. Raises ``ValueError`` where the facts tell of another number of looks.
    """
    frames = facts.frames_scored
    if len(judgements) == 1:
        return judgements[0]
    if len(judgements) != len(frames):
        raise ValueError(f"{len(judgements)} looks were judged, the facts tell of {len(frames)}")
    at = max(range(len(judgements)), key=lambda number: (judgements[number].score, -number))
    first_of_frame = frames.index(frames[at]) == at
    ground = None if len(set(frames)) == len(frames) else "white" if first_of_frame else "grey"
    evidence = judgements[at].evidence.model_copy(update={"frame": frames[at], "ground": ground})
    return replace(judgements[at], evidence=evidence)
