"""
Bytes that are no readable image, and will not be one tomorrow: which failures are known again, and what is said then.

Where they are kept is the cache's business; ``Kept`` and ``SingleFlight`` keep them within the process.
"""

from typing import Final

from schemas.errors import ErrorCode
from worker.errors import UploadFailed

LASTING: Final = frozenset({ErrorCode.FORMAT_UNSUPPORTED, ErrorCode.DECODE_FAILED, ErrorCode.DECODE_TRUNCATED})
"""
What the bytes alone decide, with the decoder's version and the accepted formats.

A time-out, a crash and lack of memory are not of them, for another moment may go otherwise; nor is a limit that an
operator may change (DECODE_BOMB).
"""


def known_failure(code: ErrorCode) -> UploadFailed:
    """
    The failure of an upload whose bytes have failed before: the same code, without what was found then.
    """
    return UploadFailed(code, "these very bytes were found to be no readable image before, and were not decoded again")
