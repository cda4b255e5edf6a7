"""
Banks are built by the decoders of the worker: in processes, so that a hostile reference costs itself alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.bank_builders import a_source, build_small
from tests.pictures import encoded
from tests.small_encoder import encoder_settings, loaded
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import load_bank
from worker.cli.embedders import embedder_opener
from worker.decoding.process_decoder import ProcessDecoder
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.settings.images import DecodeSettings
from worker.settings.tree import Settings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import ViewSpec

VIEWS = ViewSpec(native_crops=2)
SMALL_BYTES = 1 << 26
SIDE_PX = 6000
"""Of a picture within the limit to pixels, of which the decoder needs more memory than that."""

Opened = Callable[..., ReferenceEmbedder]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallEncoder:
    """
    The small encoder of these tests.
    """
    return write_small_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def opened(small: SmallEncoder) -> Opened:
    """
    The embedder that commands use, under these settings for decoding.
    """

    def of(**decode: object) -> ReferenceEmbedder:
        settings = Settings(encoder=encoder_settings(small), decode=DecodeSettings.model_validate(decode))
        return embedder_opener(settings)(VIEWS)

    return of


def test_a_bank_is_the_same_wherever_its_pictures_are_decoded(
    tmp_path: Path, small: SmallEncoder, opened: Opened
) -> None:
    """
    In processes by default: to the last bit what decoding in this process gives.
    """
    source = a_source(tmp_path / "source")
    encoder, embedder = loaded(small), opened()
    here = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), None, views=VIEWS)
    build_small(source, tmp_path / "processes", embedder)
    build_small(source, tmp_path / "here", ReferenceEmbedder(encoder, here, views=VIEWS))
    one, other = (load_bank(tmp_path / name).stored for name in ("processes", "here"))

    assert isinstance(embedder.decoder, ProcessDecoder)
    assert embedder.decoder.pids
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.native, other.native)


def test_a_hostile_reference_is_left_out_and_told(tmp_path: Path, opened: Opened) -> None:
    """
    One that needs more memory than a decoder may have is skipped with its code; the bank has all the others.
    """
    source = a_source(tmp_path / "source")
    (source / "fake" / "mill" / "bomb.png").write_bytes(encoded(Image.new("RGB", (SIDE_PX, SIDE_PX)), "PNG"))
    report = build_small(source, tmp_path / "bank", opened(memory_bytes=SMALL_BYTES))

    assert [ErrorCode.DECODE_BOMB] == [one.code for one in report.skipped]
    assert "bomb.png" in report.skipped[0].name
    assert len(load_bank(tmp_path / "bank").entries) == 10


def test_threads_may_be_asked_for(opened: Opened) -> None:
    """
    Where processes are not wanted, references are decoded as the worker would decode uploads: in its own.
    """
    assert isinstance(opened(isolation="threads").decoder, PillowDecoder)
