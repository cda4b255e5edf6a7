"""
What a stress run says of the workers: the account, the latencies, the rate, and whether all that was asked of it holds.

The run itself is in ``stress.py``; how a result is shown is the command's affair.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from worker.bench.arrivals import rate_of
from worker.bench.conservation import MOST_NAMED, Balance, Fault, FaultKind, balance
from worker.bench.latencies import Latencies, percentile
from worker.bench.stress import StressPlan, StressRun

MOST_LATE_S: Final = 0.25
"""By which one upload in a hundred may leave too late: more, and the latencies are the sender's."""

JUDGED: Final = ("decided", "abstained")
"""How an upload ends of which something was said; a failure is an end as well, and a quick one."""

_MEANS: Final[dict[FaultKind, str]] = {
    "missing": "uploads have no outcome",
    "twice": "uploads have two different outcomes",
    "repeated": "uploads have the same outcome more than once",
    "foreign": "outcomes answer no upload of this run",
    "out_of_order": "outcomes left behind that of a later upload of their partition",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What the operator asks.

    Of drops it is the share of uploads without an outcome, of failures that of outcomes without a judgement, and of
    latencies milliseconds.
    """

    max_drop: float = 0.0
    max_failed: float = 0.0
    max_p50_ms: float | None = None
    max_p99_ms: float | None = None
    allow_repeats: bool = False


@dataclass(frozen=True, slots=True)
class StressResult:
    """
    All figures of a run.

    ``broken`` says in sentences which promise or limit does not hold; ``unfit``, why the run itself was not the one
    that was asked for.
    """

    run: str
    uploads: int
    acknowledged: int
    ended: int
    drop_rate: float
    statuses: dict[str, int]
    planned_per_s: float | None
    attained_per_s: float | None
    sent_late_p99_ms: float
    answered_per_s: float | None
    latency: Latencies
    retried: int
    faults: tuple[Fault, ...]
    broken: tuple[str, ...]
    unfit: tuple[str, ...]

    def as_object(self) -> dict[str, object]:
        """
        For JSON; ``ok`` is whether all holds.
        """
        plain = asdict(self)
        plain["faults"] = {
            fault.kind: {"count": fault.count, "examples": list(fault.examples)} for fault in self.faults
        }
        return {"ok": not self.broken and not self.unfit, **plain}


def result_of(plan: StressPlan, run: StressRun, limits: Limits) -> StressResult:
    """
    Set a run against what was planned and what is asked.

    Latencies count from the moment at which an upload was to be sent, so that a sender that waits for the workers hides
    nothing; an upload without an outcome is the slowest of all.
    """
    found = balance(run.stored.values(), run.outcomes, run=plan.run, unsure=run.unsure(plan.run))
    at_s = {one.event_id: run.began_s + plan.times[number] for number, one in run.stored.items()}
    ends = {event_id: end for event_id, end in found.ends.items() if event_id in at_s}
    missing = found.count("missing")
    latency = Latencies.of((end.arrived_s - at_s[event_id] for event_id, end in ends.items()), missing=missing)
    drop_rate = missing / len(run.stored) if run.stored else 1.0
    late = sorted(sent - planned for sent, planned in zip(run.sent_s, plan.times, strict=False))
    late_p99_s = percentile(late, 0.99) if late else 0.0
    planned, attained = rate_of(list(plan.times)), rate_of(run.sent_s)
    arrived = sorted(end.arrived_s for end in ends.values())
    statuses = Counter(end.status for end in ends.values())
    return StressResult(
        run=plan.run,
        uploads=len(plan.times),
        acknowledged=len(run.stored),
        ended=len(ends),
        drop_rate=drop_rate,
        statuses=dict(statuses),
        planned_per_s=planned,
        attained_per_s=attained,
        sent_late_p99_ms=round(max(0.0, late_p99_s) * 1000, 3),
        answered_per_s=rate_of(arrived),
        latency=latency,
        retried=sum(end.attempt > 1 for end in ends.values()),
        faults=found.faults,
        broken=(
            *_broken_promises(found, drop_rate, limits),
            *_not_judged(statuses, limits),
            *_broken_limits(latency, limits),
        ),
        unfit=tuple(_unfit(plan, run, planned=planned, attained=attained, late_p99_s=late_p99_s)),
    )


def _broken_promises(found: Balance, drop_rate: float, limits: Limits) -> Sequence[str]:
    told = []
    for fault in found.faults:
        if fault.kind == "repeated" and limits.allow_repeats:
            continue
        sentence = f"{fault.count} {_MEANS[fault.kind]}"
        if fault.kind == "missing":
            if drop_rate <= limits.max_drop:
                continue
            sentence += f", a drop rate of {drop_rate:.4g}, at most {limits.max_drop:g} expected"
        more = ", ..." if fault.count > MOST_NAMED else ""
        told.append(f"{sentence}: {'; '.join(fault.examples)}{more}")
    return told


def _not_judged(statuses: Mapping[str, int], limits: Limits) -> Sequence[str]:
    ended = sum(statuses.values())
    failed = sum(count for status, count in statuses.items() if status not in JUDGED)
    if not failed or failed / ended <= limits.max_failed:
        return ()
    share = f"a share of {failed / ended:.4g}, at most {limits.max_failed:g} expected"
    return [f"{failed} of {ended} uploads were not judged, {share}; their verdicts say why"]


def _broken_limits(latency: Latencies, limits: Limits) -> Sequence[str]:
    asked = (("p50", latency.p50_ms, limits.max_p50_ms), ("p99", latency.p99_ms, limits.max_p99_ms))
    return [
        f"{name} is {'never' if found is None else f'{found:.1f} ms'}, at most {most:g} ms expected"
        for name, found, most in asked
        if most is not None and (found is None or found > most)
    ]


def _unfit(
    plan: StressPlan, run: StressRun, *, planned: float | None, attained: float | None, late_p99_s: float
) -> Sequence[str]:
    told = []
    if len(run.sent_s) < len(plan.times):
        told.append(
            f"broken off after {len(run.sent_s)} of {len(plan.times)} uploads: no outcome for {plan.patience_s:g} s"
        )
    if len(run.stored) < len(run.sent_s):
        why = next(iter(run.refused.values()), "of the others it has not said anything yet")
        told.append(f"Kafka acknowledged {len(run.stored)} of {len(run.sent_s)} uploads: {why}")
    # All at one moment is what no sender can be in time for.
    if planned is not None and late_p99_s > MOST_LATE_S:
        told.append(
            f"{attained or 0.0:.1f} uploads a second were sent where {planned:.1f} were planned, and one in a hundred "
            f"{late_p99_s * 1000:.0f} ms too late or more"
        )
    return told
