"""
One round of a campaign: half a wave of uploads, a fault while they are under way, the other half, all answered.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.soak.fleet import Fleet
from tests.soak.tally import Tally


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something that is done to the fleet, and undone, while uploads are under way; ``begin`` is told the round's number.

    ``end`` brings back what was harmed; between the two the second half of the wave is sent, where ``sends`` says so:
    not while nobody takes it.
    """

    name: str
    begin: Callable[[Fleet, int], None]
    end: Callable[[Fleet, int], None] = lambda _fleet, _number: None
    sends: bool = True


def run(fleet: Fleet, faults: Sequence[Fault], *, campaign: str, rounds: int, wave: int) -> Tally:
    """
    Every fault in every round, and at the end all workers stopped in order: 0 is asked of each.
    """
    began_s = time.monotonic()
    injected = 0
    unanswered = []
    fleet.until_consuming()
    for number in range(rounds):
        for fault in faults:
            sent = fleet.send(wave // 2)
            fleet.until_some(sent, moment(number))
            fault.begin(fleet, number)
            injected += 1
            if fault.sends:
                sent = [*sent, *fleet.send(wave // 2)]
            fault.end(fleet, number)
            if not fault.sends:
                sent = [*sent, *fleet.send(wave // 2)]
            if not fleet.until_answered(sent):
                unanswered.append(f"round {number + 1}, {fault.name}: not all was answered in time")
                break
    for words in fleet.revived:
        sys.stderr.write(f"{campaign}: {words}\n")
    codes = {name: worker.stop() for name, worker in fleet.workers.items()}
    tally = fleet.tally(campaign, faults=injected, rounds=rounds, took_s=time.monotonic() - began_s)
    odd = [f"{name} left with {code} when it was told to stop" for name, code in codes.items() if code != 0]
    return replace(tally, wrong=(*unanswered, *odd, *tally.wrong))


def moment(number: int) -> float:
    """
    Which share of the first half is answered when the fault comes: another one in each round, and never all.
    """
    return 0.05 + 0.75 * (number * 0.618 % 1.0)
