"""
One round of a campaign: half a wave of uploads, a fault while they are under way, the other half, all answered.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.platform_side import Published
from tests.soak.fleet import Fleet
from tests.soak.tally import Tally


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something that is done to the fleet, and undone, while uploads are under way; ``begin`` is told the round's number.

    ``end`` brings back what was harmed; between the two the second half of the wave is sent, where ``sends`` says so:
    not while nobody takes it. Only where ``may_crash`` says so may a worker end by itself with 4, to be started again:
    where brokers are away for longer than it may wait for them, or another producer has its transactional id.
    """

    name: str
    begin: Callable[[Fleet, int], None]
    end: Callable[[Fleet, int], None] = lambda _fleet, _number: None
    sends: bool = True
    may_crash: bool = False


def run(fleet: Fleet, faults: Sequence[Fault], *, campaign: str, rounds: int, wave: int) -> Tally:
    """
    Every fault in every round, and at the end all workers stopped in order: 0 is asked of each.

    What breaks off is told in the tally, beside all that was counted until then.
    """
    began_s = time.monotonic()
    injected = 0
    wrong: list[str] = []
    place = "before the first round"
    try:
        fleet.until_consuming()
        for number, fault in ((number, fault) for number in range(rounds) for fault in faults):
            place = f"round {number + 1}, {fault.name}"
            sent = fleet.send(wave // 2)
            fleet.until_some(sent, moment(number))
            injected += 1
            sent = _harmed(fleet, fault, number, sent, wave)
            answered = fleet.until_answered(sent)
            if fault.may_crash:
                # Or a worker that ends a moment later would seem to end under the next fault.
                fleet.until_settled()
            wrong += _crashes(fleet, fault, place)
            if not answered:
                wrong.append(f"{place}: not all was answered in time")
                break
    except Exception as fault:  # noqa: BLE001 - what was counted so far still counts, and the table tells of it
        traceback.print_exc()
        wrong.append(broken_off(place, fault))
    wrong += fleet.stop()
    tally = fleet.tally(campaign, faults=injected, rounds=rounds, took_s=time.monotonic() - began_s)
    return replace(tally, wrong=(*wrong, *tally.wrong))


def _harmed(fleet: Fleet, fault: Fault, number: int, sent: Sequence[Published], wave: int) -> Sequence[Published]:
    """
    The fault has come and gone; all that was sent before, meanwhile or after.
    """
    fault.begin(fleet, number)
    if fault.sends:
        sent = [*sent, *fleet.send(wave // 2)]
    fault.end(fleet, number)
    return sent if fault.sends else [*sent, *fleet.send(wave // 2)]


def _crashes(fleet: Fleet, fault: Fault, place: str) -> Sequence[str]:
    """
    What is wrong with the crashes since the last time: nothing where the fault may bring them about.
    """
    crashed = fleet.crashed_lately()
    return [] if fault.may_crash else [f"{place}: {words}" for words in crashed]


def broken_off(place: str, fault: BaseException) -> str:
    """
    For the table; the rest of what an assertion says, such as the end of a log, is on stderr.
    """
    first = next(iter(str(fault).splitlines()), "")
    return f"{place}: broke off, {type(fault).__name__}: {first[:200]}"


def moment(number: int) -> float:
    """
    Which share of the first half is answered when the fault comes: another one in each round, and never all.
    """
    return 0.05 + 0.75 * (number * 0.618 % 1.0)
