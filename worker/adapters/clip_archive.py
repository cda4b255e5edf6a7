"""
TorchScript archives, the form of OpenAI's own files: their tensors, without running any of the program they are.

``torch.jit.load`` would run it, and ``torch.load(weights_only=True)`` refuses them. Here the archive's pickle is read
by an unpickler that can make tensors, dictionaries and empty records, and nothing else; code is never opened.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from worker.errors import EncoderInvalid

_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS: Final = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def is_torchscript(path: Path) -> bool:
    """
    Whether the file is a TorchScript archive rather than a checkpoint of plain tensors.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def torchscript_tensors(path: Path, *, named: Path) -> dict[str, torch.Tensor]:
    """
    The tensors of the archive's modules under their dotted names, as ``state_dict`` would name them.

    ``named`` is what messages call it. Raises ``EncoderInvalid`` when the archive is damaged or its pickle asks for
    anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, "data.pkl")) as pickled:
            root = _TensorUnpickler(pickled, archive, named).load()
    except EncoderInvalid:
        raise
    except Exception as error:
        raise EncoderInvalid(
            f"{named} cannot be read as a TorchScript archive ({error}): fetch the file anew"
        ) from error
    if not isinstance(root, _Record):
        raise EncoderInvalid(f"{named} is a TorchScript archive of a {type(root).__name__}, want one of a module")
    return dict(_tensors(root, ""))


class _Record:
    """
    Stands in for a scripted module: whatever its pickle sets becomes an attribute, and nothing is called.
    """


class _TensorUnpickler(pickle.Unpickler):
    """
    Resolves the handful of names that tensors need; every other name ends the reading.
    """

    def __init__(self, pickled: object, archive: zipfile.ZipFile, named: Path) -> None:
        super().__init__(pickled)  # type: ignore[arg-type]  # a zip member reads like any binary file
        self._archive = archive
        self._named = named

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return _Record
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        raise EncoderInvalid(
            f"{self._named} asks for {module}.{name}, which tensors do not need: do not trust this file"
        )

    def persistent_load(self, pid: object) -> torch.Tensor:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel)):
                stored = bytearray(self._archive.read(_member(self._archive, f"data/{key}")))
                return torch.frombuffer(stored, dtype=dtype)[:numel] if numel else torch.empty(0, dtype=dtype)
            case _:
                raise EncoderInvalid(f"{self._named} holds a storage of an unknown kind: fetch it anew")


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> torch.Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _member(archive: zipfile.ZipFile, end: str) -> str:
    """
    The member under the archive's one root folder, whose name is the file's name when it was written.
    """
    root = archive.namelist()[0].split("/", maxsplit=1)[0]
    return f"{root}/{end}"


def _tensors(record: _Record, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in vars(record).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Record):
            yield from _tensors(value, f"{prefix}{name}.")
