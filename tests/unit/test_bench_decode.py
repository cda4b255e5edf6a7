"""
The benchmarks of decoding: that they measure what they say, and tell it in one object.
"""

import json

import pytest
from click.testing import CliRunner

from worker.bench import decode_parts, image_size
from worker.bench.corpus import Kind
from worker.cli.bench_decode import decode
from worker.cli.bench_image_size import image_size as image_size_command


def test_decoding_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One object with every part and every whole decoding, each of which took time, and ratios of one run.
    """
    monkeypatch.setattr(decode_parts, "PICTURES", 2)
    ran = CliRunner().invoke(decode, ["--kind", "0.2mp", "--size", "64", "--rounds", "3", "--json"])

    assert 0 == ran.exit_code, ran.output
    found = json.loads(ran.stdout)
    figures = {name: figure["median"] for name, figure in found["figures"].items()}
    # Of the best rounds: a neighbour that takes the caches away makes a single one several times as dear.
    best = {name: figure["low"] for name, figure in found["figures"].items()}
    assert {"part: JPEG to pixels", "part: perceptual hash", "part: realism statistics"} < set(figures)
    assert best["part: JPEG to pixels"] < best["whole picture"] < best["crops and one JPEG for all"]
    assert found["decode_ms"] == pytest.approx(figures["whole picture"], abs=0.01)
    assert 0 < found["oversampling_1_ratio"] < 1
    assert found["torch_resize_ratio"] == pytest.approx(
        figures["whole picture, resized by torch"] / figures["whole picture"], abs=0.01
    )


def test_decoding_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beside Pillow in the same rounds, by the clock and by CPU time, with the distance from Pillow's pixels and hashes.
    """
    monkeypatch.setattr(decode_parts, "PICTURES", 1)
    options = ["--kind", "0.2mp", "--size", "64", "--rounds", "1", "--device", "cpu", "--batch", "2", "--json"]
    ran = CliRunner().invoke(decode, options)

    assert 0 == ran.exit_code, ran.output
    found = json.loads(ran.stdout)
    figures = found["figures"]
    assert ("images/s", "ms CPU") == tuple(figures[f"device cpu, 2 threads{end}"]["unit"] for end in ("", ", CPU"))
    assert found["device_ratio"] == pytest.approx(
        figures["device cpu, 2 threads"]["median"] / figures["pillow, 2 threads"]["median"], abs=0.01
    )
    assert found["device"].startswith("libjpeg")
    assert 0 <= found["device_mean_difference"] <= found["device_largest_difference"] <= 2
    assert 0 <= found["device_hash_bits"] <= 16


def test_an_unknown_kind_of_picture_is_refused() -> None:
    """
    With the kinds that there are.
    """
    ran = CliRunner().invoke(decode, ["--kind", "3mp"])

    assert 2 == ran.exit_code
    assert "12mp" in ran.output


def test_decoding_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A figure for each size and scale; what is decoded whole is not told as reduced, and more reduced is further off.
    """
    monkeypatch.setattr(image_size, "SIZES", (Kind("small", 300, 200), Kind("large", 900, 700)))
    ran = CliRunner().invoke(image_size_command, ["--size", "64", "--rounds", "1", "--json"])

    assert 0 == ran.exit_code, ran.output
    found = json.loads(ran.stdout)
    off = {(one["size"], one["jpeg_oversampling"]): one["mean"] for one in found["reduced"]}
    assert {f"{size}, jpeg_oversampling {times}" for size in ("small", "large") for times in (0, 1, 2)} == set(
        found["figures"]
    )
    assert 0 < off["large", 2] < off["large", 1]
    assert 0 == off["small", 2]
