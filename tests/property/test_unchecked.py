"""
What is put into a verdict without validation is what validation would have made of it.
"""

import math

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.handling import Timing
from schemas.verdict import Evidence, LabelEvidence, NeighbourV1, ScoreComponent
from tests.bank_builders import a_neighbourhood, sha
from tests.builders import NOON_S, a_judgement, an_upload, facts, handled, versions
from tests.loop_rig import shipped_policy
from worker.domain import Label, Provenance
from worker.stages.decide import Terms, decide
from worker.stages.report import verdict_of_judgement

COSINES = st.floats(-1, 1, allow_subnormal=False)
DURATIONS = st.none() | st.floats(0, 1e9)


@given(st.lists(COSINES, min_size=1, max_size=24), st.lists(COSINES, max_size=24), st.booleans())
def test_evidence_and_scores_are_as_validated(real: list[float], generated: list[float], exact: bool) -> None:
    """
    Whatever lies near: as values, in the order of their fields, and as JSON.
    """
    found = a_neighbourhood({"real": real, "ai_generated": generated}, {"real": 900, "ai_generated": 400})
    policy = shipped_policy()
    terms = Terms(policy.rule, policy.for_surface(None)[1], Label("ai_generated"))
    content = sha("real-0") if exact else sha("another")
    judgement = decide(found, facts(sha256=content), terms=terms)
    evidence = judgement.evidence

    assert_as_validated(Evidence, evidence)
    for neighbour in evidence.neighbours:
        assert_as_validated(NeighbourV1, neighbour)
    for label in evidence.per_label.values():
        assert_as_validated(LabelEvidence, label)
    for score in judgement.scores:
        assert_as_validated(ScoreComponent, score)


@given(st.lists(DURATIONS, min_size=5, max_size=5), st.none() | st.integers(1, 64), st.floats(-1e6, 1e6))
def test_timing_is_as_validated(durations_ms: list[float | None], batch_size: int | None, later_s: float) -> None:
    """
    Whatever was measured, and whatever the clocks say.
    """
    fetch_ms, decode_ms, encode_ms, search_ms, assess_ms = durations_ms
    how = handled(
        provenance=Provenance("miss", None, decode_ms, encode_ms, batch_size),
        produced_at_s=NOON_S + later_s,
        fetch_ms=fetch_ms,
        search_ms=search_ms,
        assess_ms=assess_ms,
    )
    issued = verdict_of_judgement(an_upload(), a_judgement(), surface="post", handled=how, versions=versions())

    assert_as_validated(Timing, issued.verdict.timing)
    assert not math.isnan(issued.verdict.timing.total_ms)


def assert_as_validated(model: type[BaseModel], made: BaseModel) -> None:
    """
    That a model of the same fields, validated one by one, cannot be told from it.
    """
    fields = {name: getattr(made, name) for name in model.model_fields}
    validated = model.model_validate(model.model_validate(fields).model_dump())

    assert list(made.__dict__) == list(model.model_fields)
    assert {name: type(value) for name, value in validated.__dict__.items()} == {
        name: type(value) for name, value in made.__dict__.items()
    }
    assert validated == made
    assert validated.model_dump_json() == made.model_dump_json()
