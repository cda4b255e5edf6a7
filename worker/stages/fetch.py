"""
The first stage after reading an event: from an upload to its bytes, and who they are.

Where bytes lie and how they are read is not here; that is the image store's.
"""

from hashlib import sha256

from schemas.errors import ErrorCode
from schemas.uploaded import UploadedImage
from worker.domain import ContentHash, FetchedUpload, Upload
from worker.errors import UploadFailed
from worker.ports import Clock, ImageStore


def fetch_upload(upload: Upload, store: ImageStore, *, clock: Clock, max_image_bytes: int) -> FetchedUpload:
    """
    The upload with its bytes and their sha256, after everything that the event claims about them was checked.

    Blocks as long as the store does. Raises ``UploadFailed``: REF_EXPIRED and FETCH_TOO_LARGE before anything is read,
    FETCH_EMPTY and INTEGRITY_MISMATCH after, and whatever the store raises.
    """
    image = upload.data.image
    _refuse_unread(image, now_s=clock.wall_s(), max_image_bytes=max_image_bytes)
    started_s = clock.monotonic_s()
    data = store.read(image)
    fetch_ms = (clock.monotonic_s() - started_s) * 1000
    if not data:
        raise UploadFailed(ErrorCode.FETCH_EMPTY, "the reference leads to 0 bytes, want an image")
    found = sha256(data).hexdigest()
    if image.sha256 is not None and image.sha256 != found:
        raise UploadFailed(
            ErrorCode.INTEGRITY_MISMATCH, f"the event claims sha256 {image.sha256}, the {len(data)} bytes have {found}"
        )
    return FetchedUpload(upload=upload, data=data, content_hash=ContentHash(found), fetch_ms=fetch_ms)


def _refuse_unread(image: UploadedImage, *, now_s: float, max_image_bytes: int) -> None:
    if image.expires_at is not None and image.expires_at.timestamp() <= now_s:
        raise UploadFailed(
            ErrorCode.REF_EXPIRED, f"the reference expired at {image.expires_at.isoformat()}, before it could be read"
        )
    if image.byte_length is not None and image.byte_length > max_image_bytes:
        raise UploadFailed(
            ErrorCode.FETCH_TOO_LARGE,
            f"the event declares {image.byte_length} bytes, at most {max_image_bytes} are fetched",
        )
