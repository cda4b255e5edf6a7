"""
What searching a bank costs by its size: per micro-batch, beside encoding one, through each index that a worker may use.

The banks are ``worker.bench.clustered``'s. What an approximate index finds is compared with exact search on uploads,
not on references, so that the trial of `touchstone bank index` does not vouch for itself; and on queries that are
like nothing in the bank, since whoever uploads may choose them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Final

import numpy as np

from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_cell_scan import CellScan
from worker.adapters.faiss_half_scan import HalfScan
from worker.adapters.faiss_indexing import index_tools
from worker.adapters.faiss_shelf import Shelf
from worker.bank.files import StoredBank
from worker.bank.indexing import tried
from worker.bank.manifest import MIN_SEARCH_QUALITY
from worker.bank.search_quality import Asked, SearchQuality, compared, default_depth, neighbourhoods
from worker.bench.clustered import clustered_bank, strangers, uploads
from worker.bench.measurement import Measured, interleaved
from worker.bench.targets import Target
from worker.domain import Embedding
from worker.fitting.one_thread import one_thread
from worker.settings.tree import BankSettings

BATCHES: Final = (1, 16, 32, 64)
OF_SHARE: Final = 32
"""The micro-batch of which the share of the encode time is told."""

MOST_SHARE: Final = 0.05
"""Of the encode time of that micro-batch, what a search is to take at most, up to a million references."""

CELLS_FROM: Final = 100_000
"""Below so many references exact search is cheap, and no index is made."""

SINGLE_UP_TO: Final = 200_000
"""Up to so many references FAISS's own exact index is measured beside: it holds the vectors once more."""

_QUERIES: Final = 1_000
"""Of uploads, and as many strangers: where none of 1,000 is decided otherwise, 99.7 % are not (95 % confidence)."""

_FRESH: Final = 2_048
"""Uploads that searches take in turn: what one search has read must not lie ready for the next."""

_LEAST_S: Final = 0.03
"""A round repeats a search until it has taken so long: clocks of CPU time are coarse."""

_TRIAL: Final = 500

Tell = Callable[[str, int, int], None]
Times = dict[tuple[str, int], tuple[float, float]]
"""CPU and wall milliseconds by index and micro-batch."""


@dataclass(frozen=True, slots=True)
class IndexCost:
    """
    One index over one bank; figures are milliseconds of CPU time per micro-batch, by its size.

    ``strangers_cpu_ms`` is that of ``OF_SHARE`` queries like nothing in the bank. ``quality`` is None for an exact
    index, else that of uploads or of strangers, whichever is worse. ``build_cpu_s`` is paid once, in `touchstone bank
    index`, ``load_cpu_s`` at each start. ``memory_bytes`` are the index's own: the bank's vectors in half precision lie
    beside it, in any case.
    """

    name: str
    identity: str
    cpu_ms: Mapping[int, Measured]
    wall_ms: Mapping[int, Measured]
    strangers_cpu_ms: Measured
    load_cpu_s: float
    memory_bytes: int
    build_cpu_s: float = 0.0
    quality: SearchQuality | None = None


@dataclass(frozen=True, slots=True)
class BankCost:
    """
    One size of bank: every index over it, and what encoding ``OF_SHARE`` pictures cost in the same rounds.
    """

    entries: int
    indexes: Sequence[IndexCost]
    encode_cpu_ms: float

    def share(self, index: IndexCost) -> float:
        """
        Of the encode time of a micro-batch, what the search takes.
        """
        return index.cpu_ms[OF_SHARE].median / self.encode_cpu_ms

    def share_for_strangers(self, index: IndexCost) -> float:
        """
        Likewise where every picture of the micro-batch is unlike the bank, as nobody uploads them unless to mislead.
        """
        return index.strangers_cpu_ms.median / self.encode_cpu_ms

    @property
    def within_target(self) -> bool:
        """
        Whether what a worker would use costs no more than it may, and finds as much as it must.
        """
        return all(target.met for target in self.targets)

    @property
    def targets(self) -> list[Target]:
        """
        The cost of what a worker would use, and where that is approximate what it finds.
        """
        size, quality = f"{self.entries:,} references", self.chosen.quality
        cost = Target(f"search_share_of_encode, {size}", MOST_SHARE, round(self.share(self.chosen), 4), at_least=False)
        if quality is None:
            return [cost]
        recall = Target(f"recall@{quality.depth}, {size}", MIN_SEARCH_QUALITY, round(quality.recall, 5))
        return [cost, recall, Target(f"equal_votes, {size}", MIN_SEARCH_QUALITY, round(quality.agreement, 5))]

    @property
    def chosen(self) -> IndexCost:
        """
        What a worker would use: the index that the bank carries, else exact search as this processor does it.
        """
        return next((one for one in self.indexes if one.name == "cells"), self.indexes[0])


@dataclass(frozen=True, slots=True)
class _Opened:
    bank: FaissBank
    load_cpu_s: float
    memory_bytes: int
    build_cpu_s: float = 0.0


def bank_cost(
    entries: int, dim: int, *, encode: Callable[[], object] | float, rounds: int, tell: Tell = lambda *_: None
) -> BankCost:
    """
    The cost of searching a bank of so many references; ``encode`` encodes ``OF_SHARE`` pictures, or is the time for it.
    """
    tell(f"{entries} references: making them", 0, 1)
    stored, directions = clustered_bank(entries, dim)
    asked, strange = uploads(stored, directions, _FRESH), strangers(directions, _FRESH)
    tell(f"{entries} references: making them", 1, 1)
    opened = _all_opened(stored, tell)
    depth = default_depth(opened["exact"].bank)
    times = _timed(opened, (asked, strange), depth, encode, rounds=rounds, tell=tell, entries=entries)
    quality = _quality(opened, (asked[:_QUERIES], strange[:_QUERIES]), depth)
    costs = [
        IndexCost(
            name,
            one.bank.identity.index,
            {batch: _figure(entries, name, batch, "CPU", [cpu for cpu, _ in times[name, batch]]) for batch in BATCHES},
            {
                batch: _figure(entries, name, batch, "wall", [wall for _, wall in times[name, batch]])
                for batch in BATCHES
            },
            _figure(entries, name, OF_SHARE, "CPU, strangers", [cpu for cpu, _ in times[_strange(name), OF_SHARE]]),
            one.load_cpu_s,
            one.memory_bytes,
            one.build_cpu_s,
            quality if name == "cells" else None,
        )
        for name, one in opened.items()
    ]
    encoded = [cpu for cpu, _ in times["encode", OF_SHARE]] if callable(encode) else [float(encode)]
    return BankCost(entries, costs, Measured.of("encode", "ms", encoded).median)


def _quality(
    opened: Mapping[str, _Opened], kinds: tuple[Sequence[Embedding], Sequence[Embedding]], depth: int
) -> SearchQuality | None:
    if "cells" not in opened:
        return None
    of_kinds = []
    for asked in kinds:
        queries = Asked(asked, [None] * len(asked))
        exact, cells = (neighbourhoods(opened[name].bank, queries, depth=depth) for name in ("exact", "cells"))
        of_kinds.append(compared(exact, cells, depth=depth))
    return of_kinds[0].worse(of_kinds[1])


def _strange(name: str) -> str:
    return f"{name}, strangers"


def _all_opened(stored: StoredBank, tell: Tell) -> dict[str, _Opened]:
    opened = {"exact": _open(stored, BankSettings(index="flat"))}
    if len(stored.entries) <= SINGLE_UP_TO:
        opened["exact, single precision"] = _open(stored, BankSettings(index="flat", flat_scan="single"))
    if len(stored.entries) >= CELLS_FROM:
        # Exact search is open already, and a million references take seconds and a gigabyte once more.
        tools = replace(index_tools(BankSettings()), open_exact=lambda _: opened["exact"].bank)
        began = time.process_time()
        cells = tools.make(stored, tell)
        build_cpu_s = time.process_time() - began
        record = tried(stored, cells, tools=tools, sample=_TRIAL, progress=tell)
        carried = replace(stored, manifest=stored.manifest.model_copy(update={"search": record}), search=cells)
        opened["cells"] = replace(_open(carried, BankSettings()), build_cpu_s=build_cpu_s)
    return opened


def _open(stored: StoredBank, settings: BankSettings) -> _Opened:
    began = time.process_time()
    bank = FaissBank(stored, settings)
    load_cpu_s = time.process_time() - began
    return _Opened(bank, load_cpu_s, sum(_bytes_of(shelf, stored) for shelf in bank.shelves.values()))


def _bytes_of(shelf: Shelf, stored: StoredBank) -> int:
    if isinstance(shelf.index, HalfScan | CellScan):
        return shelf.index.nbytes
    return len(shelf.rows) * stored.manifest.encoder.dim * np.dtype(np.float32).itemsize


def _timed(
    opened: Mapping[str, _Opened],
    kinds: tuple[Sequence[Embedding], Sequence[Embedding]],
    depth: int,
    encode: Callable[[], object] | float,
    *,
    rounds: int,
    tell: Tell,
    entries: int,
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """
    CPU and wall milliseconds of each round, by index and micro-batch; all take turns, encoding among them.
    """
    contenders: dict[str, Callable[[], Times]] = {
        name: partial(_searched, name, one.bank, kinds=kinds, depth=depth, starts={batch: count() for batch in BATCHES})
        for name, one in opened.items()
    }
    if callable(encode):
        contenders["encode"] = partial(_encoded, encode)
    for contender in contenders.values():
        contender()  # threads, caches and entries are made by the first search
    total = rounds * len(contenders)
    done = [0]

    def on_done(_name: str, _round: int) -> None:
        done[0] += 1
        tell(f"{entries} references: searching", done[0], total)

    results = interleaved(contenders, rounds, on_done=on_done)
    return {key: [one[key] for one in of_name] for of_name in results.values() for key in of_name[0]}


def _searched(
    name: str,
    bank: FaissBank,
    *,
    kinds: tuple[Sequence[Embedding], Sequence[Embedding]],
    depth: int,
    starts: Mapping[int, Iterator[int]],
) -> Times:
    def next_of(asked: Sequence[Embedding], batch: int) -> object:
        start = next(starts[batch]) * batch % (len(asked) - batch)
        return bank.nearest(asked[start : start + batch], depth)

    asked, strange = kinds
    with one_thread():  # as a worker searches beside an encoder on a CPU
        times = {(name, batch): _took_ms(partial(next_of, asked, batch)) for batch in BATCHES}
        return {**times, (_strange(name), OF_SHARE): _took_ms(partial(next_of, strange, OF_SHARE))}


def _encoded(encode: Callable[[], object]) -> Times:
    return {("encode", OF_SHARE): _took_ms(encode)}


def _took_ms(action: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    times = 0
    while times == 0 or time.perf_counter() - wall < _LEAST_S:
        action()
        times += 1
    return 1000 * (time.process_time() - cpu) / times, 1000 * (time.perf_counter() - wall) / times


def _figure(entries: int, name: str, batch: int, clock: str, values: Sequence[float]) -> Measured:
    return Measured.of(f"{entries} {name}, micro-batch {batch}", f"ms {clock}", values)
