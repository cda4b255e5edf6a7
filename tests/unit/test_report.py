"""
Judgements and failures as verdicts.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import ErrorClass, ErrorCode, Stage
from schemas.verdict import Action, ImageVerdictV1
from tests.builders import (
    NOON,
    NOON_S,
    a_bank_identity,
    a_failure_ruling,
    a_fingerprint,
    a_judgement,
    an_abstention,
    an_upload,
    an_uploaded_image,
    facts,
    handled,
    thresholds,
    versions,
)
from tests.fused_builders import a_fused_judgement
from worker.domain import Judgement, Provenance, Upload
from worker.errors import UploadFailed
from worker.stages.report import (
    Handled,
    PolicyIdentity,
    RunVersions,
    facts_of_bytes,
    verdict_of_failure,
    verdict_of_judgement,
)

GONE = UploadFailed(ErrorCode.FETCH_NOT_FOUND, "cdn.example answered 404", http_status=404)
UNFETCHED = handled(facts=None, provenance=Provenance("not_reached"))


def _judged(
    judgement: Judgement | None = None,
    *,
    upload: Upload | None = None,
    surface: str = "post",
    way: Handled | None = None,
    run: RunVersions | None = None,
) -> ImageVerdictV1:
    issued = verdict_of_judgement(
        upload or an_upload(),
        judgement or a_judgement(),
        surface=surface,
        handled=way or handled(),
        versions=run or versions(),
    )
    return issued.verdict


def _failed(failure: UploadFailed = GONE, way: Handled = UNFETCHED, action: Action = Action.REVIEW) -> ImageVerdictV1:
    issued = verdict_of_failure(an_upload(), failure, ruling=a_failure_ruling(action), handled=way, versions=versions())
    return issued.verdict


def test_a_judgement_is_reported_as_it_was_made() -> None:
    """
    Label, action, numbers, reasons, thresholds, scores and evidence are the judgement's own.
    """
    judgement = a_judgement()
    verdict = _judged(judgement)
    outcome = verdict.outcome

    assert (outcome.status, outcome.label, outcome.action) == ("decided", "ai_generated", Action.LABEL)
    assert (outcome.score, outcome.margin, outcome.probability) == (0.93, 0.86, None)
    assert (outcome.reasons, verdict.thresholds) == (judgement.reasons, judgement.thresholds)
    assert (verdict.scores, verdict.evidence, verdict.error) == (judgement.scores, judgement.evidence, None)


def test_the_decision_is_the_label_or_uncertain_or_nothing() -> None:
    """
    Three ways for an upload that was looked at, none for one that was not.
    """
    decisions = [verdict.outcome.decision for verdict in (_judged(), _judged(an_abstention()), _failed())]

    assert decisions == ["ai_generated", "uncertain", None]


def test_what_a_fitted_judgement_found_is_reported_as_it_was() -> None:
    """
    Probability, calibration, attribution, missing heads, and the bank's judgement and views.
    """
    judgement = a_fused_judgement()
    verdict = _judged(judgement, run=versions(judgement="e1" * 32, views="f1" * 32), way=handled(assess_ms=9.5))
    bank = verdict.versions.bank

    assert (verdict.outcome.probability, verdict.calibration) == (0.97, judgement.calibration)
    assert (verdict.attribution, verdict.missing_heads) == (judgement.attribution, ("perturbation",))
    assert (bank.judgement, bank.views, verdict.timing.assess_ms) == ("e1" * 32, "f1" * 32, 9.5)


def test_the_upload_is_echoed() -> None:
    """
    Content, attributes, what was declared, and where the event lay.
    """
    upload = an_upload()
    issued = verdict_of_judgement(upload, a_judgement(), surface="post", handled=handled(), versions=versions())
    verdict = issued.verdict

    assert (verdict.content_id, verdict.revision, verdict.tenant_id) == ("post-8843", 2, "acme")
    assert verdict.attributes == {"post": "8843"}
    assert verdict.declared is not None
    assert verdict.declared.ai_disclosed is False
    assert verdict.content_created_at == datetime(2026, 11, 22, 11, 58, tzinfo=UTC)
    assert (verdict.input.topic, verdict.input.partition, verdict.input.offset) == ("image-uploads", 3, 991)
    assert (verdict.input.event_id, verdict.input.envelope) == ("01J9Z5-upload-8843", "binary")
    assert (issued.key, issued.identity) == (upload.key, upload.identity)


def test_every_version_is_stated() -> None:
    """
    Encoder, preprocessing, bank, policy with its surface, decoder, worker and contract.
    """
    stated = _judged(surface="avatar").versions

    assert (stated.schema_version, stated.worker, stated.decoder) == ("1.1", "0.1.0", {"pillow": "12.3.0"})
    assert (stated.encoder.fingerprint, stated.preprocess.sha256) == ("a4" * 32, "b1" * 32)
    assert (stated.bank.manifest_sha256, stated.bank.entries, stated.bank.index) == ("c1" * 32, 2400, "flat")
    assert (stated.policy.id, stated.policy.sha256, stated.policy.surface) == ("default", "d1" * 32, "avatar")


def test_the_same_bytes_again_are_the_same_decision_and_another_verdict() -> None:
    """
    A re-upload, or a cache hit, is another event about the same content.
    """
    first = an_upload()
    again = replace(first, identity=replace(first.identity, id="another"))
    hit = handled(provenance=Provenance("hit", "redis"))

    assert _judged(upload=first).decision_id == _judged(upload=again, way=hit).decision_id
    assert _judged(upload=first).verdict_id != _judged(upload=again, way=hit).verdict_id


def test_the_same_event_again_is_the_same_verdict() -> None:
    """
    However, whenever and wherever it is handled: duplicates collapse.
    """
    upload = an_upload()
    moved = replace(upload, raw=replace(upload.raw, offset=5, received_at_s=1.0))
    later = handled(produced_at_s=NOON_S + 60, provenance=Provenance("coalesced"))

    assert _judged(upload=upload).verdict_id == _judged(upload=moved, way=later).verdict_id


@pytest.mark.parametrize(
    "run",
    [
        versions(encoder=a_fingerprint(id="00" * 32)),
        versions(bank=a_bank_identity(manifest_sha256="00" * 32)),
        versions(bank=a_bank_identity(index="hnsw(m=32,ef=64)")),
        versions(policy=PolicyIdentity("default", "7", "00" * 32)),
    ],
    ids=["encoder", "bank", "index", "policy"],
)
def test_other_versions_are_another_verdict_and_another_decision(run: RunVersions) -> None:
    """
    What a judgement depends on is in both ids.
    """
    assert _judged().verdict_id != _judged(run=run).verdict_id
    assert _judged().decision_id != _judged(run=run).decision_id


def test_a_replay_is_another_verdict_of_the_same_decision() -> None:
    """
    So that it can be compared with the live one, and is never taken for it.
    """
    replay = _judged(run=versions(mode="replay", run_id="r1"))

    assert (replay.mode, replay.run_id) == ("replay", "r1")
    assert replay.verdict_id != _judged().verdict_id
    assert replay.decision_id == _judged().decision_id


def test_another_surface_is_another_decision() -> None:
    """
    Thresholds differ between surfaces, so the answer may.
    """
    assert _judged(surface="avatar").decision_id != _judged(surface="post").decision_id


@pytest.mark.parametrize(("action", "expected"), [(action, action is Action.REVIEW) for action in Action])
def test_a_person_must_look_where_the_policy_recommends_a_review(action: Action, *, expected: bool) -> None:
    """
    And only there, whatever the status: the policy says what an abstention or a failure is worth.
    """
    abstained = replace(an_abstention(), action=action)

    assert _judged(abstained).audit.human_review_required is expected
    assert _failed(action=action).audit.human_review_required is expected


def test_an_abstention_has_evidence_and_no_label() -> None:
    """
    The model looked and could not tell.
    """
    verdict = _judged(an_abstention())

    assert (verdict.outcome.status, verdict.outcome.label, verdict.outcome.score) == ("abstained", None, 0.58)
    assert verdict.evidence is not None


def test_a_failure_states_its_error_and_the_thresholds_all_the_same() -> None:
    """
    No label, no score, no evidence, no image where there were no bytes; code, class, stage and status.
    """
    verdict = _failed()

    assert (verdict.outcome.status, verdict.outcome.label, verdict.outcome.score) == ("failed", None, None)
    assert (verdict.evidence, verdict.image, verdict.scores) == (None, None, ())
    assert verdict.thresholds == thresholds()
    assert verdict.error is not None
    assert (verdict.error.code, verdict.error.error_class) == (ErrorCode.FETCH_NOT_FOUND, ErrorClass.PERMANENT)
    assert (verdict.error.stage, verdict.error.http_status) == (Stage.FETCH, 404)
    assert verdict.error.retryable is False
    assert verdict.cache.status == "not_reached"


def test_only_what_time_can_mend_is_retryable() -> None:
    """
    A time-out is, a bomb is not; a stage that is better known than the code's own is kept.
    """
    slow = _failed(UploadFailed(ErrorCode.FETCH_TIMEOUT, "no answer in 5 s")).error
    internal = _failed(UploadFailed(ErrorCode.INTERNAL, "unexpected KeyError", stage=Stage.MATCH)).error

    assert slow is not None
    assert internal is not None
    assert (slow.retryable, internal.retryable, internal.stage) == (True, False, Stage.MATCH)


def test_a_failure_with_bytes_says_whose_and_is_its_own_decision() -> None:
    """
    Hash and length are known of what was fetched; the decision is neither the code's nor the bytes'.
    """
    torn = UploadFailed(ErrorCode.DECODE_TRUNCATED, "JPEG ends early")
    way = handled(facts=facts_of_bytes(facts().sha256, 4096))
    verdict = _failed(torn, way)

    assert verdict.image is not None
    assert (verdict.image.sha256, verdict.image.byte_length, verdict.image.format) == (facts().sha256, 4096, None)
    assert len({verdict.decision_id, _failed(torn).decision_id, _judged().decision_id}) == 3


def test_a_detail_that_is_no_text_is_mended() -> None:
    """
    A file's name may hold bytes that are no text; the failure must still be told.
    """
    verdict = _failed(UploadFailed(ErrorCode.FETCH_NOT_FOUND, "no file 'a\udcff'"))

    assert verdict.error is not None
    assert verdict.error.detail == "no file 'a?'"


def test_times_are_those_of_the_upload() -> None:
    """
    Age since the event's own time, total since it was received, the stages as they were measured.
    """
    timing = _judged().timing

    assert (timing.produced_at, timing.received_at) == (NOON, NOON - timedelta(milliseconds=250))
    assert (timing.event_age_ms, timing.total_ms) == (1000.0, 250.0)
    assert (timing.fetch_ms, timing.decode_ms, timing.encode_ms, timing.search_ms) == (41.0, 6.5, 48.0, 1.5)
    assert timing.batch_size == 16


def test_an_event_without_a_time_has_the_age_of_its_record() -> None:
    """
    Kafka's own time stamp is the next best; without either, the age is unknown.
    """
    upload = an_upload()
    timeless = replace(upload, identity=replace(upload.identity, time=None))
    nothing = replace(timeless, raw=replace(upload.raw, timestamp_ms=None))

    assert _judged(upload=timeless).timing.event_age_ms == 400.0
    assert _judged(upload=nothing).timing.event_age_ms is None


def test_a_clock_that_was_set_back_costs_no_verdict() -> None:
    """
    What seems to come from the future is 0 ms old.
    """
    timing = _judged(way=handled(produced_at_s=NOON_S - 3600)).timing

    assert (timing.event_age_ms, timing.total_ms) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("claim", "mismatch"),
    [
        ("image/jpeg", False),
        ("IMAGE/JPG; q=1", False),
        ("image/png", True),
        ("text/html", True),
        ("application/octet-stream", False),
        (None, False),
    ],
)
def test_a_claimed_type_is_held_against_the_content(claim: str | None, *, mismatch: bool) -> None:
    """
    Of this upload's own claim: facts from the cache were gathered under another's.
    """
    upload = replace(an_upload(), data=an_uploaded_image(media_type=claim))
    cached = handled(facts=facts(media_type_mismatch=True))
    image = _judged(upload=upload, way=cached).image

    assert image is not None
    assert image.media_type_mismatch is mismatch
