"""
Building over actors, with Ray's side played in this process: order, losses, strangers and refusals.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.bank_builders import a_source, build_small, snapshot
from tests.fake_encoder import FakeEncoder, fake_embedder
from tests.ray_actors import open_fake, order
from worker.adapters import ray_embedding
from worker.adapters.ray_cluster import cluster
from worker.adapters.ray_embedding import EmbeddingActor, Job, Opening, RayEngine
from worker.adapters.ray_room import RayRoom
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.sources import Reference
from worker.bank.survey import Surveyed
from worker.domain import ContentHash, Label
from worker.errors import CannotStart, ConfigInvalid, EncoderInvalid, WorkerCrashed

Rows = list[Mapping[str, Any]]
Change = Callable[[Rows], Rows]


def shuffled(rows: Rows) -> Rows:
    """
    The answers in an order of their own, each of them twice.
    """
    return random.Random(5).sample([*rows, *rows], 2 * len(rows))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], list[Job]]:
    """
    Ray's side in this process: one actor does all jobs, and its answers come back changed; gives the jobs it had.
    """

    def play(change: Change) -> list[Job]:
        had: list[Job] = []

        def streamed(jobs: Sequence[Job], opening: Opening, _room: RayRoom, _actors: int) -> Iterator[Any]:
            had.extend(jobs)
            actor = EmbeddingActor(opening)
            yield from change([row for table in actor(pa.Table.from_pylist(list(jobs))) for row in table.to_pylist()])

        @contextmanager
        def connected(room: RayRoom) -> Iterator[int]:
            yield room.actors or 1

        monkeypatch.setattr(ray_embedding, "_streamed", streamed)
        monkeypatch.setattr(ray_embedding, "cluster", connected)
        monkeypatch.setattr("worker.bank.embedding.PART", 3)
        return had

    return play


def over_ray(
    text: str | None = None, open_embedder: Callable[[str], ReferenceEmbedder] = open_fake
) -> ReferenceEmbedder:
    """
    The fake embedder, whose work is done by an actor that opens what this order says.
    """
    return replace(fake_embedder(), engine=RayEngine(RayRoom(actors=1), open_embedder, text or order()))


def test_order_of_answers_does_not_matter(tmp_path: Path, played: Callable[[Change], list[Job]]) -> None:
    """
    Whatever finishes first, and though answers come twice: the bank and what was skipped are those of threads here.
    """
    played(shuffled)
    source = a_source(tmp_path / "source", reals=12, fakes=9)
    for name in ("real/004a.png", "real/001a.png", "fake/mill/003a.png"):
        (source / name).write_bytes(b"no picture " + name.encode())
    over = build_small(source, tmp_path / "ray", over_ray(), max_skipped=0.5)
    here = build_small(source, tmp_path / "local", max_skipped=0.5)

    assert 3 == len(over.skipped)
    assert here.skipped == over.skipped
    assert snapshot(tmp_path / "local") == snapshot(tmp_path / "ray")


def test_a_file_that_only_the_actor_lacks_is_skipped_with_its_path(
    tmp_path: Path, played: Callable[[Change], list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A path that a node does not reach costs that reference, and its path is told.
    """
    played(list)
    source = a_source(tmp_path / "source")
    read = Path.read_bytes

    def unreachable(path: Path) -> bytes:
        if path.name == "002.png" and path.parent.name == "real":
            raise FileNotFoundError(2, "No such file or directory")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", unreachable)
    report = build_small(source, tmp_path / "bank", over_ray(), max_skipped=0.5)

    assert [("real/002.png", f"{source}/real/002.png: No such file or directory")] == [
        (one.name, one.detail) for one in report.skipped
    ]


def test_what_the_workshop_has_is_not_sent(tmp_path: Path, played: Callable[[Change], list[Job]]) -> None:
    """
    A build that was broken off sends only what is missing; with nothing missing no cluster is asked for.
    """
    had = played(lambda rows: rows[:2])
    source = a_source(tmp_path / "source")
    with pytest.raises(WorkerCrashed, match="2 parts never came back"):
        build_small(source, tmp_path / "bank", over_ray())
    assert 10 == sum(len(json.loads(str(job["references"]))) for job in had)

    had = played(list)
    report = build_small(source, tmp_path / "bank", over_ray())

    assert 6 == report.reused
    assert 4 == sum(len(json.loads(str(job["references"]))) for job in had)
    assert [] == list(over_ray().engine(fake_embedder(), []))  # type: ignore[misc]  # it has one


def test_another_encoder_is_refused(tmp_path: Path, played: Callable[[Change], list[Job]]) -> None:
    """
    An actor with other weights ends the build before anything of it is kept, and both encoders are named.
    """
    played(list)
    mine, theirs = (FakeEncoder(weights=weights).fingerprint.id[:12] for weights in (1, 2))
    said = rf"it has encoder fake/pooled in fp32 \({theirs}\), here fake/pooled in fp32 \({mine}\)"

    with pytest.raises(CannotStart, match=said):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", over_ray(order(weights=2)))
    assert [] == list((tmp_path / "bank.partial").glob("part-*"))


def test_other_decoders_are_refused(
    tmp_path: Path, played: Callable[[Change], list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A node with another Pillow would see other pixels under the same encoder: it is refused too.
    """
    played(list)
    versions = iter([{"pillow": "12.3.0"}, {"pillow": "11.0.0"}])
    monkeypatch.setattr("worker.bank.part_exchange.decoder_versions", lambda _: next(versions))

    with pytest.raises(CannotStart, match=r"it has pillow 11\.0\.0, here 12\.3\.0\. Every node needs"):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", over_ray())


def test_an_encoder_that_cannot_be_opened_is_told(tmp_path: Path, played: Callable[[Change], list[Job]]) -> None:
    """
    What an actor's encoder says of its model file reaches the operator, with the node's name.
    """
    played(list)

    def missing(_order: str) -> ReferenceEmbedder:
        raise EncoderInvalid("model.safetensors is not there")

    with pytest.raises(CannotStart, match=r"an actor on \S+ cannot open the encoder: model.safetensors is not there"):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", over_ray(open_embedder=missing))


def test_an_encoder_that_gives_up_in_an_actor_is_told(tmp_path: Path, played: Callable[[Change], list[Job]]) -> None:
    """
    A refusal in the middle of a job ends the build, though the job's first answer came already.
    """
    played(list)

    def weak(_order: str) -> ReferenceEmbedder:
        return fake_embedder(FakeEncoder(fail_after=6))

    with pytest.raises(CannotStart, match="the encoder gave up on"):
        build_small(a_source(tmp_path / "source", reals=30, fakes=30), tmp_path / "bank", over_ray(open_embedder=weak))


@pytest.mark.parametrize(("count", "size", "actors"), [(1, 3, 4), (10, 3, 1), (1000, 7, 2), (5000, 51, 3)])
def test_jobs_are_whole_parts(count: int, size: int, actors: int) -> None:
    """
    Together the jobs are all references in order, each cut where parts are cut: batches are those of a build here.
    """
    wanted = [
        Surveyed(Reference(Path(f"/{number}"), str(number), Label("real")), ContentHash(f"{number:064x}"))
        for number in range(count)
    ]
    jobs = ray_embedding._jobs(wanted, size, actors)
    sent = [[row[0] for row in json.loads(str(job["references"]))] for job in jobs]

    assert [str(number) for number in range(count)] == [name for names in sent for name in names]
    assert all(len(names) % size == 0 for names in sent[:-1])
    assert [sum(map(len, sent[:number])) for number in range(len(sent))] == [job["first"] for job in jobs]


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "http://10.0.0.1:8265"])
def test_a_ray_client_is_refused(address: str) -> None:
    """
    Such an address is of another way into Ray; the message says which is expected.
    """
    with pytest.raises(ConfigInvalid, match="expected auto or HOST:PORT"), cluster(RayRoom(address=address)):
        pass
