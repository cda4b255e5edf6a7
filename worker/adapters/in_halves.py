"""
A batch of pictures that does not fit into memory, encoded in halves until it does.

What computes a batch, and how its shortage of memory shows, is each encoder's own affair.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from worker.domain import Pixels
from worker.errors import UploadFailed
from worker.ports import Recorder

_TOLD = 200


def encoded_in_halves(
    encode: Callable[[Sequence[Pixels]], NDArray[np.float32]],
    batch: Sequence[Pixels],
    *,
    place: str,
    recorder: Recorder,
    tidy: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """
    What ``encode`` makes of the pictures, in order; where it raises ``MemoryError``, of each half by itself.

    ``tidy`` is called each time that a batch did not fit, when nothing holds what was computed of it any more. Raises
    ``UploadFailed`` (ENCODE_OUT_OF_MEMORY) when not even one picture fits; ``place`` ends the sentence that says so.
    """
    try:
        return encode(batch)
    except MemoryError as error:
        said = next(iter(str(error).splitlines()), "")[:_TOLD]
    # Outside of the handler: the exception's traceback would keep what did not fit.
    recorder.count("encoder_out_of_memory_total")
    tidy()
    if len(batch) == 1:
        raise UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, f"one picture does not fit {place}: {said}")
    half = (len(batch) + 1) // 2
    halves = (batch[:half], batch[half:])
    return np.concatenate(
        [encoded_in_halves(encode, part, place=place, recorder=recorder, tidy=tidy) for part in halves]
    )
