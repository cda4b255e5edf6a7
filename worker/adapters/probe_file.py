"""
The published linear probe of UniversalFakeDetect: its file, read as plain tensors. Nothing is unpickled beyond that.
"""

import hashlib
import io
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
import torch

from worker.errors import EncoderInvalid
from worker.heads.probe import LegacyProbe

_MEANT: Final = "want weight [1, d] and bias [1], as in fc_weights.pth of UniversalFakeDetect"


def read_probe_file(path: Path, *, dim: int, expected: Collection[str] = ()) -> LegacyProbe:
    """
    The probe in a file of the authors' format, for an encoder of ``dim`` dimensions (768: ViT-L-14-quickgelu).

    Raises ``EncoderInvalid`` for a file that cannot be read, holds anything but the two tensors, or is of another
    dimension, or has none of the ``expected`` sha256, where there are any. The file's sha256 is kept in the head, so
    that every judgement says which probe it holds.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EncoderInvalid(f"the probe {path} cannot be read ({error.strerror}): check its path") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if expected and sha256 not in expected:
        raise EncoderInvalid(
            f"the probe {path} has sha256 {sha256}, expected {' or '.join(sorted(expected))}: it is another file, or "
            "damaged; nothing of it was loaded"
        )
    try:
        # The bytes that were hashed: the file may be another one by now.
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # saved on a GPU by its authors
    except Exception as error:
        # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more, and its advice for the first is to
        # switch the restriction off: it is not repeated.
        raise EncoderInvalid(
            f"{path} is no file of plain tensors ({type(error).__name__}), and nothing else is unpickled; {_MEANT}"
        ) from error
    tensors = loaded if isinstance(loaded, dict) else {}
    found = {
        str(name): list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        for name, tensor in tensors.items()
    }
    weights = found.get("weight")
    if not isinstance(weights, list) or found != {"weight": [1, weights[-1] if weights else 0], "bias": [1]}:
        raise EncoderInvalid(f"{path} holds {found or type(loaded).__name__}; {_MEANT}")
    if weights[1] != dim:
        raise EncoderInvalid(
            f"the probe {path} is for {weights[1]} dimensions, the encoder has {dim}: the published probe is for "
            "ViT-L-14-quickgelu with OpenAI's weights; use that encoder, or leave the probe out"
        )
    weight = tensors["weight"].double().numpy()[0].copy()
    bias = float(tensors["bias"].double()[0])
    if not (np.isfinite(weight).all() and np.isfinite(bias)):
        raise EncoderInvalid(f"the probe {path} holds numbers that are not finite: fetch it anew")
    return LegacyProbe(weight=weight, bias=bias, sha256=sha256)
