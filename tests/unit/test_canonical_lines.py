"""
The canonical lines: one per released batch, one per failure, and nothing of a user in any of them.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import pytest

from schemas.dead_letter import DeadLetterError, ImageDeadLetterV1, Original
from schemas.errors import ErrorClass, ErrorCode, Stage, class_of
from schemas.handling import Audit, ErrorV1, Timing
from schemas.verdict import (
    Action,
    CacheProvenance,
    Evidence,
    ImageVerdictV1,
    Input,
    OutcomeV1,
    Thresholds,
)
from schemas.versions import BankVersion, EncoderVersion, PolicyVersion, PreprocessVersion, Versions
from tests.recorded_log import lines_of, log_undone
from worker.domain import EventIdentity, Partition
from worker.outcomes import DeadLettered, Message, Release, VerdictIssued
from worker.settings.tree import LogSettings
from worker.telemetry.log import configure_logging, log_batch_released, log_dead_letter, log_upload_failed

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONTENT_ID = "user-4711-holiday"
# printf %s user-4711-holiday | sha256sum | cut -c 1-12
CONTENT_ID_HASH = "6ef52fd46425"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """
    A log in JSON, and where it goes.
    """
    stream = io.StringIO()
    with log_undone():
        configure_logging(LogSettings(format="json", level="debug"), stream=stream)
        yield stream


def a_verdict(
    status: Literal["decided", "abstained", "failed"],
    *,
    offset: int = 7,
    code: ErrorCode = ErrorCode.FETCH_DENIED,
    bank: str = "a" * 64,
) -> VerdictIssued:
    """
    A verdict of that status, with something of a user wherever there may be.
    """
    error = ErrorV1(
        code=code,
        error_class=class_of(code),
        retryable=False,
        stage=Stage.FETCH,
        detail="403 from https://cdn.example/a.jpg?X-Amz-Signature=USERDATA",
        http_status=403,
    )
    failed = status == "failed"
    verdict = ImageVerdictV1(
        verdict_id=UUID(int=1),
        decision_id=UUID(int=2),
        mode="live",
        content_id=CONTENT_ID,
        revision=0,
        tenant_id="USERDATA",
        attributes={"mail": "USERDATA"},
        input=Input(
            topic="uploads",
            partition=3,
            offset=offset,
            event_id="event-1",
            event_source="/test",
            event_time=None,
            envelope="binary",
        ),
        outcome=OutcomeV1(
            status=status,
            label="real" if status == "decided" else None,
            action=Action.NONE,
            score=None if failed else 0.5,
            probability=None,
            margin=None,
            reasons=(),
        ),
        thresholds=Thresholds(rule="soft_vote", labels={}, min_margin=0.1, min_similarity=0.1, k=1, temperature=0.1),
        scores=(),
        evidence=None if failed else Evidence(voted=0, coverage=0.5, neighbours=(), per_label={}),
        image=None,
        versions=some_versions(bank),
        cache=CacheProvenance(status="miss"),
        timing=Timing(received_at=NOON, produced_at=NOON, event_age_ms=None, total_ms=1.0),
        error=error if failed else None,
        audit=Audit(human_review_required=False),
    )
    return VerdictIssued(b"key", EventIdentity("event-1", "/test", None, "binary"), verdict)


def some_versions(bank: str) -> Versions:
    """
    Versions with ids that one can tell apart.
    """
    return Versions(
        schema_version="1.0",
        worker="0",
        encoder=EncoderVersion(
            model="m",
            architecture_sha256="0" * 64,
            weights_sha256="1" * 64,
            precision="fp32",
            dim=8,
            fingerprint="e" * 64,
        ),
        preprocess=PreprocessVersion(sha256="2" * 64, size=224),
        bank=BankVersion(id="faces", version="1", manifest_sha256=bank, entries=10, index="flat"),
        policy=PolicyVersion(id="default", version="1", sha256="b" * 64, surface="post"),
        decoder={},
    )


def a_dead_letter(offset: int = 9) -> DeadLettered:
    """
    A record that was no event, with a picture in it.
    """
    letter = ImageDeadLetterV1(
        error=DeadLetterError(
            code=ErrorCode.EVENT_INVALID,
            error_class=ErrorClass.PERMANENT,
            stage=Stage.PARSE,
            detail="image.ref.url: found https://u:USERDATA@cdn.example/a.jpg, expected https",
        ),
        original=Original(
            topic="uploads",
            partition=3,
            offset=offset,
            timestamp_ms=None,
            key_base64=None,
            value_base64="USERDATA",
            headers=(),
        ),
        event_id="event-2",
        content_id=CONTENT_ID,
        failed_at=NOON,
        schema_version="1.0",
        worker="0",
    )
    return DeadLettered(None, letter)


def a_release(number: int, offset: int) -> Release:
    """
    A message that leaves, with something of a user in it.
    """
    return Release(Partition("uploads", number), offset, Message("verdicts", b"key", b"USERDATA", (), 0))


def test_a_released_batch_is_one_canonical_line(stream: io.StringIO) -> None:
    """
    Counts by outcome, first and last offset of each partition, the age of the oldest, the versions in short, and more.
    """
    log_batch_released(
        [a_release(3, 7), a_release(3, 8), a_release(0, 5), a_release(3, 9)],
        [a_verdict("decided"), a_verdict("abstained", offset=8), a_verdict("failed", offset=5), a_dead_letter()],
        now_s=NOON.timestamp() + 1.25,
        in_flight=12,
    )
    (line,) = lines_of(stream)
    for key in ("ts", "level", "service", "version"):
        del line[key]

    expected = {
        "event": "batch.released",
        "releases": 4,
        "decided": 1,
        "abstained": 1,
        "failed": 1,
        "dead_letters": 1,
        "deferred": 0,
        "partitions": {"uploads-0": [5, 5], "uploads-3": [7, 9]},
        "oldest_age_ms": 1250.0,
        "bank": "faces@aaaaaaaaaaaa",
        "policy": "default@bbbbbbbbbbbb",
        "encoder": "eeeeeeeeeeee",
        "in_flight": 12,
    }
    assert expected == line


def test_a_batch_across_two_banks_names_both(stream: io.StringIO) -> None:
    """
    While a bank is replaced, one batch may hold verdicts of both.
    """
    outcomes = [a_verdict("decided", bank="d" * 64), a_verdict("decided", bank="c" * 64)]
    log_batch_released([a_release(0, 0), a_release(0, 1)], outcomes)

    assert lines_of(stream)[0]["bank"] == "faces@cccccccccccc,faces@dddddddddddd"


def test_a_batch_of_dead_letters_has_no_versions(stream: io.StringIO) -> None:
    """
    What was never judged has neither versions nor an age.
    """
    log_batch_released([a_release(0, 9)], [a_dead_letter()])
    (line,) = lines_of(stream)

    assert [line[key] for key in ("bank", "policy", "encoder", "oldest_age_ms")] == [None] * 4
    assert line["dead_letters"] == 1


def test_the_age_is_counted_by_the_wall_clock_unless_given(stream: io.StringIO) -> None:
    """
    Without ``now_s``, it is now.
    """
    log_batch_released([a_release(0, 0)], [a_verdict("decided")])
    age_ms = (datetime.now(UTC) - NOON).total_seconds() * 1000

    assert lines_of(stream)[0]["oldest_age_ms"] == pytest.approx(age_ms, abs=60_000)


def test_a_failed_upload_is_one_canonical_line(stream: io.StringIO) -> None:
    """
    Where it lay, why it failed, and nothing of its user: the asset's id as a hash, the address without its signature.
    """
    log_upload_failed(a_verdict("failed"), trace_id="ab" * 16)
    (line,) = lines_of(stream)
    for key in ("ts", "service", "version"):
        del line[key]

    expected = {
        "event": "upload.failed",
        "level": "warning",
        "topic": "uploads",
        "partition": 3,
        "offset": 7,
        "event_id": "event-1",
        "content_id_hash": CONTENT_ID_HASH,
        "code": "FETCH_DENIED",
        "class": "permanent",
        "stage": "fetch",
        "detail": "403 from https://cdn.example/a.jpg",
        "http_status": 403,
        "attempts": 1,
        "dead_letter": False,
        "trace_id": "ab" * 16,
    }
    assert expected == line


def test_a_failure_of_ours_is_an_error(stream: io.StringIO) -> None:
    """
    Only an internal failure asks for one of us.
    """
    log_upload_failed(a_verdict("failed", code=ErrorCode.INTERNAL))

    assert lines_of(stream)[0]["level"] == "error"


@pytest.mark.parametrize("status", ["decided", "abstained"])
def test_an_upload_that_was_judged_has_no_line(stream: io.StringIO, status: Literal["decided", "abstained"]) -> None:
    """
    The line of the batch counts it.
    """
    log_upload_failed(a_verdict(status))

    assert stream.getvalue() == ""


def test_a_dead_letter_is_one_canonical_line(stream: io.StringIO) -> None:
    """
    Where it lay and why it could not be read; its bytes are in the topic of dead letters, not here.
    """
    log_dead_letter(a_dead_letter(), trace_id="ab" * 16)
    (line,) = lines_of(stream)
    for key in ("ts", "service", "version"):
        del line[key]

    expected = {
        "event": "event.dead_lettered",
        "level": "warning",
        "topic": "uploads",
        "partition": 3,
        "offset": 9,
        "event_id": "event-2",
        "content_id_hash": CONTENT_ID_HASH,
        "code": "EVENT_INVALID",
        "class": "permanent",
        "stage": "parse",
        "detail": "image.ref.url: found https://cdn.example/a.jpg, expected https",
        "trace_id": "ab" * 16,
    }
    assert expected == line


def test_no_canonical_line_holds_anything_of_a_user(stream: io.StringIO) -> None:
    """
    Attributes, tenants, asset ids, messages and original bytes stay out of every line.
    """
    log_batch_released([a_release(3, 7)], [a_verdict("failed"), a_dead_letter()])
    log_upload_failed(a_verdict("failed"))
    log_dead_letter(a_dead_letter())

    assert len(lines_of(stream)) == 3
    assert "USERDATA" not in stream.getvalue()
    assert CONTENT_ID not in stream.getvalue()
