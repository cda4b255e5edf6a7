"""
Which way up a picture is judged: as browsers show it, and not as other metadata say.
"""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from schemas.verdict import ImageFacts
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from tests.png_files import with_chunk
from worker.stages.decode_notes import DecodeNote
from worker.stages.upright import orientation_in

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6
PICTURE = photograph(40, 30)


def facts_of(data: bytes) -> ImageFacts:
    """
    What was found in the file.
    """
    return decoder_of(32).decode(data, ANY_HASH).facts


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_xmp_turns_no_picture(name: str) -> None:
    """
    An orientation in XMP, which browsers ignore, is ignored.
    """
    if name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded(PICTURE, name, pnginfo=text)
    else:
        data = encoded(PICTURE, name, xmp=XMP)

    assert (name == "GIF" or b"tiff:Orientation" in data, 1) == (True, facts_of(data).orientation)


@pytest.mark.parametrize("keyword", ["Raw profile type exif", "exif"])
@pytest.mark.parametrize("compressed", [False, True])
def test_text_in_a_png_is_no_exif(keyword: str, *, compressed: bool) -> None:
    """
    EXIF that stands in a text chunk is text.
    """
    block = TURNED.tobytes()
    said = f"\nexif\n{len(block):8}\n{block.hex()}" if keyword != "exif" else block.decode("latin-1")
    text = PngImagePlugin.PngInfo()
    text.add_text(keyword, said, zip=compressed)

    assert 1 == facts_of(encoded(PICTURE, "PNG", pnginfo=text)).orientation


def test_the_exif_of_a_png_is_that_before_its_pixels() -> None:
    """
    The chunk of that name turns the picture where browsers read it.
    """
    chunk = (b"eXIf", TURNED.tobytes().removeprefix(b"Exif\0\0"))
    plain = encoded(PICTURE, "PNG")

    assert [6, 1] == [facts_of(with_chunk(plain, chunk, before=kind)).orientation for kind in (b"IDAT", b"IEND")]


def test_an_avif_is_turned_by_its_own_transformation_alone() -> None:
    """
    Pillow writes the orientation of EXIF as a transformation; EXIF that contradicts the file says nothing.
    """
    # Pillow takes an orientation out of what it writes: another tag is written, and renamed afterwards.
    entry = struct.pack(">HHLHH", ExifTags.Base.Orientation + 1, 3, 1, 3, 0)
    other = encoded(PICTURE, "AVIF", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4))
    contradicting = other.replace(b"\x01\x13\0\x03", b"\x01\x12\0\x03")

    assert other != contradicting
    assert 1 == facts_of(contradicting).orientation
    assert 6 == facts_of(encoded(PICTURE, "AVIF", exif=TURNED.tobytes())).orientation


def test_damage_elsewhere_in_exif_leaves_the_orientation() -> None:
    """
    What cameras write wrongly beside it, as many do, is a note, and the picture is shown as browsers show it.
    """
    entries = [
        struct.pack(">HHLL", ExifTags.Base.Make, 2, 500, 9000),
        struct.pack(">HHLHH", ExifTags.Base.Orientation, 3, 1, 8, 0),
    ]
    block = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries) + bytes(4)
    facts = facts_of(encoded(PICTURE, "JPEG", exif=block))

    assert (8, (DecodeNote.EXIF_DAMAGED,)) == (facts.orientation, facts.warnings)


@pytest.mark.parametrize("name", ["JPEG", "MPO"])
def test_segments_of_exif_are_not_put_together(name: str) -> None:
    """
    The first of a JPEG's EXIF segments counts: two halves make an orientation for Pillow, and for nobody else.
    """
    pictures = {"save_all": True, "append_images": [PICTURE]} if name == "MPO" else {}
    plain = encoded(PICTURE, name, **pictures)
    head = b"Exif\0\0II*\0\x08\0\0\0"
    entry = b"\x01\0" + struct.pack("<HHLHH", ExifTags.Base.Orientation, 3, 1, 3, 0) + bytes(4)
    other = b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP
    halves = plain[:2] + segment(head) + segment(b"Exif\0\0" + entry) + plain[2:]
    whole = plain[:2] + other + segment(head + entry) + segment(TURNED.tobytes()) + plain[2:]

    for data, expected in ((halves, 1), (whole, 3)):
        with Image.open(io.BytesIO(data)) as image:
            assert name == image.format
        assert expected == facts_of(data).orientation


def segment(block: bytes) -> bytes:
    """
    A JPEG's segment of EXIF.
    """
    return b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block


@given(st.binary(max_size=80), st.sampled_from((b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0")))
def test_any_block_gives_an_orientation(rubbish: bytes, start: bytes) -> None:
    """
    Whatever the bytes, one of the eight comes out, and nothing is raised.
    """
    assert orientation_in(start + rubbish)[0] in range(1, 9)


@given(st.integers(1, 8), st.sampled_from(("<", ">")), st.integers(0, 30))
def test_it_is_found_in_either_byte_order_and_anywhere(orientation: int, order: str, before: int) -> None:
    """
    Byte order and the place of the entry do not matter.
    """
    entries = [struct.pack(order + "HHLL", 256 + number, 4, 1, 7) for number in range(before) if number != 18]
    entries.append(struct.pack(order + "HHLHH", ExifTags.Base.Orientation, 3, 1, orientation, 0))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, len(entries))

    assert (orientation, True) == orientation_in(head + b"".join(entries) + bytes(4))
