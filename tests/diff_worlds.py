"""
Verdicts for comparisons: one per event, decided as a test says, and two sides made of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from schemas.errors import ErrorCode
from schemas.judgement import AttributionV1
from schemas.verdict import Action, ImageVerdictV1, Mode
from tests.builders import NOON, a_failure_ruling, a_judgement, a_neighbour, an_upload, evidence, handled, versions
from tests.fused_builders import a_fused_judgement
from worker.diff.comparison import Comparison, compare
from worker.diff.joining import SideName, joined
from worker.domain import Judgement, Label, Provenance
from worker.errors import UploadFailed
from worker.stages.report import PolicyIdentity, verdict_of_failure, verdict_of_judgement

SOURCE: Final = "platform/uploads"
NAMESPACE: Final = UUID("7a4b1a5e-7b1f-5b7e-9d30-1d8f7c1f6a10")


@dataclass(frozen=True)
class Said:
    """
    What a verdict says, and of which event; ``decision`` is a label, ``uncertain`` or ``failed``.

    ``age_s`` makes it older than others on the same event; ``generator`` makes it a fused judgement.
    """

    event: str
    decision: str = "ai_generated"
    score: float = 0.93
    surface: str = "post"
    generator: str | None = None
    near: str | None = "flux"
    age_s: float = 0.0
    mode: Mode = "live"
    run_id: str | None = None
    policy: str = "7"
    offset: int = 0
    partition: int = 0


@cache
def verdict(said: Said) -> ImageVerdictV1:
    """
    The verdict that says so.
    """
    made_by = versions(
        mode=said.mode, run_id=said.run_id, policy=PolicyIdentity("default", said.policy, said.policy[0] * 64)
    )
    upload = an_upload()
    if said.decision == "failed":
        gone = UploadFailed(ErrorCode.DECODE_TRUNCATED, "JPEG ends early")
        ruling = replace(a_failure_ruling(), surface=said.surface)
        way = handled(facts=None, provenance=Provenance("not_reached"))
        made = verdict_of_failure(upload, gone, ruling=ruling, handled=way, versions=made_by).verdict
    else:
        judged = _judgement(said)
        made = verdict_of_judgement(upload, judged, surface=said.surface, handled=handled(), versions=made_by).verdict
    place = {"event_source": SOURCE, "event_id": said.event, "offset": said.offset, "partition": said.partition}
    produced = NOON - timedelta(seconds=said.age_s)
    return made.model_copy(
        update={
            "content_id": f"content-{said.event}",
            "verdict_id": uuid5(NAMESPACE, repr(said)),
            "input": made.input.model_copy(update=place),
            "timing": made.timing.model_copy(update={"produced_at": produced}),
        }
    )


def _judgement(said: Said) -> Judgement:
    abstained = said.decision == "uncertain"
    nearest = a_neighbour(1).model_copy(update={"generator": said.near, "entry_id": f"near:{said.near}"})
    changes = {
        "status": "abstained" if abstained else "decided",
        "label": None if abstained else Label(said.decision),
        "action": Action.REVIEW if abstained else Action.LABEL,
        "score": said.score,
        "evidence": evidence(nearest, a_neighbour(2, "real", "origins:00007")),
    }
    if said.generator is None:
        return a_judgement(**changes)
    attribution = AttributionV1(generator=said.generator, probability=0.8, posterior={said.generator: 0.8})
    return a_fused_judgement(**changes, probability=said.score, attribution=attribution)


def compared(
    a: Iterable[Said], b: Iterable[Said], *, tolerance: float = 0.0, within_b: bool = False, movers: int = 20
) -> Comparison:
    """
    The comparison of two sides.
    """
    sides: dict[SideName, Iterable[Said]] = {"a": a, "b": b}
    with joined() as store:
        for side, all_said in sides.items():
            for said in all_said:
                store.add(side, verdict(said))
        found = compare(store.pairs(within_b=within_b), ("A", "B"), tolerance=tolerance, most_movers=movers)
        found.versions = store.versions
    return found


def line(said: Said) -> bytes:
    """
    The verdict as a line of a file.
    """
    return verdict(said).model_dump_json(by_alias=True).encode() + b"\n"


def write_lines(path: Path, *all_said: Said) -> Path:
    """
    A file with one verdict per line.
    """
    path.write_bytes(b"".join(map(line, all_said)))
    return path
