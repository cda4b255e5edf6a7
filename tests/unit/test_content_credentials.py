"""
Content credentials of real files: signed here with the real library, then left alone, damaged, or stripped.
"""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import c2pa
import pytest
from PIL import Image

from schemas.verdict import ContentCredentials
from tests.pictures import encoded, photograph
from tests.signed_pictures import GENERATED, IPTC, MEDIA_TYPES, a_signed_picture, a_signer, created, signed
from worker.adapters.content_credentials import credentials_reader, read_credentials
from worker.errors import CannotStart

FORMATS = tuple(MEDIA_TYPES)
ANCHOR = a_signer().anchor


def state_of(data: bytes, anchors: str | None = ANCHOR) -> str | None:
    """
    The state alone; "none" where there are no credentials at all.
    """
    found = read_credentials(data, trust_anchors_pem=anchors)
    return "none" if found is None else found.state


def tampered(data: bytes) -> bytes:
    """
    The file with one bit of its picture turned.
    """
    changed = bytearray(data)
    changed[-40] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("name", FORMATS)
def test_a_signed_picture(name: str) -> None:
    """
    In every format that can be decoded, the signer, the program and the source type are told.
    """
    assert read_credentials(a_signed_picture(name)) == ContentCredentials(
        state="valid",
        digital_source_type="trainedAlgorithmicMedia",
        issuer="Test Mill",
        claim_generator="mill 1.5",
    )


@pytest.mark.parametrize("name", FORMATS)
def test_trusted_needs_the_signers_own_anchor(name: str) -> None:
    """
    A signer is trusted if it chains to a configured anchor, and only valid under another authority or none.
    """
    data = a_signed_picture(name)

    assert state_of(data) == "trusted"
    assert state_of(data, a_signer("Other Mill").anchor) == "valid"
    assert state_of(data, a_signer("Other Mill").anchor + ANCHOR) == "trusted"
    assert state_of(data, None) == "valid"


@pytest.mark.parametrize("name", FORMATS)
def test_a_tampered_picture(name: str) -> None:
    """
    One bit of the picture, and the credentials hold no longer; nothing but that is told of them.
    """
    data = tampered(a_signed_picture(name))

    assert read_credentials(data, trust_anchors_pem=ANCHOR) == ContentCredentials(state="invalid")


@pytest.mark.parametrize("name", FORMATS)
def test_a_stripped_picture(name: str) -> None:
    """
    What was saved again, as platforms do, says nothing; no more does what was never signed.
    """
    with Image.open(io.BytesIO(a_signed_picture(name))) as picture:
        again = encoded(picture.convert("RGB"), name)

    assert read_credentials(again) is None
    assert read_credentials(encoded(photograph(60, 50), name)) is None


def test_what_is_no_image() -> None:
    """
    The marker alone makes no credentials, whatever it lies in.
    """
    store = a_signed_picture("JPEG")

    assert read_credentials(b"") is None
    assert read_credentials(b"%PDF" + store) is None


def test_a_picture_that_was_opened_and_saved_by_an_editor() -> None:
    """
    The editor's manifest says nothing of a model, but the one of the picture that it opened does.
    """
    first = a_signed_picture("JPEG")
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parentOf"]}}
    data = signed(first, "JPEG", [opened, {"action": "c2pa.resized"}], ingredients={"parentOf": first})
    found = read_credentials(data, trust_anchors_pem=ANCHOR)

    assert found is not None
    assert (found.state, found.digital_source_type) == ("trusted", "trainedAlgorithmicMedia")


def test_a_trusted_editor_lends_no_trust_to_what_it_opened() -> None:
    """
    The word of an unknown signer stays that, also inside of a trusted one's manifest.
    """
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parentOf"]}}
    unknown = signed(encoded(photograph(60, 50), "JPEG"), "JPEG", signer=a_signer("Other Mill"))
    data = signed(unknown, "JPEG", [opened], ingredients={"parentOf": unknown})
    found = read_credentials(data, trust_anchors_pem=ANCHOR)

    assert found is not None
    assert (found.state, found.digital_source_type) == ("valid", "trainedAlgorithmicMedia")


def test_an_opened_picture_whose_credentials_do_not_hold_says_nothing() -> None:
    """
    The library calls the whole valid all the same: the editor's own signature is in order.
    """
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parentOf"]}}
    broken = tampered(a_signed_picture("JPEG"))
    found = read_credentials(signed(broken, "JPEG", [opened], ingredients={"parentOf": broken}))

    assert found is not None
    assert (found.state, found.digital_source_type) == ("valid", None)


def test_a_composite_with_a_generated_part() -> None:
    """
    A composite is synthetic where one of its components says that it was generated, and else just a composite.
    """
    canvas = encoded(photograph(80, 50, seed=3), "JPEG")
    actions = [created("composite"), {"action": "c2pa.placed", "parameters": {"ingredientIds": ["componentOf"]}}]
    camera = signed(canvas, "JPEG", [created("digitalCapture")])
    found = [
        read_credentials(signed(canvas, "JPEG", actions, ingredients={"componentOf": part}))
        for part in (a_signed_picture("JPEG"), camera)
    ]

    assert [one.digital_source_type for one in found if one] == ["compositeSynthetic", "composite"]


def test_unsigned_metadata_beside_a_manifest() -> None:
    """
    Plain XMP is told as what it is, with credentials or without.
    """
    xmp = f'<x:xmpmeta><rdf Iptc4xmpExt:DigitalSourceType="{IPTC}digitalCapture"/></x:xmpmeta>'.encode()
    plain = encoded(photograph(60, 50), "JPEG", xmp=xmp)
    found = read_credentials(signed(plain, "JPEG"))

    assert read_credentials(plain) == ContentCredentials(state=None, unsigned_digital_source_type="digitalCapture")
    assert found is not None
    assert (found.state, found.digital_source_type) == ("valid", "trainedAlgorithmicMedia")
    assert found.unsigned_digital_source_type == "digitalCapture"


@pytest.mark.parametrize(
    "anchors", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\u00e9"]
)
def test_anchors_that_are_none_are_refused(anchors: str) -> None:
    """
    The library would pass over them in silence, and then trust nobody.
    """
    with pytest.raises(CannotStart, match="trust anchors"):
        credentials_reader(anchors)


def test_many_threads_may_ask_one_reader() -> None:
    """
    As the decoder's threads do: each gets the answer to its own question.
    """
    read = credentials_reader(ANCHOR)
    good, bad = a_signed_picture("WEBP"), tampered(a_signed_picture("PNG"))
    with ThreadPoolExecutor(4) as pool:
        found = [one.state if one else None for one in pool.map(read, [good, bad] * 20)]

    assert found == ["trusted", "invalid"] * 20


@contextmanager
def a_listener() -> Iterator[tuple[str, list[str]]]:
    """
    A web server on this machine: its address, and every path that it was asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_manifest_is_fetched_from_elsewhere() -> None:
    """
    A file may name any address, of our own network too; the library left to itself asks there, we do not.
    """
    with a_listener() as (address, asked):
        data = signed(encoded(photograph(60, 50), "JPEG"), "JPEG", remote_url=f"{address}/there.c2pa")
        ours = read_credentials(data)
        asked_by_us = list(asked)
        with pytest.raises(c2pa.C2paError):
            c2pa.Reader("image/jpeg", io.BytesIO(data))

    assert ours is None
    assert asked_by_us == []
    assert asked == ["/there.c2pa"]


def test_an_embedded_manifest_with_an_address_beside_it() -> None:
    """
    What the file holds is read, and the address is not asked.
    """
    with a_listener() as (address, asked):
        elsewhere = signed(encoded(photograph(60, 50), "JPEG"), "JPEG", remote_url=f"{address}/there.c2pa")
        found = read_credentials(signed(elsewhere, "JPEG"))

    assert found is not None
    assert found.state == "valid"
    assert asked == []


def test_no_authority_is_asked_about_a_certificate() -> None:
    """
    A certificate may name an address to be asked whether it still holds; the library asks if told to, we never do.
    """
    with a_listener() as (address, asked):
        signer = a_signer("Asked Mill", ocsp_url=f"{address}/ocsp")
        data = signed(encoded(photograph(60, 50), "JPEG"), "JPEG", GENERATED, signer=signer)
        found = read_credentials(data, trust_anchors_pem=signer.anchor)
        asked_by_us = list(asked)
        settings = {"verify": {"ocsp_fetch": True}, "trust": {"user_anchors": signer.anchor}}
        with c2pa.Reader("image/jpeg", io.BytesIO(data), context=c2pa.Context.from_dict(settings)) as reader:
            reader.json()

    assert found is not None
    assert found.state == "trusted"
    assert asked_by_us == []
    assert asked != []
