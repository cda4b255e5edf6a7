"""
The upload events of a benchmark, as a platform publishes them, and the outcomes that answer them.

Conservation is looked at in every round: a rate of uploads that were lost or answered twice is no rate.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from schemas import uploaded
from schemas.envelope import EventAttributes, write_binary
from worker.adapters.kafka_arrivals import Arrived
from worker.adapters.kafka_platform import PublishedEvent
from worker.errors import WorkerCrashed


@dataclass(frozen=True, slots=True)
class Answers:
    """
    The verdicts of one round: when each was made, in order, and how often the cache said what.

    ``began_s`` is when the first upload could be taken; all times are in seconds since the epoch.
    """

    began_s: float
    made_s: Sequence[float]
    cache: Mapping[str, int]


def file_event(content_id: str, path: str) -> PublishedEvent:
    """
    One upload whose picture lies at ``path`` below the file root.
    """
    return _event(content_id, {"kind": "file", "path": path})


def https_event(content_id: str, url: str) -> PublishedEvent:
    """
    One upload whose picture a web host serves.
    """
    return _event(content_id, {"kind": "https", "url": url})


def file_events(run: str, paths: Iterable[str]) -> list[PublishedEvent]:
    """
    An upload for each path, with content ids that begin with the name of the run.
    """
    return [file_event(f"{run}/{number}", path) for number, path in enumerate(paths)]


def _event(content_id: str, ref: Mapping[str, str]) -> PublishedEvent:
    body = {"content_id": content_id, "image": {"ref": ref}, "context": {"surface": "post"}}
    headers = write_binary(EventAttributes(str(uuid4()), "urn:touchstone:bench", uploaded.TYPE))
    return PublishedEvent(content_id.encode(), json.dumps(body).encode(), headers)


def answers_of(events: Sequence[PublishedEvent], arrived: Sequence[Arrived], *, began_s: float, by: str) -> Answers:
    """
    What answers these events.

    Raises ``WorkerCrashed`` unless each of them is answered by exactly one verdict, and none of these is of a failure.
    """
    verdicts = [json.loads(one.value or b"{}") for one in arrived]
    asked = Counter(event.key.decode() for event in events)
    answered = Counter(str(verdict.get("content_id")) for verdict in verdicts)
    if asked != answered:
        lost, twice = (asked - answered).total(), (answered - asked).total()
        raise WorkerCrashed(
            f"{by}: {len(events)} uploads were published and {len(arrived)} outcomes arrived; {lost} uploads have no "
            f"verdict, {twice} outcomes answer none or one that was answered before. No rate is told of such a run"
        )
    failed = [verdict for verdict in verdicts if verdict.get("outcome", {}).get("status", "decided") == "failed"]
    if failed:
        raise WorkerCrashed(
            f"{by}: {len(failed)} of {len(events)} uploads failed, the first with {failed[0].get('error')}; "
            "no rate is told of uploads that were not judged"
        )
    cache = Counter(_cache_of(verdict) for verdict in verdicts)
    return Answers(began_s, sorted(one.timestamp_ms / 1000 for one in arrived), dict(cache))


def steady_rate_of(made_s: Sequence[float], *, window: int) -> float | None:
    """
    Uploads per second while as many as ``window`` were under way all the time; None where a round has no such part.

    From the outcome with which the first so many were answered to that with which the last so many were all that was
    left: at both moments a worker that takes no more than ``window`` at once has as many in hand, so that nothing is
    counted that was fetched and decoded before, and nothing that is left to do. A shorter round fits into a worker as a
    whole, and any part of it would be flattered by what was done ahead.
    """
    if len(made_s) <= 2 * window:
        return None
    from_s, until_s = made_s[window - 1], made_s[-window - 1]
    answered = sum(from_s < one_s <= until_s for one_s in made_s)
    return answered / (until_s - from_s) if until_s > from_s else None


def _cache_of(verdict: Mapping[str, object]) -> str:
    told = verdict.get("cache")
    if not isinstance(told, dict):
        return "untold"
    return " ".join(str(told[name]) for name in ("status", "tier") if told.get(name) is not None)


def rate_of(made_s: Sequence[float], *, began_s: float) -> float:
    """
    Uploads per second from ``began_s``, when the first one could be taken, to the last outcome.

    Nothing is left out as a warm-up: a round fits into a worker as a whole, which fetches and decodes most of it while
    the first micro-batch is encoded, and whatever were counted from then on would have that work for nothing. Raises
    ``ValueError`` where nothing can be told.
    """
    if not made_s or max(made_s) <= began_s:
        raise ValueError(f"{len(made_s)} outcomes, the last one not after the beginning: expected some, made later")
    return len(made_s) / (max(made_s) - began_s)
