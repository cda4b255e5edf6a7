"""
``encoder.jpeg_decoder``: what has to be set with it, what it comes to, and what is opened for it.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.device_rig import NEAR, device_spec, furthest, on_device
from tests.fake_encoder import SIZE, FakeEncoder, fake_decoder
from tests.loop_rig import shipped_policy, small_bank
from tests.pictures import encoded, photograph, spec_of
from tests.settings_layers import refused
from worker import decoders
from worker.adapters import clip_source
from worker.adapters.clip_source import resolve
from worker.app import scope_of
from worker.decoders import device_version, open_decoder_of, open_reference_decoder
from worker.decoding.device_decoder import DeviceDecoder
from worker.decoding.process_decoder import close_decoder
from worker.domain import ContentHash
from worker.errors import EncoderInvalid
from worker.instruments import Instruments
from worker.settings.load import load_settings
from worker.settings.tree import EncoderSettings, Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, ViewSpec

JPEG = encoded(photograph(200, 150), "JPEG")
PNG = encoded(photograph(200, 150), "PNG")
ANY = ContentHash("0" * 64)
ACCEPTED = ["encoder.jpeg_decoder=device", "decode.unisolated_device=true"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working directory without a configuration of its own.
    """
    monkeypatch.chdir(tmp_path)


def settings_of(*sets: str) -> Settings:
    """
    The defaults with these.
    """
    return load_settings(config=None, overlay=None, environ={}, sets=list(sets)).settings


def test_it_has_to_be_accepted_that_nothing_confines_the_device() -> None:
    """
    By a setting that does nothing else; who decodes in threads has accepted it already.
    """
    (said,) = refused(sets=ACCEPTED[:1])

    assert "set decode.unisolated_device = true" in said
    assert "device" == settings_of(*ACCEPTED).encoder.jpeg_decoder
    assert "device" == settings_of(ACCEPTED[0], "decode.isolation=threads").encoder.jpeg_decoder


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("encoder.jpeg_oversampling=2", "decodes JPEGs whole"),
        ("encoder.backend=openvino", "needs backend torch"),
    ],
)
def test_what_does_not_go_together_is_refused(other: str, said: str) -> None:
    """
    With the setting to change.
    """
    assert any(said in one for one in refused(sets=[*ACCEPTED, other]))


def test_it_comes_to_what_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A GPU's decoder and a CPU's are two fingerprints; the default leaves no trace.
    """
    on_cpu = resolve(EncoderSettings(device="cpu", jpeg_decoder="device"))
    default = resolve(EncoderSettings(device="cpu"))
    monkeypatch.setattr(clip_source, "on_gpu", lambda _device: True)
    on_gpu = resolve(EncoderSettings(device="auto", jpeg_decoder="device"))

    assert ("libjpeg", "nvjpeg") == (on_cpu.preprocess["jpeg_decoder"], on_gpu.preprocess["jpeg_decoder"])
    assert "jpeg_decoder" not in default.preprocess


def test_without_a_gpu_the_cpu_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A worker that finds no GPU does not start in another space than its fleet.
    """
    monkeypatch.setattr(clip_source, "on_gpu", lambda _device: False)
    with pytest.raises(EncoderInvalid, match=r'encoder\.device = "cpu" to try it'):
        resolve(EncoderSettings(device="auto", jpeg_decoder="device"))


@pytest.mark.parametrize("isolation", ["threads", "processes"])
def test_uploads_and_references_are_decoded_there(isolation: str) -> None:
    """
    JPEGs on the device and counted, everything else by the decoder as ever; the facts are the same.
    """
    settings = settings_of(*ACCEPTED, f"decode.isolation={isolation}", "decode.threads=1", "encoder.device=cpu")
    recorder = InMemoryRecorder()
    decoder = open_decoder_of(settings, device_spec(), recorder=recorder)
    ordinary = open_decoder_of(settings_of("decode.isolation=threads"), spec_of(64))
    try:
        jpeg, png = decoder.decode(JPEG, ANY), decoder.decode(PNG, ANY)
    finally:
        close_decoder(decoder)
    expected = ordinary.decode(JPEG, ANY)

    assert expected.facts == jpeg.facts
    assert furthest(expected.pixels, jpeg.pixels) <= NEAR
    assert 0 == furthest(ordinary.decode(PNG, ANY).pixels, png.pixels)
    assert {'device_jpegs_total{result="decoded"}': 1.0} == recorder.snapshot()
    assert (device_version(decoder) or "").startswith("libjpeg")


def test_verdicts_and_caches_know_the_device() -> None:
    """
    Its library and its name: another GPU's pixels are not recalled.
    """
    plain = Instruments(FakeEncoder(), fake_decoder(), small_bank(), shipped_policy())
    with_device = replace(plain, decoder=on_device(spec=device_spec(SIZE)))
    settings = settings_of("redis.enabled=false")

    assert "device_jpegs" not in plain.versions("live").decoders
    assert with_device.versions("live").decoders["device_jpegs"].startswith("libjpeg, torchvision")
    assert scope_of(settings, plain) != scope_of(settings, with_device)


def test_references_are_decoded_there_too() -> None:
    """
    Without a hash, as ever.
    """
    settings = settings_of(*ACCEPTED, "decode.isolation=threads", "encoder.device=cpu")
    found = open_reference_decoder(settings, device_spec(), GLOBAL_ONLY)

    assert isinstance(found, DeviceDecoder)
    assert found.decode(JPEG, ANY).facts.pdq is None


@pytest.mark.parametrize(("spec", "views"), [(spec_of(64), GLOBAL_ONLY), (device_spec(), ViewSpec(native_crops=1))])
def test_no_device_is_opened_that_nothing_is_left_to(spec: object, views: ViewSpec) -> None:
    """
    A spec or views that want none.
    """
    settings = settings_of(*ACCEPTED, "decode.isolation=threads", "encoder.device=cpu")
    decoder = open_decoder_of(settings, spec, views)  # type: ignore[arg-type] # a spec, as parametrised

    assert device_version(decoder) is None


def test_a_device_that_goes_unused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the fingerprint speaks of a device and the bank asks for the file's own pixels.
    """
    said: list[str] = []
    monkeypatch.setattr(decoders.log, "warning", lambda event, **_rest: said.append(event))
    settings = settings_of(*ACCEPTED, "decode.isolation=threads", "encoder.device=cpu")
    open_decoder_of(settings, spec_of(64), ViewSpec(native_crops=1))
    open_decoder_of(settings, device_spec(), ViewSpec(native_crops=1))

    assert ["decoder.device_unused"] == said
