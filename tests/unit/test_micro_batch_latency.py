"""
What the closing of micro-batches costs an upload, reckoned with the real batcher and a clock that a test moves.

One encoder; every picture is on its way for as long as it takes to decode one. No threads and no real time.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.fake_outcomes import ManualClock
from worker.bench.arrivals import arrival_times
from worker.bench.latencies import percentile
from worker.flow.coming import Coming
from worker.flow.micro_batch import MicroBatcher

SIZE = 8
DEADLINE_S = 0.02
ON_THE_WAY_S = 0.008
FIXED_S, PICTURE_S = 0.004, 0.012
FULL_S = FIXED_S + SIZE * PICTURE_S
CAPACITY_PER_S = SIZE / FULL_S


@dataclass(frozen=True, slots=True)
class Run:
    """
    Seconds from setting out to being encoded, by upload, and the sizes of the micro-batches.
    """

    latencies_s: Sequence[float]
    batches: Sequence[int]

    def p99_s(self) -> float:
        """
        Of a hundred, the second slowest.
        """
        return percentile(sorted(self.latencies_s), 0.99)


def reckoned(times: Sequence[float], *, knowing: bool = True) -> Run:
    """
    Uploads that set out at these times; ``knowing``: the batcher knows who is on the way.
    """
    clock, coming = ManualClock(), Coming()
    batcher: MicroBatcher[float] = MicroBatcher(
        size=SIZE, deadline_s=DEADLINE_S, clock=clock, coming=coming if knowing else None
    )
    # In this order at one moment: who sets out is counted before anybody else arrives.
    events = [(at_s, 0, at_s) for at_s in times]
    heapq.heapify(events)
    free_s = 0.0
    latencies: list[float] = []
    batches: list[int] = []
    while events:
        clock.now_s, kind, began_s = heapq.heappop(events)
        if kind == 0:
            coming.more()
            heapq.heappush(events, (clock.now_s + ON_THE_WAY_S, 1, began_s))
        elif kind == 1:
            batcher.put(began_s)
            coming.fewer()
            # A moment behind the deadline, so that rounding does not put it before.
            heapq.heappush(events, (clock.now_s + DEADLINE_S + 1e-9, 2, began_s))
        if clock.now_s < free_s or batcher.due(clock.now_s) is None:
            continue
        taken = batcher.take()
        assert taken is not None
        free_s = clock.now_s + FIXED_S + len(taken[0]) * PICTURE_S
        heapq.heappush(events, (free_s, 2, 0.0))
        latencies += [free_s - one for one in taken[0]]
        batches.append(len(taken[0]))
    return Run(latencies, batches)


@pytest.mark.parametrize("seed", range(5))
def test_at_half_of_the_capacity_p99_is_within_a_deadline_and_two_batches(seed: int) -> None:
    """
    Of 3,000 uploads that arrive at random; what decoding takes is beside it.
    """
    found = reckoned(arrival_times("poisson", rate=CAPACITY_PER_S / 2, count=3_000, seed=seed))

    assert 3_000 == len(found.latencies_s) == sum(found.batches)
    assert found.p99_s() <= ON_THE_WAY_S + DEADLINE_S + 2 * FULL_S


def test_a_lone_upload_waits_for_nothing() -> None:
    """
    At a tenth of the capacity uploads come one by one: each takes what decoding and encoding it take, and no deadline.
    """
    times = arrival_times("even", rate=CAPACITY_PER_S / 10, count=200)
    alone_s = ON_THE_WAY_S + FIXED_S + PICTURE_S

    assert {round(alone_s, 6)} == {round(one, 6) for one in reckoned(times).latencies_s}
    assert {round(alone_s + DEADLINE_S, 6)} == {round(one, 6) for one in reckoned(times, knowing=False).latencies_s}


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_knowing_who_comes_makes_nobody_slower_on_the_mean(load: float) -> None:
    """
    At every load the mean latency is at most that of waiting for the deadline, and much lower at low load.
    """
    times = arrival_times("poisson", rate=CAPACITY_PER_S * load, count=3_000, seed=1)
    knowing, waiting = (reckoned(times, knowing=each).latencies_s for each in (True, False))
    gain_s = (sum(waiting) - sum(knowing)) / len(times)

    assert gain_s >= 0
    assert load > 0.3 or gain_s > DEADLINE_S / 3


def test_a_backlog_is_encoded_in_full_micro_batches() -> None:
    """
    What lies there all at once is worked off as fast as full micro-batches are, knowing or not.
    """
    times = [0.0] * (40 * SIZE)
    knowing, waiting = reckoned(times), reckoned(times, knowing=False)

    assert [SIZE] * 40 == knowing.batches == waiting.batches
    assert max(knowing.latencies_s) == pytest.approx(ON_THE_WAY_S + 40 * FULL_S)
