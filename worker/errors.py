"""
The ways in which Touchstone refuses or fails.

An upload that cannot be judged is no exception outside its stage: it ends as an `UploadFailed` that becomes a failed
verdict. Everything else in this file ends the process, each with an exit code of its own.
"""

from schemas.errors import ErrorCode, Stage, stage_of
from worker.redaction import redact_text

EXIT_OK = 0
EXIT_FOUND = 1
EXIT_USAGE = 2
EXIT_CANNOT_START = 3
EXIT_CRASHED = 4
EXIT_STORM = 5

MAX_DETAIL_CHARS = 512


class TouchstoneError(Exception):
    """
    Something an operator must read: the message says what was found, what was expected and what to do next.
    """

    exit_code = EXIT_CRASHED


class ConfigInvalid(TouchstoneError):
    """
    The configuration, the policy or the command line does not say what it must.
    """

    exit_code = EXIT_USAGE


class CannotStart(TouchstoneError):
    """
    The configuration is well formed, but what it names is not there or does not fit together.
    """

    exit_code = EXIT_CANNOT_START


class BankInvalid(CannotStart):
    """
    A bank directory is incomplete, damaged, or was not made for this encoder.
    """


class ReadFault(CannotStart):
    """
    A file could not be read at this moment: nothing is known of what is in it, and trying again may help.
    """


class EncoderInvalid(CannotStart):
    """
    Weights, architecture or preprocessing are not what the configuration declared.
    """


class WorkerCrashed(TouchstoneError):
    """
    A thread died or a dependency broke while the worker ran; nothing unfinished was committed.
    """


class DeadLetterStorm(TouchstoneError):
    """
    So much went wrong that something is wrong with all of it; the message says what is neither published nor committed.
    """

    exit_code = EXIT_STORM


class PublishFailed(WorkerCrashed):
    """
    The broker did not acknowledge an outcome; its event stays uncommitted and is read again.
    """


class ProducerFenced(WorkerCrashed):
    """
    Another worker took over this worker's transactional id; going on could publish twice.
    """


class ArchiveUnavailable(WorkerCrashed):
    """
    The kept embeddings cannot be read or written; a replay ends with it, and a live worker counts it and goes on.
    """


class StoreUnavailable(WorkerCrashed):
    """
    Redis could not be asked to forget, or which bytes a content had; nothing is known to be removed.
    """


class NotForgotten(TouchstoneError):
    """
    What was to be forgotten is not gone everywhere; the message says from where it could not be removed.
    """

    exit_code = EXIT_FOUND


class UploadFailed(Exception):
    """
    One upload cannot be judged, for the stated reason; it becomes a failed verdict.

    ``code`` is stable and part of the contract. ``detail`` is for people: at most 512 characters, redacted here, for it
    may quote what others wrote. ``stage`` is the code's own unless something better is known. ``retry_after_s`` is how
    long whoever refused asked us to wait.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        stage: Stage | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        # Redacted before it is cut: of an address that was cut off one cannot tell what was secret.
        self.detail = redact_text(detail)[:MAX_DETAIL_CHARS]
        super().__init__(f"{code}: {self.detail}")
        self.code = code
        self.stage = stage if stage is not None else stage_of(code)
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class EventUnreadable(Exception):
    """
    A record of the upload topic is no upload event; it becomes a dead letter. ``detail`` is as that of `UploadFailed`.
    """

    def __init__(self, code: ErrorCode, detail: str) -> None:
        self.detail = redact_text(detail)[:MAX_DETAIL_CHARS]
        super().__init__(f"{code}: {self.detail}")
        self.code = code
