"""
What the machine computes on, and what follows from it for how many encode at once and what is advised.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from structlog.testing import capture_logs

from tests.bank_builders import a_picture
from tests.conftest import ROOT
from tests.doctor_parts import some_parts, there
from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.pictures import ANY_HASH
from worker import encoders
from worker.adapters import clip_device
from worker.adapters.clip_device import DeviceFacts, share_cores
from worker.adapters.exported_runtime import Room, room_of
from worker.doctor import model
from worker.domain import Pixels
from worker.encoders import (
    CPU_INSTANCES,
    GPU_INSTANCES,
    device_of,
    encode_threads,
    faster_in_bf16,
    for_pipeline,
)
from worker.flow.shared_encoder import SharedEncoder
from worker.settings.tree import EncoderSettings, Settings

PATIENCE_S = 60.0


def settings_of(**values: object) -> EncoderSettings:
    """
    Settings of an encoder.
    """
    return EncoderSettings.model_validate(values)


def on_cores(monkeypatch: pytest.MonkeyPatch, cores: int, torch_began_with: int | None = None) -> None:
    """
    A process that may use so many cores, on which torch began with as many threads unless told otherwise.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setattr(clip_device, "_AT_START", cores if torch_began_with is None else torch_began_with)


def test_how_many_encode_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a CPU as many, up to a number, as leave hardly a core over, and several on a GPU, unless it is configured.

    Other runtimes than torch have the CPU. With threads configured there is one instance, which has them.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for cores, on_cpu in ((1, 1), (3, 3), (4, 4), (5, 1), (6, 3), (9, 4), (10, 3), (13, 4), (64, CPU_INSTANCES)):
        on_cores(monkeypatch, cores)

        assert GPU_INSTANCES == encode_threads(settings_of()) == encode_threads(settings_of(device="cuda:1"))
        assert on_cpu == encode_threads(settings_of(device="cpu")) == encode_threads(settings_of(backend="openvino"))
        assert 1 == encode_threads(settings_of(device="cpu", threads=2))
    assert 5 == encode_threads(settings_of(instances=5)) == encode_threads(settings_of(instances=5, device="cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert CPU_INSTANCES == encode_threads(settings_of())


def test_a_pipeline_shares_the_cores_among_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All runtimes are given as many instances as encode at once, and each its share; who encodes alone has all cores.
    """
    on_cores(monkeypatch, 9)
    torch_has: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", torch_has.append)
    settings = settings_of(device="cpu", backend="openvino")
    within = for_pipeline(settings)
    share_cores(within.device, threads=within.threads, instances=within.instances)
    share_cores(settings.device, threads=settings.threads, instances=settings.instances)

    assert (Room(threads=2, instances=4), Room(threads=9, instances=1)) == (room_of(within), room_of(settings))
    assert [2] == torch_has


@given(cores=st.integers(1, 200))
def test_instances_leave_at_most_an_eighth_of_the_cores(cores: int) -> None:
    """
    No larger number of instances does, and there are never more than cores.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        on_cores(monkeypatch, cores)
        room = room_of(for_pipeline(settings_of(backend="openvino")))
    more = range(room.instances + 1, min(cores, CPU_INSTANCES) + 1)

    assert 7 * cores <= 8 * room.threads * room.instances <= 8 * cores
    assert all(cores - number * (cores // number) > cores / 8 for number in more)


@pytest.mark.parametrize(
    ("began_with", "instances", "shares"), [(1, 1, []), (2, 2, [1]), (8, 4, [2]), (64, 4, [16]), (99, 4, [16])]
)
def test_torch_has_no_more_threads_than_it_began_with(
    began_with: int, instances: int, shares: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    ``OMP_NUM_THREADS`` holds on a host of many cores, however often encoders are loaded; one alone is left as it is.
    """
    on_cores(monkeypatch, 64, torch_began_with=began_with)
    torch_has: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", torch_has.append)
    for _ in range(2):
        found = for_pipeline(settings_of(device="cpu"))
        share_cores(found.device, threads=found.threads, instances=found.instances)

        assert instances == found.instances
    assert 2 * shares == torch_has


def test_omp_num_threads_is_what_torch_begins_with() -> None:
    """
    In a process of its own: what is set there before torch is loaded bounds its threads and the encodings at once.
    """
    asked = (
        "from worker.encoders import encode_threads; from worker.settings.tree import EncoderSettings; "
        "import worker.adapters.clip_device as device; found = encode_threads(EncoderSettings(device='cpu')); "
        "device.share_cores('cpu', threads=0, instances=found); print(found, device.torch_cores())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "1 1" == done.stdout.strip()


def test_the_name_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As torch calls it: a GPU where the setting comes to one, and the CPU for other runtimes than torch.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert ("cuda", "cuda:1") == (device_of(settings_of()), device_of(settings_of(device="cuda:1")))
    assert ("cpu", "cpu") == (device_of(settings_of(device="cpu")), device_of(settings_of(backend="openvino")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cpu" == device_of(settings_of())


@pytest.mark.parametrize(
    ("values", "has", "expected"),
    [
        ({}, True, True),
        ({"precision": "fp32"}, True, True),
        ({}, False, False),
        ({"precision": "bf16"}, True, False),
        ({"backend": "onnxruntime"}, True, False),
    ],
)
def test_who_is_told_of_bf16(
    values: dict[str, object], has: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever computes in fp32 with torch on a CPU that has bf16, and nobody else.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(encoders, "cpu_features", lambda: encoders.BF16 if has else frozenset())

    assert expected == faster_in_bf16(settings_of(**values))


def test_nobody_with_a_gpu_is_told_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a GPU the automatic precision is bf16 already.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(encoders, "cpu_features", lambda: encoders.BF16)

    assert not faster_in_bf16(settings_of())


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
def test_any_instructions_for_bf16_will_do(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    AVX512's, AMX's or ARM's; AVX512 alone has none.
    """
    monkeypatch.setattr(encoders, "cpu_features", lambda: frozenset({"avx512f", feature}))
    assert faster_in_bf16(settings_of(device="cpu"))

    monkeypatch.setattr(encoders, "cpu_features", lambda: frozenset({"avx512f", "avx512_vnni"}))
    assert not faster_in_bf16(settings_of(device="cpu"))


def test_the_gain_is_the_ratio_of_the_best_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of this process's CPU: what else delays some of the products counts for nothing.
    """
    now_s, delays_s = 0.0, cycle([0.5, 0.0, 3.0])

    def multiplied(left: torch.Tensor, _right: torch.Tensor) -> None:
        nonlocal now_s
        now_s += (0.5 if left.dtype == torch.float32 else 0.125) + next(delays_s)

    monkeypatch.setattr("worker.adapters.clip_device.torch.mm", multiplied)
    monkeypatch.setattr("worker.adapters.clip_device.time.process_time", lambda: now_s)

    assert 4.0 == clip_device.bf16_gain()


def test_the_doctor_says_what_bf16_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In the line of the device, as measured, and without making a warning of it.
    """
    monkeypatch.setattr(model, "survey_device", lambda _: DeviceFacts("2", 1, None))
    monkeypatch.setattr(model, "faster_in_bf16", lambda _: True)
    monkeypatch.setattr(model, "bf16_gain", lambda: 4.25)
    found = model.device(Settings(encoder=settings_of(device="cpu")), some_parts(encoder=there(FakeEncoder())))

    assert "ok" == found.status
    assert 'multiplies 4.2 times as fast in bf16: see encoder.precision = "bf16"' in found.text


def test_the_doctor_counts_the_threads_of_all_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each that encodes at the same time has as many: together more than there are cores is a warning.
    """
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setattr(model, "survey_device", lambda _: DeviceFacts("2", cores, None))
    monkeypatch.setattr(model, "faster_in_bf16", lambda _: False)
    one, two = (
        model.device(
            Settings(encoder=settings_of(device="cpu", instances=instances)), some_parts(encoder=there(FakeEncoder()))
        )
        for instances in (1, 2)
    )

    assert ("ok", "warning") == (one.status, two.status)
    assert f"{2 * cores} threads on {cores} cores" in two.text


def test_a_shared_encoder_lets_in_as_many_as_it_is_told() -> None:
    """
    Two calls of three are inside together; the third waits for one of them.
    """
    inside, leave = threading.Semaphore(0), threading.Event()
    most, now, turn = 0, 0, threading.Lock()

    class Slow(FakeEncoder):
        """
        Stays inside until it is told to leave.
        """

        def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
            """
            As the fake, in its time.
            """
            nonlocal most, now
            with turn:
                now += 1
                most = max(most, now)
            inside.release()
            assert leave.wait(PATIENCE_S)
            with turn:
                now -= 1
            return super().encode(pixels)

    shared = SharedEncoder(Slow(), calls=2)
    picture = fake_decoder().decode(a_picture(1), ANY_HASH).pixels
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(shared.encode, [picture]) for _ in range(3)]
        assert inside.acquire(timeout=PATIENCE_S)
        assert inside.acquire(timeout=PATIENCE_S)
        leave.set()

    assert 2 == most
    assert 1 == len({one.result().tobytes() for one in found})


@pytest.mark.parametrize("faster", [False, True])
def test_the_start_says_so(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One line with what to set, where it would help, and none where not.
    """
    monkeypatch.setattr(encoders, "faster_in_bf16", lambda _: faster)
    with capture_logs() as lines:
        encoders.advise_bf16(settings_of())

    assert faster == bool(lines)
    assert all('encoder.precision = "bf16" encodes faster; banks' in line["advice"] for line in lines)
