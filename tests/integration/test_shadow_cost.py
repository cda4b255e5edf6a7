"""
What a shadow costs the live worker, in CPU time, which a busy machine does not change: run with ``-s`` to see it.

The pipeline, the shipped encoder and bank, and the shadow's own producer on a real Kafka; uploads come from files, so
that no broker limits the live side. Twice: with new pictures, where the encoder has most of the work, and with one
picture over and over, whose embedding is known, where next to all of the work is judging: the worst case.

Each round measures every share one after the other, and only what lies in one round is compared.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path
from statistics import median

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
from worker.instruments import Instruments, open_instruments
from worker.operation.shadowing import around, build_shadow, open_candidate
from worker.outcomes import Message
from worker.settings.load import load_settings
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder

pytestmark = [pytest.mark.alone, pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

NEW, KNOWN = 100, 1000
ROUNDS = 5
SHARES = (0.0, 0.1, 1.0)
DRAIN_S = 120.0
LEAST_LEFT = {
    ("new pictures", 0.1): 0.8,
    ("new pictures", 1.0): 0.75,
    ("known picture", 0.1): 0.7,
    ("known picture", 1.0): 0.4,
}
"""Of the speed where the CPU is what bounds it, with a candidate as costly as the live judge."""
MOST_EXTRA = 1.5
"""What one more in the shadow may cost, over a whole known upload in the live worker."""


@dataclass(frozen=True, slots=True)
class Work:
    """
    What one pass over the files took: CPU seconds of the whole process, the shadow's queue and producer included.
    """

    uploads: int
    shadowed: int
    cpu_s: float

    @property
    def cpu_ms(self) -> float:
        """
        Of one upload.
        """
        return self.cpu_s * 1000 / self.uploads

    def extra_ms(self, without: "Work") -> float:
        """
        CPU milliseconds of one shadowed upload, over those of a live one.
        """
        return (self.cpu_s - without.cpu_s) * 1000 / self.shadowed


Round = Mapping[tuple[str, float], Work]


def worked(settings: Settings, live: Instruments, files: Sequence[Path], share: float) -> Work:
    """
    A pass over the files with the live bank and policy as the candidate of this share of them; no shadow for 0.
    """
    recorder, verdicts = InMemoryRecorder(), list[Message]()
    with ExitStack() as stack:
        store = build_image_store(settings.fetch.model_copy(update={"file_root": Path("/")}))
        stack.callback(store.close)
        shadow = None
        if share:
            sampled = settings.model_copy(update={"shadow": settings.shadow.model_copy(update={"sample_rate": share})})
            outbox = KafkaShadowOutbox(settings.kafka, client_id="measure")
            shadow = build_shadow(sampled, open_candidate(sampled, live), outbox, recorder=recorder)
            shadow.start()
        source = FileSource(files, surface=None, clock=SystemClock())
        surround = partial(around, shadow=shadow)
        pipeline = stack.enter_context(
            running_pipeline(settings, live, live.versions("scan"), store=store, recorder=recorder, surround=surround)
        )
        loop = build_loop(settings, source, LineOutbox(verdicts.append), pipeline, recorder=recorder)
        gc.collect()
        began_s = time.process_time()
        loop.run()
        if shadow is not None:
            # What waits for the candidate when the live side is done is work of the shadow as well.
            shadow.close(DRAIN_S)
        cpu_s = time.process_time() - began_s
    assert len(files) == len(verdicts)
    return Work(len(files), int(recorder.snapshot().get('shadow_total{result="published"}', 0)), cpu_s)


def settings_for(kafka: KafkaAt, topic: str) -> Settings:
    """
    The shipped ones with a shadow; the same bank, so that the candidate is as costly as the live judge.
    """
    policy = Path(__file__).parents[2] / "config" / "policy.toml"
    sets = [
        f"kafka.bootstrap_servers={kafka.bootstrap_servers}",
        f"kafka.topics.shadow_verdicts={topic}",
        "redis.enabled=false",
        "encoder.device=cpu",
        "encoder.threads=1",
        "shadow.enabled=true",
        "shadow.max_waiting=100000",
        f"policy.path={policy}",
        f"shadow.policy_path={policy}",
    ]
    return load_settings(config=None, overlay=None, environ={}, sets=sets).settings


def test_what_a_shadow_costs(kafka: KafkaAt, topic_name: str, tmp_path: Path) -> None:
    """
    A shadowed upload takes about as much CPU time as a known picture in the live worker: nothing is encoded twice.
    """
    settings = settings_for(kafka, f"{topic_name}-shadow")
    live = open_instruments(settings, InMemoryRecorder())
    new = [tmp_path / f"{number}.jpg" for number in range(NEW)]
    for number, path in enumerate(new):
        path.write_bytes(a_picture(number, size=(256, 256), name="JPEG"))
    # By many names, for the sample is drawn by where a file lies.
    known = [tmp_path / f"known-{number}.jpg" for number in range(KNOWN)]
    for path in known:
        path.hardlink_to(new[0])
    works = {"new pictures": new, "known picture": known}
    with topics_of(settings.kafka) as topics:
        wanted = wanted_topics(settings.kafka, TopicsFile(), brokers=topics.brokers(), roles=("shadow_verdicts",))
        topics.apply(plan_topics(wanted, {}))
    try:
        worked(settings, live, new, 1.0)  # what a process does only once is nobody's cost
        rounds: list[Round] = [
            # To and fro, so that what drifts while a round lasts is no advantage of the first.
            {(work, share): worked(settings, live, works[work], share) for work in works for share in SHARES[::way]}
            for way, _ in zip(cycle((1, -1)), range(ROUNDS), strict=False)
        ]
    finally:
        with topics_of(settings.kafka) as topics:
            topics.delete([f"{topic_name}-shadow"])
    left = {
        (work, share): median(one[work, 0.0].cpu_s / one[work, share].cpu_s for one in rounds)
        for work, share in product(works, SHARES)
    }
    extra_ms = {work: median(one[work, 1.0].extra_ms(one[work, 0.0]) for one in rounds) for work in works}
    cpu_ms = {key: median(one[key].cpu_ms for one in rounds) for key in left}
    for (work, share), kept in left.items():
        shadowed = rounds[0][work, share].shadowed
        print(f"{work}, {shadowed} shadowed: {cpu_ms[work, share]:.2f} ms CPU an upload, {kept:.0%} of the speed")  # noqa: T201 - read with -s
    print({work: f"{ms:.2f} ms CPU more for each shadowed upload" for work, ms in extra_ms.items()})  # noqa: T201 - likewise

    assert all(one[work, 1.0].shadowed == len(works[work]) for one in rounds for work in works)
    assert all(one[work, 0.0].shadowed == 0 < one[work, 0.1].shadowed for one in rounds for work in works)
    assert extra_ms["known picture"] < cpu_ms["known picture", 0.0] * MOST_EXTRA
    assert all(left[key] > least for key, least in LEAST_LEFT.items()), left
