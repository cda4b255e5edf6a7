"""
What the models promise beyond their types.
"""

import math

import pytest
from pydantic import ValidationError

from schemas.errors import ErrorClass, ErrorCode, Stage, class_of, stage_of
from schemas.handling import Timing
from schemas.uploaded import ImageUploadedV1
from schemas.verdict import Action, ImageVerdictV1, OutcomeV1, ScoreComponent
from tests.builders import NOON, a_judgement, an_upload, as_json, handled, upload_data, versions
from tests.fused_builders import a_fused_judgement
from tests.peers import assert_valid
from worker.stages.report import verdict_of_judgement


def _verdict() -> ImageVerdictV1:
    return verdict_of_judgement(
        an_upload(), a_judgement(), surface="post", handled=handled(), versions=versions()
    ).verdict


def _fused() -> ImageVerdictV1:
    return verdict_of_judgement(
        an_upload(), a_fused_judgement(), surface="post", handled=handled(), versions=versions()
    ).verdict


def _outcome(score: float) -> OutcomeV1:
    return OutcomeV1(
        status="decided", label="real", action=Action.ALLOW, score=score, probability=None, margin=0.5, reasons=()
    )


def test_numbers_have_six_significant_digits() -> None:
    """
    So that a replay differs from the live run only where the judgement does.
    """
    assert ScoreComponent(name="n", value=0.123456789, version="1").value == 0.123457
    assert ScoreComponent(name="n", value=123456789.0, version="1").value == 123457000.0


def test_a_share_that_is_one_but_for_rounding_is_one() -> None:
    """
    Floating point sums to 1 + 2e-16; that must not fail an upload.
    """
    assert _outcome(1.0000000000000002).score == 1.0
    with pytest.raises(ValidationError):
        _outcome(1.01)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_refused(value: float) -> None:
    """
    NaN would be written as null and read as something else.
    """
    with pytest.raises(ValidationError):
        ScoreComponent(name="n", value=value, version="1")
    with pytest.raises(ValidationError):
        _outcome(value)
    with pytest.raises(ValidationError):
        Timing(received_at=NOON, produced_at=NOON, event_age_ms=None, total_ms=value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evidence": None}, "has evidence and a score unless it failed"),
        ({"outcome": {"status": "abstained"}}, "has a label if and only if it is decided"),
        ({"outcome": {"label": None}}, "has a label if and only if it is decided"),
        ({"outcome": {"score": None}}, "has evidence and a score unless it failed"),
        ({"outcome": {"status": "failed"}}, "has an error if and only if it failed"),
        ({"outcome": {"decision": "uncertain"}}, "decision is 'uncertain', expected 'ai_generated'"),
        ({"outcome": {"probability": 0.5}}, "has a probability if and only if it has a calibration"),
    ],
)
def test_a_verdict_is_whole_or_is_not(changed: dict[str, object], message: str) -> None:
    """
    Status, label, score, evidence and error agree with one another.
    """
    document = _verdict().model_dump(by_alias=True)
    for name, part in changed.items():
        document[name] = {**document[name], **part} if isinstance(part, dict) else part

    with pytest.raises(ValidationError, match=message):
        ImageVerdictV1.model_validate(document)


def test_a_verdict_survives_json() -> None:
    """
    What is written can be read back with the same model and is the same.
    """
    verdict = _verdict()

    assert verdict == ImageVerdictV1.model_validate_json(verdict.model_dump_json(by_alias=True))


def test_a_fused_verdict_survives_json() -> None:
    """
    Calibration, attribution, evidence of heads and missing heads too.
    """
    verdict = _fused()
    read = ImageVerdictV1.model_validate_json(verdict.model_dump_json(by_alias=True))

    assert verdict == read
    assert (read.outcome.decision, read.missing_heads) == ("ai_generated", ("perturbation",))
    assert read.calibration is not None
    assert read.calibration.p_value == 0.00332
    assert [score.evidence for score in read.scores] == [None, None, 1.1, 2.4, 0.7]


def test_a_verdict_of_the_first_minor_version_is_still_read() -> None:
    """
    Without decision, calibration, attribution, missing heads, and who judged.
    """
    document = _verdict().model_dump(mode="json", by_alias=True)
    for part, names in (
        (document, ("calibration", "attribution", "missing_heads")),
        (document["outcome"], ("decision",)),
        (document["versions"]["bank"], ("judgement", "views")),
    ):
        for name in names:
            del part[name]

    assert ImageVerdictV1.model_validate(document).outcome.label == "ai_generated"


def test_a_rule_of_a_later_version_is_valid_to_a_peer() -> None:
    """
    The exported schema leaves the names of rules open, like every enumeration; our own model does not.
    """
    document = _fused().model_dump(mode="json", by_alias=True)
    document["thresholds"]["rule"] = "of_tomorrow"

    assert_valid("image.verdict.v1", document)
    with pytest.raises(ValidationError, match="rule"):
        ImageVerdictV1.model_validate(document)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("calibration", "p_value", 1.2),
        ("calibration", "alpha", 0.0),
        ("calibration", "base_rate", 1.0),
        ("attribution", "probability", -0.1),
    ],
)
def test_numbers_of_a_calibration_are_bounded(section: str, field: str, value: float) -> None:
    """
    A rate of 0 or 1 promises what no calibration can; a peer's validator says the same.
    """
    document = _fused().model_dump(mode="json", by_alias=True)
    document[section][field] = value

    with pytest.raises(ValidationError, match=field):
        ImageVerdictV1.model_validate(document)
    with pytest.raises(AssertionError):
        assert_valid("image.verdict.v1", document)


def test_a_misspelt_field_of_ours_is_an_error() -> None:
    """
    We never write a field that the contract does not have.
    """
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ScoreComponent.model_validate({"name": "n", "value": 1.0, "version": "1", "wieght": 1.0})


def test_an_unknown_field_of_a_newer_producer_is_ignored() -> None:
    """
    A producer may be newer than we are.
    """
    data = upload_data(of_tomorrow={"any": "thing"})

    assert ImageUploadedV1.model_validate_json(as_json(data)).content_id == "post-8843"


@pytest.mark.parametrize(
    "attributes", [{"a": "x" * 4090}, {"a": "\0" * 700}, {"a": "ä" * 2100}, {str(number): "" for number in range(33)}]
)
def test_attributes_are_bounded_by_what_they_take_in_a_verdict(attributes: dict[str, str]) -> None:
    """
    Escapes and UTF-8 count: 700 null characters are 4200 bytes of JSON.
    """
    with pytest.raises(ValidationError, match="attributes"):
        ImageUploadedV1.model_validate_json(as_json(upload_data(attributes=attributes)))


def test_each_code_has_one_class_and_one_stage() -> None:
    """
    A code without an entry would break the one verdict that needs it.
    """
    table = {code: (class_of(code), stage_of(code)) for code in ErrorCode}

    assert table[ErrorCode.EVENT_INVALID] == (ErrorClass.PERMANENT, Stage.PARSE)
    assert all(code.name == code.value for code in table)
