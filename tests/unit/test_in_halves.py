"""
Batches that do not fit into memory: what is let go of before the halves are tried.
"""

import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from tests.pictures import photograph
from tests.small_encoder import CountingRecorder
from worker.adapters.in_halves import encoded_in_halves
from worker.domain import Pixels
from worker.errors import UploadFailed

PICTURES: list[Pixels] = [np.asarray(photograph(8, 8, seed=number)) for number in range(5)]


class Activations:
    """
    What an encoder holds while it computes a batch.
    """


def test_what_did_not_fit_is_let_go_of_before_memory_is_tidied() -> None:
    """
    Neither the fault nor its traceback holds anything when ``tidy`` is called, and each half is then tried.
    """
    held: list[weakref.ref[Activations]] = []
    alive: list[bool] = []

    def encode(batch: Sequence[Pixels]) -> NDArray[np.float32]:
        activations = Activations()
        if len(batch) > 2:
            held.append(weakref.ref(activations))
            raise MemoryError(f"no room for {len(batch)}")
        return np.array([[picture.mean()] for picture in batch], dtype=np.float32)

    found = encoded_in_halves(
        encode,
        PICTURES,
        place="here",
        recorder=CountingRecorder(),
        tidy=lambda: alive.extend(one() is not None for one in held),
    )

    assert [[np.float32(picture.mean())] for picture in PICTURES] == found.tolist()
    assert [False, False, False] == alive  # of five, and of five and three


@pytest.mark.parametrize("said", ["", "bad alloc\nat line 3"])
def test_one_picture_that_does_not_fit_says_where(said: str) -> None:
    """
    The failure is the upload's, with the first line of what was said, if anything was.
    """
    recorder = CountingRecorder()

    def encode(_batch: Sequence[Pixels]) -> NDArray[np.float32]:
        raise MemoryError(said)

    with pytest.raises(UploadFailed, match=r"does not fit into memory: (bad alloc)?$") as caught:
        encoded_in_halves(encode, PICTURES[:2], place="into memory", recorder=recorder)

    assert ErrorCode.ENCODE_OUT_OF_MEMORY == caught.value.code
    assert {"encoder_out_of_memory_total": 2} == recorder.counts
