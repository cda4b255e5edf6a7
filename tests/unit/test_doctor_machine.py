"""
What ``touchstone doctor`` says of the codecs and the disk of this machine, failing on purpose and well.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from worker.adapters import torch_resize
from worker.doctor import machine
from worker.doctor.samples import SAMPLES
from worker.settings.images import DecodeSettings
from worker.settings.operations import EmbeddingsSettings
from worker.settings.tree import EncoderSettings, Settings


def test_every_format_decodes_here() -> None:
    """
    The built-in sample of each format comes out in its colours.
    """
    found = machine.codecs(Settings())

    assert "ok" == found.status
    assert "JPEG, PNG, WEBP, GIF, AVIF" in found.text


def test_every_format_decodes_with_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where torch resizes, the check does as well, and tells a torch that cannot.
    """
    settings = Settings(encoder=EncoderSettings(resize="torch"))
    found = machine.codecs(settings)
    monkeypatch.setattr(torch_resize, "_LIBRARY", "libnothing.so")
    torch_resize._kernel.cache_clear()
    without = machine.codecs(settings)

    assert "resized by torch 2" in found.text
    assert "failed" == without.status
    assert "libnothing.so" in without.text


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_a_codec_that_is_missing_or_wrong_fails(format_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Pillow without the format, one that cannot decode it and one that gets the colours wrong are all told.
    """
    settings = Settings(decode=DecodeSettings.model_validate({"formats": [format_name]}))
    found = []
    for broken_by in ("absent", "damaged", "colours"):
        with monkeypatch.context() as patch:
            if broken_by == "absent":
                patch.setattr("worker.stages.decode._supported", lambda _name: False)
            elif broken_by == "damaged":
                patch.setattr("worker.doctor.machine.SAMPLES", {format_name: SAMPLES[format_name][:40]})
            else:
                patch.setattr(machine, "_is_red_and_blue", lambda _pixels: False)
            found.append(machine.codecs(settings))

    assert ["failed"] * 3 == [one.status for one in found]
    assert all(format_name in one.text and "decode.formats" in one.advice for one in found)


def test_the_colours_are_looked_at() -> None:
    """
    Red and blue the other way round are not red and blue.
    """
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:, :2, 0], pixels[:, 2:, 2] = 200, 200

    assert machine._is_red_and_blue(pixels)
    assert not machine._is_red_and_blue(pixels[:, ::-1])


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No folder and no right to write fail, little room is a warning; without a file there is nothing to look at.
    """
    here = Settings(embeddings=EmbeddingsSettings(keep="file", path=tmp_path / "kept.sqlite"))
    gone = Settings(embeddings=EmbeddingsSettings(keep="file", path=tmp_path / "no" / "kept.sqlite"))
    found = [machine.disk(Settings()), machine.disk(here), machine.disk(gone)]
    with monkeypatch.context() as patch:
        patch.setattr("worker.doctor.machine.shutil.disk_usage", lambda _path: SimpleNamespace(free=1000))
        found.append(machine.disk(here))
    with monkeypatch.context() as patch:
        patch.setattr("worker.doctor.machine.os.access", lambda _path, _mode: False)
        found.append(machine.disk(here))

    assert ["skipped", "ok", "failed", "warning", "failed"] == [one.status for one in found]
    assert not list(tmp_path.iterdir())
