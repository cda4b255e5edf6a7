"""
Whether the worker has started, lives, and is ready: the answers of the health endpoints.

Pure. They are asked by whoever runs the worker: one that is not alive is to be restarted, and one that is not ready is
to be waited for.
"""

from dataclasses import dataclass

from worker.flow.progress import LoopProgress
from worker.ports import Standing

OK = "ok"


@dataclass(frozen=True, slots=True)
class Health:
    """
    One answer: ``checks`` names each thing that was looked at, and says ``ok`` or what is wrong with it.
    """

    checks: dict[str, str]

    @property
    def ok(self) -> bool:
        """
        Whether nothing is wrong.
        """
        return all(said == OK for said in self.checks.values())


def started(*, running: bool) -> Health:
    """
    Whether the model and the bank are loaded, and the loop begins.
    """
    return Health({"started": OK if running else "the model and the bank are being loaded"})


def alive(progress: LoopProgress | None, *, now_s: float, stalled_after_s: float) -> Health:
    """
    Whether the loop has turned lately; before there is one, the worker loads and lives. ``now_s`` is monotonic.

    Kafka, Redis and image stores are not looked at: a restart would mend none of them.
    """
    if progress is None:
        return Health({"loop": OK})
    idle_s = now_s - progress.turned_s
    stalled = f"the loop has not turned for {idle_s:.1f} s, at most {stalled_after_s:g} s is well"
    return Health({"loop": stalled if idle_s > stalled_after_s else OK})


def ready(progress: LoopProgress | None, standing: Standing | None, live: Health, *, producer: bool) -> Health:
    """
    Whether uploads are judged here: loaded, a member of the group, outcomes acknowledged, and not about to leave.

    A member without a partition is ready: there are more workers than partitions, and it stands by.
    """
    if progress is None or standing is None:
        return Health({"loaded": "the model and the bank are being loaded"})
    return Health(
        {
            "loaded": OK,
            "group": OK if standing.joined else "the worker is no member of its group, or the group rebalances",
            "producer": OK if producer else "outcomes have waited too long for their acknowledgement",
            "draining": "the worker was told to stop" if progress.draining else OK,
            "dead_letters": "so many at once are an outage: the worker stops" if progress.storm else OK,
            **live.checks,
        }
    )
