"""
What a check finds, and how checks are run: each on its own, within its time, and none able to spoil another.
"""

import queue
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from worker.errors import TouchstoneError
from worker.flow.crew import Crew

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What one check came to. ``advice`` says what to do; empty if and only if nothing is to be done.
    """

    status: Status
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """
    One question about the deployment: ``look`` answers it or raises; ``advice`` is for whatever it raises.
    """

    name: str
    look: Callable[[], Finding]
    advice: str
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Checked:
    """
    A check's name and what it came to.
    """

    name: str
    finding: Finding


class Unanswerable(Exception):
    """
    A check cannot be made because of what another check reports; the message says which.
    """


def ok(text: str) -> Finding:
    """
    As it should be.
    """
    return Finding("ok", text)


def warning(text: str, advice: str) -> Finding:
    """
    The worker runs, but not as it should.
    """
    return Finding("warning", text, advice)


def failed(text: str, advice: str) -> Finding:
    """
    The worker does not run, or does not do what it is configured to do.
    """
    return Finding("failed", text, advice)


def skipped(why: str) -> Finding:
    """
    Not looked at.
    """
    return Finding("skipped", why)


def examine(checks: Iterable[Check]) -> Iterator[Checked]:
    """
    One finding per check, in order and as they come. A check that raises, or takes too long, is reported as failed.
    """
    for check in checks:
        yield Checked(check.name, _within_time(check))


def _within_time(check: Check) -> Finding:
    answer: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    Crew().start(f"doctor-{check.name}", lambda: answer.put(_answer(check)))
    try:
        return answer.get(timeout=check.timeout_s)
    except queue.Empty:
        return failed(f"no answer within {check.timeout_s:g} s", check.advice)


def _answer(check: Check) -> Finding:
    try:
        return check.look()
    except Unanswerable as why:
        return skipped(str(why))
    except TouchstoneError as error:
        return failed(str(error), check.advice)
    except Exception as fault:  # noqa: BLE001 - a check that crashes is itself a finding, and the next one is still made
        return failed(
            f"the check itself broke: {type(fault).__name__}: {fault}",
            f"{check.advice}; if that is all in order, report this as a defect of `touchstone doctor`",
        )
