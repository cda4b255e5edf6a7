"""
Weights: a checkpoint file, verified against its hash, read as plain tensors and fitted into an image tower.

What is parsed is a private copy that was hashed while it was made, so that nobody can change the file in between.
Nothing is ever unpickled unrestricted. open_clip's own loaders are not used for reading: on old signatures they fall
back to an unrestricted ``torch.load``, and for OpenAI's files to ``torch.jit.load``.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from worker.adapters.clip_archive import is_torchscript, torchscript_tensors
from worker.adapters.clip_library import convert_state_dict, resize_pos_embed
from worker.errors import EncoderInvalid

PIECE_BYTES: Final = 8 * 1_048_576


@contextmanager
def verified_copy(path: Path, expected_sha256: str) -> Iterator[Path]:
    """
    A copy of a file that only this process has, held in memory where the system can, else in a temporary file.

    It takes as much room as the file while the context lasts. Raises ``EncoderInvalid`` when the file cannot be read or
    does not have the hash that is expected, before anything has looked into it.
    """
    with _private_file() as copy:
        found = _copied(path, copy)
        if found != expected_sha256:
            raise EncoderInvalid(
                f"the checkpoint {path} has sha256 {found}, the configuration expects {expected_sha256}: it is another "
                "or a damaged file; fetch it anew, or correct encoder.checkpoint_sha256 if this is the file you mean"
            )
        yield Path(copy.name if isinstance(copy.name, str) else f"/proc/self/fd/{copy.fileno()}")


def read_tensors(path: Path, expected_sha256: str) -> dict[str, torch.Tensor]:
    """
    The named tensors of a checkpoint: safetensors, a PyTorch file of tensors, or a TorchScript archive.

    Raises ``EncoderInvalid`` for a file of another hash and for anything else; whatever a file asks to be run is not.
    """
    with verified_copy(path, expected_sha256) as copy:
        return _unwrapped(_parsed(copy, path), path)


def _parsed(copy: Path, path: Path) -> object:
    """
    What is in the copy; ``path`` is where it came from, for messages and for the kind of file.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(copy)
        except (SafetensorError, OSError, ValueError) as error:
            raise EncoderInvalid(f"{path} is no readable safetensors file ({error}): fetch it anew") from error
    if path.suffix in (".npz", ".npy"):
        raise EncoderInvalid(f"{path} is a JAX checkpoint, which is not read: take the safetensors file of this model")
    if is_torchscript(copy):
        return torchscript_tensors(copy, named=path)
    try:
        loaded: object = torch.load(copy, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more, and its advice for the first is to
        # switch the restriction off: it is not repeated.
        raise EncoderInvalid(
            f"{path} is no file of plain tensors ({type(error).__name__}), and nothing else is unpickled: convert it "
            "to safetensors where it can be trusted, or fetch it anew if it is damaged"
        ) from error
    return loaded


def _private_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("weights"), "w+b", buffering=0)
    return tempfile.NamedTemporaryFile()


def _copied(path: Path, copy: IO[bytes]) -> str:
    """
    The sha256 of exactly the bytes that were copied.
    """
    digest = hashlib.sha256()
    piece = memoryview(bytearray(PIECE_BYTES))
    try:
        with path.open("rb", buffering=0) as source:
            while read := source.readinto(piece):
                digest.update(piece[:read])
                _written(piece[:read], copy)
        copy.flush()
    except OSError as error:
        raise EncoderInvalid(f"the checkpoint {path} cannot be read ({error.strerror}): check its path") from error
    return digest.hexdigest()


def _written(piece: memoryview, copy: IO[bytes]) -> None:
    while len(piece):
        piece = piece[copy.write(piece) :]


def fit(tower: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """
    Copy a checkpoint's image tower into ``tower``, in the tower's own precision; text is left aside.

    The names are converted as open_clip does. Raises ``EncoderInvalid`` when anything is missing, superfluous or of
    another shape.
    """
    holder = SimpleNamespace(visual=tower)
    try:
        converted = convert_state_dict(holder, tensors)
        resize_pos_embed(converted, holder)
        visual = {name.removeprefix("visual."): t for name, t in converted.items() if name.startswith("visual.")}
        tower.load_state_dict(visual, strict=True)
    except (RuntimeError, KeyError, AttributeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = " ".join(lines[:3])[:400]
        raise EncoderInvalid(
            f"the weights in {path} do not fit the architecture: {first} ... Name the architecture that they were "
            "trained with; checkpoints in other layouts than open_clip's are not converted"
        ) from error


def tensors_sha256(tower: torch.nn.Module) -> str:
    """
    The identity of a tower's weights: equal for equal values under equal names, whatever file they came in.

    Over each tensor in order of its name: name, type and shape as JSON, a zero byte, the values little-endian. To be
    taken from a tower in fp32, before it is cast to the precision it runs in.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode() + b"\0")
        digest.update(values.reshape(-1))
    return digest.hexdigest()


def _unwrapped(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    """
    The state dictionary inside what training scripts save: ``{"state_dict": ...}``, names that begin ``module.``.
    """
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(inner, dict):
        raise EncoderInvalid(f"{path} holds a {type(loaded).__name__}, want a dictionary of named tensors")
    tensors = {str(name).removeprefix("module."): value for name, value in inner.items() if torch.is_tensor(value)}
    if not tensors:
        raise EncoderInvalid(f"{path} holds no tensors: is it the weights file of this model?")
    return tensors
