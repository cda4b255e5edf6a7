"""
Weights are hashed before anything looks into them, on every way they can come, and what was hashed is what is loaded.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

from tests.small_encoder import CountingRecorder
from worker.adapters import clip_weights
from worker.adapters.clip_encoder import load_encoder
from worker.adapters.clip_weights import read_tensors, verified_copy
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings
from worker.shipped import STARTER_MODEL

REPOSITORY = "someone/small"
REGISTRY_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def small(tmp_path: Path) -> SmallEncoder:
    """
    A model folder that the test may change.
    """
    return write_small_encoder(tmp_path / "small")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A hub cache of the test's own.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache: Path, small: SmallEncoder, repository: str) -> Path:
    """
    The model in the cache, as the hub's client leaves it: links to files that are named by their hash.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    for part in ("snapshots/c0ffee", "blobs", "refs"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    for path in small.folder.iterdir():
        blob = folder / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        (folder / "snapshots" / "c0ffee" / path.name).symlink_to(blob)
    return folder / "snapshots" / "c0ffee" / WEIGHTS


def of_starter(tmp_path: Path, _cache: Path, patch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """
    What ships.
    """
    folder = tmp_path / "starter"
    folder.mkdir()
    for file in STARTER_MODEL.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    patch.setattr("worker.adapters.clip_source.STARTER_MODEL", folder)
    return folder / WEIGHTS, {}


def of_folder(tmp_path: Path, _cache: Path, _patch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """
    A folder with its configuration.
    """
    small = write_small_encoder(tmp_path / "small")
    return small.checkpoint, {"model": small.model, "checkpoint_sha256": small.checkpoint_sha256}


def of_checkpoint(tmp_path: Path, _cache: Path, _patch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """
    A local file of an architecture of the registry.
    """
    small = write_small_encoder(tmp_path / "small")
    local = {"checkpoint": small.checkpoint, "checkpoint_sha256": small.checkpoint_sha256}
    return small.checkpoint, {"model": "ViT-B-16-SigLIP", **local}


def of_hub(tmp_path: Path, cache: Path, _patch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """
    A hub id whose files are cached; no hash is configured.
    """
    path = cached(cache, write_small_encoder(tmp_path / "small"), REPOSITORY)
    return path, {"model": f"hf-hub:{REPOSITORY}", "offline": True}


def of_registry(tmp_path: Path, cache: Path, _patch: pytest.MonkeyPatch) -> tuple[Path, dict[str, object]]:
    """
    A tag of the registry whose file is cached; no hash is configured.
    """
    path = cached(cache, write_small_encoder(tmp_path / "small"), REGISTRY_REPOSITORY)
    return path, {"model": "ViT-B-32-quickgelu/openai", "offline": True}


Way = Callable[[Path, Path, pytest.MonkeyPatch], tuple[Path, dict[str, object]]]


@pytest.mark.parametrize("way", [of_starter, of_folder, of_checkpoint, of_hub, of_registry])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_a_flipped_bit_is_refused_before_anything_is_parsed(
    way: Way, place: float, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On every way that weights can come; the message names the file, and no parser was called.
    """
    path, settings = way(tmp_path, cache, monkeypatch)
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    path.resolve().write_bytes(content)

    def parsed(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a parser was called")

    for module, name in ((clip_weights, "load_file"), (clip_weights, "is_torchscript"), (torch, "load")):
        monkeypatch.setattr(module, name, parsed)
    with pytest.raises(EncoderInvalid, match=f"{path.name} has sha256 .*another or a damaged file"):
        load_encoder(EncoderSettings.model_validate({"device": "cpu", **settings}), CountingRecorder())


def test_weights_without_a_hash_are_refused(cache: Path, small: SmallEncoder) -> None:
    """
    A cache whose file is no link to a hash: nothing says what it must be, until the operator does.
    """
    path = cached(cache, small, REPOSITORY)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    settings = {"model": f"hf-hub:{REPOSITORY}", "offline": True, "device": "cpu"}
    with pytest.raises(EncoderInvalid, match=r"set encoder\.checkpoint_sha256"):
        load_encoder(EncoderSettings.model_validate(settings), CountingRecorder())
    told = {**settings, "checkpoint_sha256": hashlib.sha256(content).hexdigest()}

    assert load_encoder(EncoderSettings.model_validate(told), CountingRecorder()).fingerprint.dim > 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_hashed_is_what_is_loaded(
    in_memory: bool, small: SmallEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever exchanges the file, or overwrites it in place, between the hash and the reading is too late.
    """
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    honest = load_file(small.checkpoint)
    evil = save({name: torch.zeros_like(tensor) for name, tensor in honest.items()})
    real = load_file

    def exchanged(path: Path) -> dict[str, torch.Tensor]:
        small.checkpoint.write_bytes(evil)
        return real(path)

    expected = {name: tensor.clone() for name, tensor in honest.items()}
    monkeypatch.setattr(clip_weights, "load_file", exchanged)
    found = read_tensors(small.checkpoint, small.checkpoint_sha256)

    assert small.checkpoint.read_bytes() == evil
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_the_copy_is_gone_with_its_context(small: SmallEncoder) -> None:
    """
    Neither memory nor a file is left of it, refused or not.
    """
    with verified_copy(small.checkpoint, small.checkpoint_sha256) as copy:
        held, same = copies(), copy.read_bytes() == small.checkpoint.read_bytes()
    with pytest.raises(EncoderInvalid), verified_copy(small.checkpoint, "0" * 64):
        raise AssertionError("a file of another hash was handed out")

    assert same
    assert held == {"/memfd:weights (deleted)"}
    assert copies() == set()


def copies() -> set[str]:
    """
    Those that this process holds; its other descriptors come and go.
    """
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {target for target in found if "weights" in target}


def test_another_hash_than_the_starters_is_refused() -> None:
    """
    A hash that was left in the settings when the model was changed is told, not passed over.
    """
    with pytest.raises(EncoderInvalid, match="leave it out"):
        load_encoder(EncoderSettings(checkpoint_sha256="0" * 64), CountingRecorder())
