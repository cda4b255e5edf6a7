"""
The naive loops do the worker's job, and nothing less: the same neighbours for the same picture.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small_encoder import loaded
from worker.adapters.faiss_bank import FaissBank
from worker.bank.files import load_bank
from worker.bench.banks import write_random_bank
from worker.bench.corpus import KINDS, write_pictures
from worker.bench.live import lane_environ
from worker.bench.naive import judge_one, judge_one_by_one
from worker.bench.naive_batched import judge_together
from worker.bench.naive_tools import Embedder, NaiveJob, NaiveTools, References
from worker.bench.uploads import file_events
from worker.dev.small_encoder import write_small_encoder
from worker.domain import ContentHash, Embedding
from worker.settings.tree import BankSettings
from worker.stages.decode import DecodeLimits, PillowDecoder

REFERENCES = 300
PICTURES = 5
K = 7


@dataclass
class Record:
    """
    A record as kafka-python gives it.
    """

    key: bytes
    value: bytes


@dataclass
class FakeRedis:
    """
    A dictionary with the few calls that the loops make.
    """

    kept: dict[str, bytes] = field(default_factory=dict)

    def get(self, key: str) -> bytes | None:
        """
        One value.
        """
        return self.kept.get(key)

    def set(self, key: str, value: bytes, ex: int) -> None:
        """
        Keep a value for a while.
        """
        assert ex > 0
        self.kept[key] = value

    def mget(self, keys: list[str]) -> list[bytes | None]:
        """
        Several values.
        """
        return [self.kept.get(key) for key in keys]

    def pipeline(self, *, transaction: bool) -> "FakeRedis":
        """
        Itself: it does at once what it is told.
        """
        assert not transaction
        return self

    def execute(self) -> None:
        """
        All is done already.
        """


@dataclass
class FakeKafka:
    """
    A consumer of some records and a producer, which keeps the order of what is done.
    """

    records: list[Record]
    done: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def send(self, topic: str, *, key: bytes, value: bytes) -> None:
        """
        A verdict is on its way.
        """
        self.done.append(f"sent {json.loads(value)['content_id']} to {topic} as {key.decode()}")

    def commit(self) -> None:
        """
        The offsets so far are committed.
        """
        self.done.append("committed")


@dataclass(frozen=True)
class World:
    """
    A small encoder, a bank of random references and some pictures.
    """

    tools: NaiveTools
    records: list[Record]
    worker_nearest: list[list[tuple[str, str, float]]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """
    The tools of a naive loop, and what the worker's own encoder and bank say of the same pictures.
    """
    folder = tmp_path_factory.mktemp("naive")
    small = write_small_encoder(folder / "encoder")
    encoder = loaded(small)
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), perceptual_hash=None)
    bank = write_random_bank(folder / "banks", REFERENCES, encoder=encoder, decoder=decoder)
    paths = write_pictures(folder / "pictures", PICTURES, KINDS["20kb"])
    job = NaiveJob(
        "", "uploads", "verdicts", "g", "", "ns", str(folder / "pictures"), str(small.folder), str(bank), K, 1, "cpu"
    )
    records = [Record(event.key, event.value) for event in file_events("run", paths)]
    kafka: Any = FakeKafka(records)
    tools = NaiveTools(job, kafka, kafka, FakeRedis(), Embedder.load(small.folder, "cpu"), References.load(bank))
    data = [(folder / "pictures" / path).read_bytes() for path in paths]
    pixels = [decoder.decode(one, ContentHash("0" * 64)).pixels for one in data]
    embeddings = [Embedding.from_features(row) for row in encoder.encode(pixels)]
    found = FaissBank(load_bank(bank), BankSettings()).nearest(embeddings, K)
    nearest = [
        sorted(
            ((near.entry.id, str(label), near.similarity) for label, all_of in one.nearest.items() for near in all_of),
            key=lambda near: -near[2],
        )[:K]
        for one in found
    ]
    return World(tools, records, nearest)


def neighbours_in(verdict: bytes) -> list[tuple[str, str, float]]:
    """
    What a naive verdict says.
    """
    return [(one["id"], one["label"], one["similarity"]) for one in json.loads(verdict)["neighbours"]]


def test_the_naive_loop_finds_the_workers_neighbours(world: World) -> None:
    """
    The same references in the same order, cosines within what float16 in the worker's embedding rounds away.
    """
    found = [neighbours_in(judge_one(world.tools, record)) for record in world.records]

    for naive, worker in zip(found, world.worker_nearest, strict=True):
        assert {name for name, _, _ in naive} == {name for name, _, _ in worker}
        assert [label for _, label, _ in naive].count("real") == [label for _, label, _ in worker].count("real")
        assert np.allclose([near[2] for near in naive], [near[2] for near in worker], atol=2e-3)


def test_batches_say_what_single_uploads_say(world: World) -> None:
    """
    The batched loop's verdicts are the naive one's, with an empty Redis and with a full one.
    """
    alone = [neighbours_in(judge_one(world.tools, record)) for record in world.records]
    world.tools.redis.kept.clear()
    fresh = [neighbours_in(one) for one in judge_together(world.tools, world.records)]
    kept = len(world.tools.redis.kept)
    again = [neighbours_in(one) for one in judge_together(world.tools, world.records)]

    assert kept == PICTURES
    for one, other, third in zip(alone, fresh, again, strict=True):
        assert [near[0] for near in one] == [near[0] for near in other] == [near[0] for near in third]
        assert np.allclose([near[2] for near in one], [near[2] for near in other], atol=1e-5)


def test_the_naive_loop_computes_where_the_worker_does(world: World) -> None:
    """
    Model and pictures go to the device that the job names, and vectors come back from it.
    """
    seen: list[torch.device] = []

    class Model:
        """
        Looks where its pictures are.
        """

        def encode_image(self, images: torch.Tensor, *, normalize: bool) -> torch.Tensor:
            """
            Vectors of nothing.
            """
            assert normalize
            seen.append(images.device)
            return torch.zeros(len(images), 3)

    moved = Embedder.load(Path(world.tools.job.model_folder), "meta")
    found = Embedder(Model(), moved.transform, "meta").vectors_of([torch.zeros(3, 4, 4)] * 2)

    assert {"meta"} == {one.device.type for one in moved.model.parameters()}
    assert [torch.device("meta")] == seen
    assert (2, 3) == found.shape


def test_each_upload_is_sent_and_committed(world: World) -> None:
    """
    One after the other: a verdict is sent before its offset is committed.
    """
    judge_one_by_one(world.tools)

    sent = [f"sent run/{number} to verdicts as run/{number}" for number in range(PICTURES)]
    assert world.tools.consumer.done == [step for one in sent for step in (one, "committed")]


def test_no_contender_is_held_back_by_the_callers_environment() -> None:
    """
    Neither the caller's configuration nor a limit of threads, which the worker would get round, reaches a contender.
    """
    mine = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOUCHSTONE__BATCH__SIZE": "1", "REDIS_URL": "redis://x"}

    assert lane_environ({**mine, "PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_job_survives_the_command_line(world: World) -> None:
    """
    What the process is told is what was meant.
    """
    assert NaiveJob.from_json(world.tools.job.as_json()) == world.tools.job
