"""
What a shadow costs the live worker, measured in one run: run with ``-s`` to see the numbers.

The pipeline, the shipped encoder and bank, and the shadow's own producer on a real Kafka; uploads come from files, so
that no broker limits the live side. Twice: with new pictures, where the encoder has most of the work, and with one
picture over and over, whose embedding is known, where next to all of the work is judging: the worst case.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.bank_builders import a_picture
from worker.adapters.file_source import FileSource
from worker.adapters.image_store import build_image_store
from worker.adapters.kafka_shadow import KafkaShadowOutbox
from worker.adapters.kafka_topics import topics_of
from worker.adapters.line_outbox import LineOutbox
from worker.adapters.system_clock import SystemClock
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.app import build_loop, running_pipeline
from worker.dev.servers import KafkaAt
from worker.domain import Message
from worker.flow.shadow import Shadow
from worker.instruments import Instruments, open_instruments
from worker.operation.shadowing import around, build_shadow, open_candidate
from worker.settings.load import load_settings
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

NEW, KNOWN = 120, 1000
ROUNDS = 3
SHARES = (0.0, 0.1, 1.0)
LEAST_SHARE_OF_SPEED = 0.25
"""What a candidate as costly as the live judge may leave of the worst case on a machine that others use, too."""


@contextmanager
def a_shadow(
    settings: Settings, live: Instruments, share: float, recorder: InMemoryRecorder
) -> Iterator[Shadow | None]:
    """
    A running shadow of this share with the live bank and policy as its candidate; none for 0.
    """
    if not share:
        yield None
        return
    sampled = settings.model_copy(update={"shadow": settings.shadow.model_copy(update={"sample_rate": share})})
    outbox = KafkaShadowOutbox(settings.kafka, client_id="measure")
    shadow = build_shadow(sampled, open_candidate(sampled, live), outbox, recorder=recorder)
    shadow.start()
    try:
        yield shadow
    finally:
        shadow.close(30.0)


def uploads_per_s(settings: Settings, live: Instruments, files: Sequence[Path], share: float) -> tuple[float, float]:
    """
    Live verdicts a second, the shadow's drain not included, and how many uploads had their shadow verdict published.
    """
    recorder, verdicts = InMemoryRecorder(), list[Message]()
    store = build_image_store(settings.fetch.model_copy(update={"file_root": Path("/")}))
    with a_shadow(settings, live, share, recorder) as shadow:
        source = FileSource(files, surface=None, clock=SystemClock())
        surround = partial(around, shadow=shadow)
        with running_pipeline(
            settings, live, live.versions("scan"), store=store, recorder=recorder, surround=surround
        ) as pipeline:
            loop = build_loop(settings, source, LineOutbox(verdicts.append), pipeline, recorder=recorder)
            began_s = time.perf_counter()
            loop.run()
            took_s = time.perf_counter() - began_s
    store.close()
    assert len(files) == len(verdicts)
    return len(files) / took_s, recorder.snapshot().get('shadow_total{result="published"}', 0)


def test_what_a_shadow_costs(kafka: KafkaAt, topic_name: str, tmp_path: Path) -> None:
    """
    With a tenth of the uploads in the shadow the live speed stays; with all of them it falls, but within bounds.
    """
    sets = [
        f"kafka.bootstrap_servers={kafka.bootstrap_servers}",
        f"kafka.topics.shadow_verdicts={topic_name}-shadow",
        "redis.enabled=false",
        "encoder.device=cpu",
        "encoder.threads=1",
        "shadow.enabled=true",
        # The same bank: a candidate as costly as the live judge.
        "shadow.max_waiting=100000",
    ]
    policy = Path(__file__).parents[2] / "config" / "policy.toml"
    sets += [f"policy.path={policy}", f"shadow.policy_path={policy}"]
    settings = load_settings(config=None, overlay=None, environ={}, sets=sets).settings
    live = open_instruments(settings, InMemoryRecorder())
    new = [tmp_path / f"{number}.jpg" for number in range(NEW)]
    for number, path in enumerate(new):
        path.write_bytes(a_picture(number, size=(256, 256), name="JPEG"))
    works = {"new pictures": new, "known picture": [new[0]] * KNOWN}
    best = {(work, share): 0.0 for work in works for share in SHARES}
    published: dict[tuple[str, float], float] = {}
    with topics_of(settings.kafka) as topics:
        wanted = wanted_topics(settings.kafka, TopicsFile(), brokers=topics.brokers(), roles=("shadow_verdicts",))
        topics.apply(plan_topics(wanted, {}))
    try:
        # Interleaved, so that what else the machine does falls upon all of them.
        for _ in range(ROUNDS):
            for (work, share), before in best.items():
                speed, published[work, share] = uploads_per_s(settings, live, works[work], share)
                best[work, share] = max(before, speed)
    finally:
        with topics_of(settings.kafka) as topics:
            topics.delete([f"{topic_name}-shadow"])
    left = {key: speed / best[key[0], 0.0] for key, speed in best.items()}
    for (work, share), speed in best.items():
        print(f"{work}, shadow of {share:g}: {speed:.0f} uploads/s, {left[work, share]:.0%} of the speed without")  # noqa: T201 - read with -s

    assert all(published[work, 1.0] == len(files) for work, files in works.items())
    assert all(published[work, 0.0] == 0 for work in works)
    assert all(ratio > LEAST_SHARE_OF_SPEED for ratio in left.values()), left
    assert left["new pictures", 0.1] > left["known picture", 1.0]
