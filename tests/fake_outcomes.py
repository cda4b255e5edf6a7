"""
A clock that stands still, and an outcome where any will do.
"""

from datetime import UTC, datetime

from schemas.dead_letter import DeadLetterError, ImageDeadLetterV1, Original
from schemas.errors import ErrorClass, ErrorCode, Stage
from worker.outcomes import DeadLettered, Outcome

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class ManualClock:
    """
    Time moves when a test says so.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        """
        The test's own time.
        """
        return self.now_s

    def wall_s(self) -> float:
        """
        Noon, plus the test's own time.
        """
        return NOON.timestamp() + self.now_s


def an_outcome() -> Outcome:
    """
    Some dead letter.
    """
    error = DeadLetterError(
        code=ErrorCode.EVENT_EMPTY, error_class=ErrorClass.PERMANENT, stage=Stage.PARSE, detail="empty"
    )
    original = Original(
        topic="uploads", partition=0, offset=0, timestamp_ms=None, key_base64=None, value_base64=None, headers=()
    )
    letter = ImageDeadLetterV1(
        error=error,
        original=original,
        event_id=None,
        content_id=None,
        failed_at=NOON,
        schema_version="1.0",
        worker="0",
    )
    return DeadLettered(None, letter)
