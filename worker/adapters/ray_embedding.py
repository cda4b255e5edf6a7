"""
References embedded by Ray Data actors: each opens encoder and decoder once, and calls ``ReferenceEmbedder.parts``.

What is said in between stands in ``worker.bank.part_exchange``; how a cluster is reached, in
``worker.adapters.ray_cluster``. Ray restarts an actor that dies, and gives its work to others.
"""

import logging
import platform
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
from ray.data import ActorPoolStrategy, DataContext, Dataset, from_items
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from worker.adapters.ray_cluster import cluster
from worker.adapters.ray_room import RayRoom
from worker.bank.embedding import Parts, ReferenceEmbedder
from worker.bank.part_exchange import (
    Answer,
    Station,
    answer_of,
    asked_text,
    read_answer,
    read_asked,
    station_of,
)
from worker.bank.survey import Surveyed
from worker.errors import CannotStart, TouchstoneError, WorkerCrashed

PARTS_PER_JOB: Final = 8
"""An actor decodes one part of its job while it encodes the one before; of so many, it waits for one decoding only."""

JOBS_PER_ACTOR: Final = 4
"""At least so many, where there are parts enough: so that no actor is still at work long after the others."""

MOST_BLOCKS: Final = 4096
"""Ray keeps notes on each; of more jobs, several are in one block. A block is begun again where its actor dies."""

RETRIES: Final = 5
"""How often a job is begun again whose actor died, before the build is given up."""

_NEEDED: Final = (
    "Every node needs this touchstone-worker, the same model files, and the same encoder.precision (auto differs "
    "between CPU and GPU)"
)

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")

_ANSWERS: Final = pa.schema(
    [("first", pa.int64()), ("refused", pa.string()), ("facts", pa.string()), ("tensors", pa.binary())]
)

OpenEmbedder = Callable[[str], ReferenceEmbedder]
Job = Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Opening:
    """
    How an actor comes to its embedder: a function that every node can import, and the text it is called with.

    The actor must then stand where the build stands.
    """

    open_embedder: OpenEmbedder
    order: str = field(repr=False)
    station: Station


class EmbeddingActor:
    """
    One encoder and decoder on some node. What it cannot do it says in its answers, so that no exception is pickled.
    """

    def __init__(self, opening: Opening) -> None:
        self._embedder: ReferenceEmbedder | None = None
        self._refused = ""
        try:
            self._embedder = opening.open_embedder(opening.order)
        except TouchstoneError as fault:
            self._refused = f"an actor on {platform.node()} cannot open the encoder: {fault}. {_NEEDED}"
            return
        if different := opening.station.differences(station_of(self._embedder)):
            self._refused = f"an actor on {platform.node()} would come to other numbers: it has {different}. {_NEEDED}"

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """
        The answers to each job's parts, one table each; to a job that cannot be done, one that says why.
        """
        for job in rows.to_pylist():
            if self._embedder is None or self._refused:
                yield _refusal(job["first"], self._refused)
                continue
            try:
                yield from self._answers(self._embedder, job)
            except TouchstoneError as fault:
                yield _refusal(job["first"], str(fault))

    @staticmethod
    def _answers(embedder: ReferenceEmbedder, job: Mapping[str, Any]) -> Iterator[pa.Table]:
        first = job["first"]
        for part in embedder.parts(read_asked(job["references"]), job["part_size"]):
            answer = answer_of(part, embedder)
            yield _table(first=first, refused="", facts=answer.facts, tensors=answer.tensors)
            first += part.references


@dataclass(frozen=True, slots=True)
class RayEngine:
    """
    Implements ``worker.bank.embedding.Engine``: ``open_embedder`` is called with ``order`` once in each actor.
    """

    room: RayRoom
    open_embedder: OpenEmbedder
    order: str = field(repr=False)

    def __call__(self, embedder: ReferenceEmbedder, wanted: Sequence[Surveyed]) -> Parts:
        """
        The parts as they are finished; no cluster is started where nothing is wanted.

        Raises ``CannotStart`` when the cluster cannot be used or an actor is not what this embedder is, and
        ``WorkerCrashed`` when actors die again and again or answer what nobody asked.
        """
        if not wanted:
            return
        opening = Opening(self.open_embedder, self.order, station_of(embedder))
        size = embedder.part_size
        waiting = {first: wanted[first : first + size] for first in range(0, len(wanted), size)}
        with cluster(self.room) as actors:
            try:
                for row in _streamed(_jobs(wanted, size, actors), opening, self.room, actors):
                    if row["refused"]:
                        raise CannotStart(row["refused"])
                    # An answer may come twice where an actor died behind it.
                    if (asked := waiting.pop(row["first"], None)) is not None:
                        yield read_answer(Answer(row["facts"], row["tensors"]), asked, embedder)
            except RayError as fault:
                raise WorkerCrashed(
                    f"the Ray cluster gave up: {_said(fault)}. What was embedded is kept: find out why actors end "
                    "(memory of the nodes?), and the same command goes on from there"
                ) from fault
        if waiting:
            raise WorkerCrashed(f"{len(waiting)} parts never came back from the Ray cluster; run the command again")


def _jobs(wanted: Sequence[Surveyed], part_size: int, actors: int) -> list[Job]:
    """
    The rows to be worked off, a job each: consecutive parts, cut here so that they are the same everywhere.
    """
    parts = -(-len(wanted) // part_size)
    step = part_size * max(1, min(PARTS_PER_JOB, parts // (JOBS_PER_ACTOR * actors)))
    return [
        {"first": first, "part_size": part_size, "references": asked_text(wanted[first : first + step])}
        for first in range(0, len(wanted), step)
    ]


def _streamed(jobs: Sequence[Job], opening: Opening, room: RayRoom, actors: int) -> Iterator[Mapping[str, Any]]:
    """
    The answers' rows as they come, with bounded memory: Ray holds its actors back while nobody takes them.
    """
    _quieten()
    blocks = min(len(jobs), MOST_BLOCKS)
    with warnings.catch_warnings():
        # Ray names no other way to bound the retries; by itself it would begin a job that kills its actor for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        answers: Dataset = from_items(list(jobs), override_num_blocks=blocks).map_batches(
            EmbeddingActor,
            fn_constructor_args=(opening,),
            compute=ActorPoolStrategy(size=min(actors, blocks)),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=room.cpus,
            num_gpus=room.gpus or None,
            max_task_retries=RETRIES,
        )
    tables: Iterable[pa.Table] = answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in tables:
        yield from table.to_pylist()


def _quieten() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Each answer leaves its actor as soon as it is made, rather than with the 128 MiB that Ray would gather.
    context.target_max_block_size = 1
    # What goes wrong is told once, by us.
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _table(**values: int | str | bytes) -> pa.Table:
    return pa.table({name: [value] for name, value in values.items()}, schema=_ANSWERS)


def _refusal(first: int, reason: str) -> pa.Table:
    # It may name a file whose name is no UTF-8, which Arrow's text must be.
    reason = reason.encode("utf-8", "backslashreplace").decode()
    return _table(first=first, refused=reason, facts="", tensors=b"")


def _said(fault: Exception) -> str:
    """
    What ended and why: the first and the last line of Ray's report, without its colours.
    """
    lines = [line.strip() for line in _COLOURS.sub("", str(fault)).splitlines() if line.strip()]
    return ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or type(fault).__name__
