"""
Image bytes that travel within the event, as base64.
"""

from binascii import Error, a2b_base64

from schemas.errors import ErrorCode
from schemas.uploaded import InlineRef
from worker.errors import UploadFailed


class InlineStore:
    """
    Reads what the event itself carries; nothing is asked.
    """

    def read(self, ref: InlineRef) -> bytes:
        """
        The bytes that the base64 text stands for.

        Strict (RFC 4648 §4): no line breaks, no URL-safe alphabet, padding as it must be. Raises ``UploadFailed``
        (EVENT_INVALID).
        """
        try:
            data = a2b_base64(ref.base64, strict_mode=True)
        except (Error, ValueError) as error:  # ValueError: not even ASCII
            raise _no_base64(str(error)) from error
        if len(ref.base64) != (len(data) + 2) // 3 * 4:  # the strict mode of some releases of Python lets this pass
            raise _no_base64("Excess padding")
        return data


def _no_base64(problem: str) -> UploadFailed:
    return UploadFailed(
        ErrorCode.EVENT_INVALID, f"image.ref.base64 is no strict base64 ({problem}); see RFC 4648, section 4"
    )
