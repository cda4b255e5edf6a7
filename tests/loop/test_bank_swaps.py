"""
The bank is exchanged while uploads flow: each verdict names one bank, nothing is lost, doubled or out of order.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bank_builders import GENERATED, REAL, a_picture, a_stored_bank
from tests.brute_force_bank import BruteForceBank
from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.loop_rig import KNOWN_GENERATED, KNOWN_REAL, Tuning, Worker, shipped_policy
from tests.loop_seams import Gate
from tests.loop_world import World, each, eventually
from tests.pictures import ANY_HASH
from tests.release_rig import enlarged, resident_bytes
from tests.release_worlds import BY, WatchedPlace
from worker.domain import BankIdentity, Embedding, Neighbourhood, RawEvent, Sighting
from worker.errors import EventUnreadable
from worker.flow.bank_judge import BankJudge
from worker.flow.judging import Judge
from worker.flow.stage_set import StageSet
from worker.flow.swapping_judge import SwappingJudge
from worker.flow.travellers import Failed, Known
from worker.outcomes import Outcome, VerdictIssued
from worker.ports import Bank, Clock
from worker.stages.report import PolicyIdentity, RunVersions

Delivered = Literal["at_least_once", "exactly_once"]

SWAPS = 50
LARGE = 8_000
UPLOADS = 400


@cache
def banks() -> tuple[BruteForceBank, BruteForceBank]:
    """
    Two releases over one encoder: version 1 of eight pictures of each label, version 2 of six.
    """
    encoder, decoder = FakeEncoder(), fake_decoder()
    found = []
    for version, count in (("1", 8), ("2", 6)):
        rows: dict[str, NDArray[np.floating]] = {
            label: np.asarray(
                encoder.encode([decoder.decode(a_picture(first + at), ANY_HASH).pixels for at in range(count)])
            )
            for label, first in ((REAL, KNOWN_REAL), (GENERATED, KNOWN_GENERATED))
        }
        stored = a_stored_bank(rows)
        manifest = stored.manifest.model_copy(update={"version": version})
        found.append(BruteForceBank(replace(stored, manifest=manifest, manifest_sha256=version * 64)))
    return found[0], found[1]


class SwappedWorker(Worker):
    """
    A worker whose judge can be exchanged; ``batches`` holds the banks that the verdicts of each batch named.

    The first bank is searched through ``gate``, and a swap asks for the time through ``halfway``, both closed until a
    test opens them. ``whole`` tells of each batch whether all that was encoded together was judged in it.
    """

    def _surrounded(self, stages: StageSet) -> StageSet:
        self.batches: list[set[str]] = []
        self.whole: list[bool] = []
        self.gate, self.halfway = Gate(), Gate()
        clock, recorder, policy = self.world.clock, self.recorder, shipped_policy()
        identity = PolicyIdentity(policy.id, policy.version, policy.sha256)
        self.judges = tuple(
            BankJudge(
                bank, policy, RunVersions(self.encoder.fingerprint, bank.identity, identity, "0", {}), clock, recorder
            )
            for bank in (GatedBank(banks()[0], self.gate), banks()[1])
        )
        self.swapping = SwappingJudge(self.judges[0], GatedClock(clock, self.halfway))
        return replace(stages, judge=Noting(self.swapping, self.batches, self.whole))

    def has_judged(self, before: int) -> bool:
        """
        Whether there were more batches than so many, or there is nobody left to judge.
        """
        return len(self.batches) > before or self.world.all_answered()


class GatedClock:
    """
    A clock whose wall time is behind a gate.
    """

    def __init__(self, clock: Clock, gate: Gate) -> None:
        self._clock = clock
        self._gate = gate

    def monotonic_s(self) -> float:
        """
        As the clock's.
        """
        return self._clock.monotonic_s()

    def wall_s(self) -> float:
        """
        As the clock's, once it is let through.
        """
        self._gate()
        return self._clock.wall_s()


class GatedBank:
    """
    A bank behind a gate.
    """

    def __init__(self, bank: Bank, gate: Gate) -> None:
        self._bank = bank
        self._gate = gate

    @property
    def identity(self) -> BankIdentity:
        """
        As the bank's.
        """
        return self._bank.identity

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        As the bank does, once it is let through.
        """
        self._gate()
        return self._bank.nearest(embeddings, k)


class Noting:
    """
    Notes which banks the verdicts of each call name, and whether micro-batches came to it whole.
    """

    def __init__(self, inner: Judge, batches: list[set[str]], whole: list[bool]) -> None:
        self._inner = inner
        self._batches = batches
        self._whole = whole

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        As always.
        """
        outcomes = self._inner.judge(known)
        issued = [one for one in outcomes if isinstance(one, VerdictIssued)]
        # Of micro-batches of n pictures, a multiple of n: none is shared between two calls.
        encoded = Counter(size for one in known if (size := one.provenance.batch_size) is not None)
        self._whole.append(not any(count % size for size, count in encoded.items()))
        self._batches.append({one.verdict.versions.bank.manifest_sha256 for one in issued})
        return outcomes

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        As always.
        """
        return self._inner.wants_shift(sightings)

    def fail(self, failed: Failed) -> Outcome:
        """
        As always.
        """
        return self._inner.fail(failed)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        As always.
        """
        return self._inner.dead_letter(raw, unreadable)


@pytest.fixture
def world() -> Iterator[World]:
    """
    Three partitions.
    """
    with World() as found:
        yield found


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_fifty_swaps_under_load(world: World, delivery: Delivered) -> None:
    """
    Order and conservation hold, no micro-batch is judged by two banks, and both banks have judged.
    """
    worker = SwappedWorker(world, Tuning(delivery=delivery, max_in_flight=32))
    worker.gate.open()
    worker.halfway.open()
    names = [f"{number:03d}.png" for number in range(UPLOADS)]
    for number, name in enumerate(names):
        world.publish(name, partition=number % 3)
    run = worker.start()
    for swap in range(SWAPS):
        worker.swapping.swap(worker.judges[(swap + 1) % 2])
        # Until somebody was judged by it: fifty swaps between two batches would be one.
        eventually(partial(worker.has_judged, len(worker.batches)))
    eventually(world.all_answered)
    report = run.drained()
    verdicts = world.verdicts()

    assert world.ends() == each(names, "judged")
    assert [world.judged(number) for number in range(3)] == [names[number::3] for number in range(3)]
    assert max(len(banks) for banks in worker.batches) == 1
    assert all(worker.whole)
    assert {(one.versions.bank.version, one.versions.bank.entries) for one in verdicts} == {("1", 16), ("2", 12)}
    assert report.released == UPLOADS


def test_a_swap_waits_for_no_batch(world: World) -> None:
    """
    A batch that is being judged ends by the bank it began with; the next one is judged by the new.
    """
    worker = SwappedWorker(world)
    worker.halfway.open()
    world.publish("slow.png")
    run = worker.start()
    worker.gate.wait_for_arrival()
    worker.swapping.swap(worker.judges[1])
    world.publish("next.png")
    worker.gate.open()
    eventually(world.all_answered)
    run.drained()

    assert {one.content_id: one.versions.bank.version for one in world.verdicts()} == {"slow.png": "1", "next.png": "2"}


def test_nobody_waits_for_a_swap(world: World) -> None:
    """
    Uploads are judged, by the old bank, while a swap has stopped halfway: it holds no lock, for no time at all.
    """
    worker = SwappedWorker(world)
    worker.gate.open()
    run = worker.start()
    swap = threading.Thread(target=worker.swapping.swap, args=(worker.judges[1],), daemon=True)
    swap.start()
    worker.halfway.wait_for_arrival()
    world.publish("meanwhile.png")
    eventually(world.all_answered)
    worker.halfway.open()
    swap.join()
    world.publish("afterwards.png")
    eventually(world.all_answered)
    run.drained()

    assert [(one.content_id, one.versions.bank.version) for one in world.verdicts()] == [
        ("meanwhile.png", "1"),
        ("afterwards.png", "2"),
    ]


def test_failed_uploads_name_the_bank_of_their_time(world: World) -> None:
    """
    Also a verdict without a judgement says under which bank it was given.
    """
    worker = SwappedWorker(world)
    worker.halfway.open()
    worker.swapping.swap(worker.judges[1])
    world.publish("gone.png", picture="missing.png")
    worker.finish()

    assert [(one.outcome.status, one.versions.bank.version) for one in world.verdicts()] == [("failed", "2")]


@pytest.mark.alone
@pytest.mark.slow
def test_memory_is_back_at_its_level_after_fifty_swaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While another thread searches without a pause; banks that stayed behind would add half the level to it.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    for number, bank in enumerate(place.banks):
        place.releases.publish(enlarged(bank, tmp_path / f"large-{number}", more=LARGE), f"large-{number}")
    watch = place.watch()
    stop = threading.Event()
    searches = threading.Thread(target=search_until, args=(watch._judge, stop), daemon=True)
    searches.start()
    levels = []
    try:
        for swap in range(10 + SWAPS):
            watch.follow(place.releases.activate(f"large-{swap % 2}", BY))
            levels.append(resident_bytes())
    finally:
        stop.set()
        searches.join()
    plateau, last = float(np.median(levels[5:15])), float(np.median(levels[-10:]))

    assert watch.status().swaps == 10 + SWAPS
    assert abs(last / plateau - 1) < 0.05


def search_until(swapping: SwappingJudge, stop: threading.Event) -> None:
    """
    Search whatever bank is in use, again and again.
    """
    rows = np.random.default_rng(3).normal(size=(16, FakeEncoder().fingerprint.dim)).astype(np.float32)
    embeddings = [Embedding.from_features(row) for row in rows]
    while not stop.wait(0.001):
        judge = swapping._held.judge
        assert isinstance(judge, BankJudge)
        judge.bank.nearest(embeddings, 5)
