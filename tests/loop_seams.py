"""
Scripts for whatever lies between two stages: who passes a seam, and what happens to whom there.

The seams themselves, around real stages, are in ``tests.loop_watched``.
"""

import threading
from collections.abc import Callable
from itertools import chain
from typing import Literal, get_args

from worker.domain import Sighting

Seam = Literal[
    "read_event",
    "fetch",
    "recall",
    "decode",
    "encode",
    "wants_shift",
    "bank",
    "judge",
    "fail",
    "dead_letter",
    "remember",
    "serialise",
]
"""Where something can happen, in the order of the way."""

ANYBODY = "*"
PERTURBED = " perturbed"
PATIENCE_S = 60.0
"""How long a test waits for what must happen, on a busy machine; nothing waits so long when all is well."""


class ThreadKilled(BaseException):
    """
    What no ``except Exception`` holds back.
    """


class Gate:
    """
    A script that stops whoever comes until it is opened.
    """

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrived = threading.Semaphore(0)

    def __call__(self) -> None:
        """
        Arrive, and wait.
        """
        self._arrived.release()
        if not self._open.wait(PATIENCE_S):
            raise AssertionError("nobody opened the gate")

    def wait_for_arrival(self, count: int = 1) -> None:
        """
        Return when so many more have come to the gate.
        """
        for _ in range(count):
            assert self._arrived.acquire(timeout=PATIENCE_S), "nobody came to the gate"

    def open(self) -> None:
        """
        Let everybody through, now and later.
        """
        self._open.set()


class Seams:
    """
    The scripts of one worker, and the record of who passed. Any thread may come by.

    Uploads go by their content id. Pictures, which several uploads may share, go by the path that refers to them; their
    perturbed copies by that path with ``PERTURBED`` behind it. ``grey`` are the pictures that the judge wants the shift
    of, and ``judged`` holds for each upload what it was judged by.
    """

    def __init__(self) -> None:
        self.calls: dict[Seam, list[tuple[str, ...]]] = {seam: [] for seam in get_args(Seam)}
        self.pictures: dict[bytes | str, str] = {}
        self.grey: set[str] = set()
        self.judged: dict[str, Sighting] = {}
        self._scripts: dict[tuple[Seam, str], Callable[[], None]] = {}
        self._gates: list[Gate] = []

    def at(self, seam: Seam, *names: str) -> None:
        """
        Somebody passes: it is recorded, and what was scripted happens.
        """
        self.calls[seam].append(names)
        for name in (*names, ANYBODY):
            script = self._scripts.get((seam, name))
            if script is not None:
                script()

    def passed(self, seam: Seam) -> list[str]:
        """
        Who has come to a seam, in order.
        """
        return list(chain.from_iterable(self.calls[seam]))

    def gate(self, seam: Seam, name: str = ANYBODY) -> Gate:
        """
        A gate at which ``name`` is stopped.
        """
        gate = Gate()
        self._gates.append(gate)
        self._scripts[seam, name] = gate
        return gate

    def fail(self, seam: Seam, name: str, fault: BaseException, *, times: int | None = None) -> None:
        """
        Let ``fault`` happen when ``name`` comes by, so many times.
        """
        left = [times]

        def strike() -> None:
            if left[0] is not None:
                if left[0] == 0:
                    return
                left[0] -= 1
            raise fault

        self._scripts[seam, name] = strike

    def open_all(self) -> None:
        """
        Nobody waits at any gate any more.
        """
        for gate in self._gates:
            gate.open()
