"""
Pillow's warnings are errors while a picture is decoded, but for those that change nothing.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from schemas.errors import ErrorCode
from tests.decoding_rig import decoding
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from tests.png_files import with_chunk
from worker.errors import UploadFailed
from worker.stages import png_chunks
from worker.stages.pillow_warnings import BENIGN, make_warnings_errors

ANIMATION = encoded(photograph(32, 32), "PNG", save_all=True, append_images=[photograph(32, 32, seed=1)])
DOUBLED = with_chunk(ANIMATION, (b"acTL", b"\0\0\0\x02\0\0\0\0"), before=b"IDAT")


@contextmanager
def filters(action: "warnings._ActionKind") -> Iterator[None]:
    """
    What anybody else may have set.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        yield


@pytest.mark.parametrize("action", ["default", "always", "ignore", "once"])
def test_what_pillow_warns_of_fails_the_picture(
    action: "warnings._ActionKind", monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An animation that Pillow drops with a warning is not judged by what is left of it, each time anew.
    """
    # Our own reading of the chunks would refuse it before Pillow can warn.
    monkeypatch.setattr("worker.stages.opened.read_png", png_chunks.PngReading)
    with filters(action):
        for _ in range(2):
            with pytest.raises(UploadFailed, match="Invalid APNG") as caught:
                decoder_of(32).decode(DOUBLED, ANY_HASH)
            assert ErrorCode.DECODE_FAILED == caught.value.code


def test_what_pillow_warns_of_as_a_bomb_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A warning of too many pixels has the code of a bomb.
    """

    def warned(_self: PngImagePlugin.PngStream, _at: int, _length: int) -> bytes:
        warnings.warn_explicit("many pixels", Image.DecompressionBombWarning, "Image.py", 1, module="PIL.Image")
        raise AssertionError("the warning was no error")

    monkeypatch.setattr(PngImagePlugin.PngStream, "chunk_IHDR", warned)
    with pytest.raises(UploadFailed, match="many pixels") as caught:
        decoder_of(32).decode(encoded(photograph(32, 32), "PNG"), ANY_HASH)

    assert ErrorCode.DECODE_BOMB == caught.value.code


def test_a_child_process_refuses_it_likewise() -> None:
    """
    In a process of its own the doubled chunk ends the same way.
    """
    with decoding() as rig:
        assert ErrorCode.DECODE_FAILED == rig.failure(DOUBLED).code


@pytest.mark.parametrize(("module", "message"), BENIGN)
def test_what_changes_nothing_is_dropped(module: str, message: str) -> None:
    """
    Each of the benign messages is neither an error nor a line on standard error; from elsewhere it is an error.
    """
    with filters("always"):
        make_warnings_errors()
        warnings.warn_explicit(f"{message}. Then more", UserWarning, "file.py", 1, module=module)
        with pytest.raises(UserWarning, match=message):
            warnings.warn_explicit(f"{message}. Then more", UserWarning, "file.py", 1, module="PIL.Image")


def test_what_others_warn_of_is_left_alone() -> None:
    """
    Only what Pillow says of pictures is an error: not another module's warnings, and not what it says of its callers.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_warnings_errors()
        warnings.warn_explicit("something", UserWarning, "file.py", 1, module="numpy.core")
        warnings.warn_explicit("call it otherwise", DeprecationWarning, "file.py", 1, module="PIL.Image")

    assert ["something", "call it otherwise"] == [str(each.message) for each in caught]


def test_nothing_is_set_again_where_the_filters_stand() -> None:
    """
    From the second picture on, the filters of the process are not touched, which would slow every warning down.
    """
    with filters("default"):
        make_warnings_errors()
        before = list(warnings.filters)
        decoder_of(32).decode(encoded(photograph(32, 32), "PNG"), ANY_HASH)

        assert before == list(warnings.filters)


def test_a_camera_s_damaged_exif_is_a_note(tmp_path: Path) -> None:
    """
    A JPEG whose EXIF Pillow finds corrupt, as those of real cameras are, is decoded.
    """
    block = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + b"\x01\x1a\0\x05\0\0\0\x01\0\0\x40\0" + b"\x01\x28\0\x03\0\0\0\x01\0\x02\0\0"
    )
    picture = photograph(32, 32)
    path = tmp_path / "camera.jpg"
    picture.save(path, exif=block, quality=90)
    data = path.read_bytes()
    at = data.index(b"JFIF") - 4
    data = data[:at] + data[at + 18 :]  # without it Pillow asks EXIF for the resolution, and warns
    with warnings.catch_warnings(record=True) as caught, Image.open(io.BytesIO(data)):
        pass
    facts = decoder_of(32).decode(data, ANY_HASH).facts

    assert caught
    assert ("EXIF_DAMAGED",) == facts.warnings
