"""
What may be said of an address, a text or a value where others read it.
"""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from schemas.errors import ErrorCode
from worker.domain import Partition, RawEvent
from worker.errors import UploadFailed
from worker.redaction import MAX_TEXT_CHARS, mask_url, one_line, redact_text, redact_url
from worker.telemetry.redaction import plain


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://cdn.example/a/b.jpg?X-Amz-Signature=SECRET&x=1#SECRET", "https://cdn.example/a/b.jpg"),
        ("https://user:SECRET@cdn.example:8443/a.jpg", "https://cdn.example:8443/a.jpg"),
        ("https://cdn.example/a.jpg", "https://cdn.example/a.jpg"),
        ("HTTPS://CDN.example/a@b.jpg", "https://CDN.example/a@b.jpg"),
        ("s3://bucket/key with space?versionId=SECRET", "s3://bucket/key with space"),
        ("redis://:SECRET@[::1]:6379/0", "redis://[::1]:6379/0"),
        ("https://[SECRET/", "<unreadable url>"),
        ("redis://:SE/CRET@cache:6379/0", "redis://***@cache:6379/0"),
        ("https://user:SE?CRET@cache/a", "https://***"),
        ("user:SECRET@cache:6379/0", "***@cache:6379/0"),
        ("https%3A%2F%2Fcdn.example%2Fa%3Fsig%3DSECRET", "https://cdn.example/a"),
        ("data:image/png;base64,SECRET", "data:image/png"),
        ("DATA:,SECRET", "DATA:"),
        ("/path?SECRET", "/path"),
        ("file:///srv/a.jpg#SECRET", "file:///srv/a.jpg"),
    ],
)
def test_a_url_keeps_host_and_path_only(url: str, said: str) -> None:
    """
    Userinfo, query and fragment go; where the image was stays.
    """
    assert said == redact_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:SECRET@cache:6380/2", "rediss://***@cache:6380/2"),
        ("redis://:SE/CR?ET#@cache:6380/2", "redis://***@cache:6380/2"),
        ("redis://cache/0?password=SECRET", "redis://cache/0?***"),
        ("redis://cache/0?name=a@b&password=SECRET", "redis://***@b?***"),
        ("unix:///run/redis.sock?password=SECRET", "unix:///run/redis.sock?***"),
        ("SECRET", "***"),
    ],
)
def test_an_operator_sees_where_a_secret_address_leads(url: str, shown: str) -> None:
    """
    Host, port and database are shown; that something was hidden is shown too.
    """
    assert shown == mask_url(url)


def test_urls_inside_a_text_are_redacted() -> None:
    """
    An exception's message that quotes two addresses keeps its words.
    """
    text = "GET https://a.example/x?sig=SECRET failed after redirect from http://u:SECRET@b.example/y (403)"

    said = "GET https://a.example/x failed after redirect from http://b.example/y (403)"
    assert said == redact_text(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no redis://:SE/CRET@cache:6379/0 there", "no redis://***@cache:6379/0 there"),
        ("no redis://user:SE CRET@cache/0 there", "no redis://cache/0 there"),
        ("found 'https://user:SECRET/x…", "found 'https://***"),
        ("GET /a.jpg?X-Amz-Signature=SECRET HTTP/1.1", "GET /a.jpg?*** HTTP/1.1"),
        ("https://h/a b?sig=SECRET", "https://h/a b?***"),
        ("...&Expires=9&Signature=SECRET... was cut", "...&Expires=9&Signature=*** was cut"),
        ("Ühttps://h/a?SECRET 1https://h/a?SECRET", "Ühttps://h/a 1https://h/a"),
        ("/fetch?url=https%253A%252F%252Fh%252Fa%253Fsig%253DSECRET", "/fetch?***"),
        ("https%3A%2F%2Fu%3ASECRET%40h%2Fa%3Fsig%3DSECRET", "https://h/a"),
        ('{"a":"https://h.example/x","b":"https://u:SECRET@k/y"}', '{"a":"https://h.example/x","b":"https://k/y"}'),
        ("https://h/a%2Fb.jpg at offset 5: 100% done", "https://h/a%2Fb.jpg at offset 5: 100% done"),
        ("no http://localhost:8080: refused", "no http://localhost:8080: refused"),
    ],
)
def test_what_an_address_looks_like_in_a_text(text: str, said: str) -> None:
    """
    With a password that should have been encoded, without a scheme, cut off, encoded or beside another address.
    """
    assert said == redact_text(text)


def test_encoded_bytes_inside_a_text_are_replaced_by_their_length() -> None:
    """
    Base64 of an image is no text, whatever it is wrapped in.
    """
    assert redact_text(f'{{"base64": "{"iVBORw0KGgo" * 100}=="}}') == '{"base64": "<1102 encoded characters>"}'


def test_a_long_text_keeps_its_ends() -> None:
    """
    The first and the last words of an endless text are those that tell most.
    """
    text = redact_text("begin " + "word " * 100_000 + "end")

    assert len(text) < MAX_TEXT_CHARS + 50
    assert (text[:6], text[-4:]) == ("begin ", " end")


def test_a_text_cannot_forge_a_line_or_steer_a_terminal() -> None:
    """
    Line breaks and escape sequences of a producer arrive as what they are.
    """
    text = "name\n\x1b[2J{}\u2028\x9b"

    assert one_line(text) == r"name\n\x1b[2J{}\u2028\x9b"
    assert one_line("a\nb\x1b", keep_newlines=True) == "a\nb\\x1b"


def test_values_become_plain() -> None:
    """
    What JSON knows passes; bytes are counted; everything foreign is named by its type alone.
    """
    event = RawEvent(Partition("uploads", 0), 1, b"key", b"\xff\xd8 picture")
    given: dict[str, object] = {
        "bytes": b"123",
        "buffer": memoryview(np.zeros((2, 3), np.float32).data),
        "event": event,
        "pixels": np.zeros((2, 2, 3), np.uint8),
        "float32": np.float32(0.5),
        "int64": np.int64(7),
        "nan": float("nan"),
        "flag": True,
        "none": None,
        "code": ErrorCode.FETCH_DENIED,
        "path": Path("/srv/a.jpg"),
        "id": UUID(int=1),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "fault": UploadFailed(ErrorCode.FETCH_DENIED, "https://h/p?SECRET"),
        "deep": {"a": ({b"x"}, ["https://u:SECRET@h/"])},
    }

    expected = {
        "bytes": "<3 bytes>",
        "buffer": "<24 bytes>",
        "event": "<RawEvent>",
        "pixels": "<ndarray>",
        "float32": 0.5,
        "int64": 7,
        "nan": "nan",
        "flag": True,
        "none": None,
        "code": "FETCH_DENIED",
        "path": "/srv/a.jpg",
        "id": "00000000-0000-0000-0000-000000000001",
        "time": "2026-01-02T00:00:00+00:00",
        "fault": "UploadFailed: FETCH_DENIED: https://h/p",
        "deep": {"a": [["<1 bytes>"], ["https://h/"]]},
    }
    assert expected == plain(given)
