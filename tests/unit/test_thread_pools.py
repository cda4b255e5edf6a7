"""
Who computes with how many threads: the encoder with those it is given, everybody else with one.
"""

import threading
from collections.abc import Callable

import faiss
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped] # it has no stubs

from worker.adapters import clip_device
from worker.settings.images import DecodeSettings
from worker.settings.tree import BankSettings, EncoderSettings, Settings
from worker.thread_pools import cores_shared_out, search_threads

CPU = Settings(encoder=EncoderSettings(device="cpu"))


def blas_threads() -> set[int]:
    """
    The sizes of the pools of linear algebra that are loaded.
    """
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def in_a_thread(work: Callable[[], object]) -> None:
    """
    Do it in a thread of its own, and wait.
    """
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_linear_algebra_has_one_thread_within() -> None:
    """
    While a pipeline runs NumPy multiplies on one thread; afterwards as before.
    """
    assert np.ones((2, 2)).sum() == 4  # or NumPy's would not be loaded
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with cores_shared_out(CPU):
            within = blas_threads()

        assert {2} == before == blas_threads()
        assert {1} == within


def test_the_thread_that_searches_has_its_own_count() -> None:
    """
    FAISS and torch search with one thread where that was called, and in no other thread is anything changed.
    """
    torch.set_num_threads(2)
    counts: dict[str, tuple[int, int]] = {}

    def count(name: str) -> None:
        counts[name] = (torch.get_num_threads(), faiss.omp_get_max_threads())

    with cores_shared_out(CPU) as before_searching:

        def search() -> None:
            before_searching()
            torch.rand(300, 300) @ torch.rand(300, 300)
            count("search")

        def encode() -> None:
            torch.rand(300, 300) @ torch.rand(300, 300)
            count("encode")

        in_a_thread(search)
        in_a_thread(encode)

    assert (1, 1) == counts["search"]
    assert 2 == counts["encode"][0]


def test_threads_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One beside an encoder on the CPU, the rest of the cores beside one on a GPU, and whatever is configured.
    """
    monkeypatch.setattr("worker.thread_pools.os.sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(clip_device, "on_gpu", lambda _: True)
    on_gpu = Settings(encoder=EncoderSettings(device="auto"), decode=DecodeSettings(threads=12))
    crowded = on_gpu.model_copy(update={"decode": DecodeSettings(threads=16)})
    told = CPU.model_copy(update={"bank": BankSettings(search_threads=3)})

    assert [1, 4, 1, 3] == [search_threads(one) for one in (CPU, on_gpu, crowded, told)]
