"""
Where the bound on false positives is to hold, as a verdict says it: the guarantee, and the source that stood against.
"""

from typing import Any

import pytest

from schemas.verdict import ImageFacts
from tests.bank_builders import GENERATED, a_neighbourhood, sha
from tests.evaluation_parts import SURFACE
from tests.scripted_judgement import an_assessed
from worker.domain import Judgement
from worker.policy import Rule
from worker.stages.assess import Assessed
from worker.stages.decide import Terms, decide

FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)
NEIGHBOURHOOD = a_neighbourhood({"real": [0.9, 0.8], "ai_generated": [0.3, 0.2]})


def judged(assessed: Assessed, **rule: Any) -> Judgement:  # noqa: ANN401 - a field of the rule
    """
    The judgement under rule ``fused``.
    """
    return decide(NEIGHBOURHOOD, FACTS, terms=Terms(Rule(**rule), SURFACE, GENERATED), assessed=assessed)


def test_the_calibration_states_where_the_bound_holds() -> None:
    """
    The policy's guarantee, and among how many sources of reals this picture was ranked one by one.
    """
    each = judged(an_assessed(sources=4)).calibration
    pooled = judged(an_assessed(), guarantee="pooled").calibration

    assert each is not None
    assert pooled is not None
    assert [("each_source", 4), ("pooled", 0)] == [(one.guarantee, one.sources) for one in (each, pooled)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p_value": 0.3}, "p-value 0.3 among the reals of studio scans, wanted at most 0.05"),
        ({"p_value": 0.01, "log_odds": -1.0}, "p-value 0.01 among the reals of studio scans, wanted above 0.05"),
        ({"p_value": 0.01}, "p-value 0.01 among the reals of studio scans, at most 0.05"),
    ],
)
def test_the_reasons_name_the_source_of_reals_that_looks_most_like_it(changes: dict[str, float], said: str) -> None:
    """
    Where the p-value is that of one source, and larger than among all; a long name is cut short.
    """
    named = judged(an_assessed(**changes, source="studio scans")).reasons[0].message
    long = judged(an_assessed(**changes, source="s" * 256)).reasons[0].message
    among_all = judged(an_assessed(**changes)).reasons[0].message

    assert said in named
    assert "s" * 64 + "..." in long
    assert "among the reals of" not in among_all
