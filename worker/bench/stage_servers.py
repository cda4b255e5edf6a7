"""
The stages that talk to servers: events and verdicts with Kafka, sightings with Redis, pictures with a web host.

Their CPU time is the worker's own; what the servers take is told apart in ``e2e.py``.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from worker.adapters.image_store import build_image_store
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_platform import PublishedEvent, publish_uploads
from worker.adapters.kafka_source import KafkaEventSource
from worker.adapters.kafka_topics import create_for_a_while
from worker.adapters.redis_cache import RedisCache
from worker.adapters.system_clock import SystemClock
from worker.app import scope_of
from worker.bench.stage_inputs import StageInputs
from worker.bench.stages import Stage
from worker.bench.uploads import file_events, https_event
from worker.bench.web_host import web_host
from worker.domain import Partition
from worker.outcomes import Release
from worker.ports import EventSource, Outbox
from worker.settings.tree import Settings
from worker.stages.fetch import fetch_upload
from worker.stages.intake import read_event
from worker.stages.serialise import Route, source_of, to_message
from worker.telemetry.metrics import InMemoryRecorder

AT_ONCE: Final = 256
"""Events that are consumed and verdicts that are published in one call."""

_FLUSH_S: Final = 30.0
_WAIT_S: Final = 0.2
_MOST_POLLS: Final = 300


@contextmanager
def server_stages(inputs: StageInputs, settings: Settings, *, folder: Path, rounds: int) -> Iterator[list[Stage]]:
    """
    These stages while inside, with topics of their own. Raises ``CannotStart`` where a server is not there.
    """
    recorder = InMemoryRecorder()
    with ExitStack() as stack:
        stack.enter_context(create_for_a_while(settings.kafka, partitions=1))
        stages = [_consume(stack, settings, recorder, calls=rounds + 1)]
        stages.append(_publish(stack, inputs, settings, recorder))
        stages += _cache(stack, inputs, settings, recorder)
        stages.append(_web(stack, inputs, settings, folder))
        yield stages


def _consume(stack: ExitStack, settings: Settings, recorder: InMemoryRecorder, *, calls: int) -> Stage:
    # One batch more than will be asked for: the last fetch should not wait for what never comes.
    publish_uploads(settings.kafka, file_events("consume", ["none.jpg"] * (AT_ONCE * (calls + 1))))
    source = KafkaEventSource(settings.kafka, recorder, client_id="bench-stages")
    stack.callback(source.close)
    return Stage("consume", AT_ONCE, partial(_consume_once, source))


def _consume_once(source: EventSource) -> int:
    read, polls = 0, 0
    while read < AT_ONCE and polls < _MOST_POLLS:
        read += len(source.poll(room=AT_ONCE - read, wait_s=_WAIT_S).events)
        polls += 1
    return read


def _publish(stack: ExitStack, inputs: StageInputs, settings: Settings, recorder: InMemoryRecorder) -> Stage:
    topics = settings.kafka.topics
    route = Route(verdicts=topics.verdicts, dead_letters=topics.dead_letters, source=source_of(settings.service.name))
    messages = [to_message(outcome, route) for outcome in inputs.outcomes]
    releases = [
        Release(Partition(topics.uploads, 0), number, messages[number % len(messages)]) for number in range(AT_ONCE)
    ]
    outbox = KafkaOutbox(settings.kafka, recorder, client_id="bench-stages", transactional_id=None)
    stack.callback(outbox.close)
    return Stage("publish", AT_ONCE, partial(_publish_all, outbox, releases))


def _publish_all(outbox: Outbox, releases: Sequence[Release]) -> None:
    outbox.publish(releases)
    outbox.flush(_FLUSH_S)
    outbox.take_acknowledged()


def _cache(stack: ExitStack, inputs: StageInputs, settings: Settings, recorder: InMemoryRecorder) -> list[Stage]:
    cache = RedisCache(settings.redis, scope_of(settings, inputs.instruments), recorder=recorder, clock=SystemClock())
    stack.callback(cache.close)
    found = {one.content_hash: sighting for one, sighting in zip(inputs.fetched, inputs.sightings, strict=True)}
    count = len(found)
    return [
        # What every upload asks, and what a new one leaves behind. Written first: what is asked for is there.
        Stage("cache_write", count, lambda: cache.remember(found)),
        Stage("cache", count, lambda: cache.recall(list(found))),
    ]


def _web(stack: ExitStack, inputs: StageInputs, settings: Settings, folder: Path) -> Stage:
    work = folder / "web"
    work.mkdir(exist_ok=True)
    host = stack.enter_context(web_host(Path(settings.fetch.file_root or folder), settings.fetch, work))
    store = build_image_store(host.settings)
    stack.callback(store.close)
    paths = [_path_of(one.data.image.ref) for one in inputs.uploads]
    events: list[PublishedEvent] = [
        https_event(f"web/{number}", f"{host.url}/{path}") for number, path in enumerate(paths)
    ]
    raws = [
        type(raw)(raw.partition, raw.offset, event.key, event.value, event.headers)
        for raw, event in zip(inputs.events, events, strict=True)
    ]
    uploads = [read_event(raw, max_event_bytes=settings.kafka.max_event_bytes) for raw in raws]
    fetch = partial(fetch_upload, clock=SystemClock(), max_image_bytes=settings.fetch.max_image_bytes)
    return Stage(f"fetch_{host.scheme}", len(uploads), lambda: [fetch(upload, store) for upload in uploads])


def _path_of(ref: object) -> str:
    return str(getattr(ref, "path", ""))
