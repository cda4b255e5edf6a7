"""
Weights: a checkpoint file, verified against its hash, read as plain tensors and fitted into an image tower.

Nothing is ever unpickled unrestricted. open_clip's own loaders are not used for reading: on old signatures they fall
back to an unrestricted ``torch.load``, and for OpenAI's files to ``torch.jit.load``.
"""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed
from safetensors import SafetensorError
from safetensors.torch import load_file

from worker.adapters.clip_archive import is_torchscript, torchscript_tensors
from worker.errors import EncoderInvalid


def verify(path: Path, expected_sha256: str) -> None:
    """
    The file has the hash that the configuration declares, else ``EncoderInvalid``; called before anything is parsed.
    """
    found = file_sha256(path)
    if found != expected_sha256:
        raise EncoderInvalid(
            f"the checkpoint {path} has sha256 {found}, the configuration expects {expected_sha256}: it is another or "
            "a damaged file; fetch it anew, or correct encoder.checkpoint_sha256 if this is the file you mean"
        )


def file_sha256(path: Path) -> str:
    """
    The sha256 of a file; ``EncoderInvalid`` where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderInvalid(f"the checkpoint {path} cannot be read ({error.strerror}): check its path") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """
    The named tensors of a checkpoint: safetensors, a PyTorch file of tensors, or a TorchScript archive.

    Raises ``EncoderInvalid`` for anything else; whatever a file asks to be run is not run.
    """
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(path), path)
        except (SafetensorError, OSError, ValueError) as error:
            raise EncoderInvalid(f"{path} is no readable safetensors file ({error}): fetch it anew") from error
    if path.suffix in (".npz", ".npy"):
        raise EncoderInvalid(f"{path} is a JAX checkpoint, which is not read: take the safetensors file of this model")
    if is_torchscript(path):
        return _unwrapped(torchscript_tensors(path), path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more, and its advice for the first is to
        # switch the restriction off: it is not repeated.
        raise EncoderInvalid(
            f"{path} is no file of plain tensors ({type(error).__name__}), and nothing else is unpickled: convert it "
            "to safetensors where it can be trusted, or fetch it anew if it is damaged"
        ) from error
    return _unwrapped(loaded, path)


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
        digest.update(values.tobytes())
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
