"""
From an upload to its bytes: what is checked before reading, and what after.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from schemas.errors import ErrorCode
from schemas.uploaded import ImageUploadedV1, InlineRef, UploadedImage
from tests.fake_outcomes import NOON, ManualClock
from worker.domain import EventIdentity, Partition, RawEvent, Upload
from worker.errors import UploadFailed
from worker.stages.fetch import fetch_upload

IMAGE = b"an image, for all we know"


class OneImage:
    """
    A store that always reads the same bytes, and takes its time about it.
    """

    def __init__(self, data: bytes, clock: ManualClock, *, takes_s: float = 0.0) -> None:
        self.reads = 0
        self._data = data
        self._clock = clock
        self._takes_s = takes_s

    def read(self, image: UploadedImage) -> bytes:
        """
        The bytes.
        """
        self.reads += 1
        self._clock.now_s += self._takes_s
        return self._data


def an_upload(
    *, claimed: str | None = None, byte_length: int | None = None, expires_at: datetime | None = None
) -> Upload:
    """
    An upload with these claims about its image.
    """
    image = UploadedImage(
        ref=InlineRef(kind="inline", base64="AAAA"), sha256=claimed, byte_length=byte_length, expires_at=expires_at
    )
    return Upload(
        raw=RawEvent(Partition("image-uploads", 0), 0, b"key", b"{}"),
        identity=EventIdentity("1", "/test", None, "binary"),
        data=ImageUploadedV1(content_id="c-1", image=image),
    )


def test_bytes_get_their_hash_and_their_time() -> None:
    """
    The upload comes back with its bytes, their sha256, and how long the store took in milliseconds.
    """
    clock = ManualClock()
    upload = an_upload(claimed=sha256(IMAGE).hexdigest(), byte_length=3)
    fetched = fetch_upload(upload, OneImage(IMAGE, clock, takes_s=0.25), clock=clock, max_image_bytes=100)

    assert (fetched.upload, fetched.data) == (upload, IMAGE)
    assert fetched.content_hash == sha256(IMAGE).hexdigest()
    assert fetched.fetch_ms == 250.0


def test_other_bytes_than_claimed_are_refused() -> None:
    """
    When the event claims a hash and the bytes have another, both are told and nothing is judged.
    """
    clock = ManualClock()
    with pytest.raises(UploadFailed) as failed:
        fetch_upload(an_upload(claimed="0" * 64), OneImage(IMAGE, clock), clock=clock, max_image_bytes=100)

    assert failed.value.code is ErrorCode.INTEGRITY_MISMATCH
    assert sha256(IMAGE).hexdigest() in failed.value.detail
    assert "0" * 64 in failed.value.detail


def test_no_bytes_are_no_image() -> None:
    """
    An empty answer is a failure of its own.
    """
    clock = ManualClock()
    with pytest.raises(UploadFailed) as failed:
        fetch_upload(an_upload(), OneImage(b"", clock), clock=clock, max_image_bytes=100)

    assert failed.value.code is ErrorCode.FETCH_EMPTY


@pytest.mark.parametrize(
    ("upload", "code"),
    [
        (an_upload(expires_at=NOON), ErrorCode.REF_EXPIRED),
        (an_upload(expires_at=datetime(1, 1, 1, tzinfo=UTC)), ErrorCode.REF_EXPIRED),
        (an_upload(byte_length=101), ErrorCode.FETCH_TOO_LARGE),
    ],
    ids=["expires now", "expired long ago", "declared too large"],
)
def test_what_is_known_to_fail_is_not_read(upload: Upload, code: ErrorCode) -> None:
    """
    An expired reference and a declared size above the limit cost no fetch.
    """
    clock = ManualClock()
    store = OneImage(IMAGE, clock)
    with pytest.raises(UploadFailed) as failed:
        fetch_upload(upload, store, clock=clock, max_image_bytes=100)

    assert failed.value.code is code
    assert store.reads == 0


def test_a_reference_is_good_until_it_expires() -> None:
    """
    A moment before it expires, and at exactly the size limit, an upload is read.
    """
    clock = ManualClock()
    upload = an_upload(expires_at=NOON + timedelta(milliseconds=1), byte_length=100)

    assert fetch_upload(upload, OneImage(IMAGE, clock), clock=clock, max_image_bytes=100).data == IMAGE
