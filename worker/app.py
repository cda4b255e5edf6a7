"""
The composition root: the only place that builds adapters and puts them together.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from schemas.verdict import ImageVerdictV1, Mode
from worker.adapters.image_places import place_of
from worker.adapters.image_store import build_image_store
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_source import KafkaEventSource
from worker.adapters.kafka_topics import dead_letter_limit_bytes
from worker.adapters.kafka_waits import RetryWaits
from worker.adapters.redis_cache import RedisCache
from worker.adapters.sighting_codec import SightingScope
from worker.adapters.system_clock import SystemClock
from worker.decoders import device_version, look_rules
from worker.decoding.process_decoder import close_decoder
from worker.encoders import advise_bf16, encode_threads, encodes_on_gpu
from worker.flow.bank_judge import BankJudge
from worker.flow.bell import Bell
from worker.flow.beside import WatchedFlow
from worker.flow.delivery import AtLeastOnce, Delivery, ExactlyOnce
from worker.flow.judging import Judge
from worker.flow.loop import Flow, Loop, LoopLimits, LoopReport
from worker.flow.pipeline import Pipeline
from worker.flow.stage_set import PipelineLimits, StageSet
from worker.flow.storm import NO_LIMITS, StormLimits
from worker.instruments import Instruments, open_instruments
from worker.operation.collecting import leave_to_stay
from worker.operation.failing import retries_of, storm_of
from worker.operation.following import bank_watching, followed
from worker.operation.gauges import Watched
from worker.operation.keeping import kept_embeddings
from worker.operation.listening import listening
from worker.operation.noting import noting_contents
from worker.operation.serving import Serving, serving
from worker.operation.shadowing import around, shadowing
from worker.operation.start_phases import start_phase
from worker.operation.tracing import Tracing, configured_tracing
from worker.ports import Clock, EmbeddingCache, EventSource, ImageStore, Outbox, PastUploads, Recorder, SightingArchive
from worker.settings.tree import KafkaSettings, Settings
from worker.spans import UNTRACED, Tracer
from worker.stages.decode import decoder_versions
from worker.stages.fetch import fetch_upload
from worker.stages.intake import KEEP_BYTES, read_event
from worker.stages.report import RunVersions
from worker.stages.serialise import Route, dead_letter_room, source_of, to_messages
from worker.thread_pools import cores_shared_out

log = structlog.get_logger(__name__)

THREADS_END_S = 0.5
"""How long the pipeline's threads may take to end: the drain has waited for all that was worth waiting for."""


@dataclass(frozen=True, slots=True)
class Memories:
    """
    What a replay knows from before. The cache is closed with the pipeline; the rest is its owner's.
    """

    cache: EmbeddingCache | None
    past: PastUploads
    archive: SightingArchive | None


@contextmanager
def running_pipeline(
    settings: Settings,
    instruments: Instruments,
    versions: RunVersions,
    *,
    store: ImageStore,
    recorder: Recorder,
    keep_bytes: int = KEEP_BYTES,
    surround: Callable[[BankJudge], Judge] = lambda judge: judge,
    tracer: Tracer = UNTRACED,
    memories: Memories | None = None,
    keep: SightingArchive | None = None,
    bell: Bell | None = None,
) -> Iterator[Pipeline]:
    """
    The pipeline, its threads running inside. Without ``memories``, Redis is asked only by a live worker.

    ``surround`` may put other judges around the one that is built from the instruments. In ``keep``, which is its
    owner's, all that is seen is kept for replays. ``bell`` rings for each outcome.
    """
    clock = SystemClock()
    cache = open_cache(settings, instruments, recorder=recorder, clock=clock) if versions.mode == "live" else None
    if memories is not None:
        cache = memories.cache
    shared_out = ExitStack()
    stages = StageSet(
        read_event=partial(read_event, max_event_bytes=settings.kafka.max_event_bytes),
        fetch=partial(fetch_upload, store=store, clock=clock, max_image_bytes=settings.fetch.max_image_bytes),
        cache=cache,
        decoder=instruments.decoder,
        encoder=instruments.encoder,
        judge=surround(
            BankJudge(
                instruments.bank, instruments.policy, versions, clock, recorder, keep_bytes, fitted=instruments.fitted
            )
        ),
        views=instruments.views,
        past=None if memories is None else memories.past,
        archive=None if memories is None else memories.archive,
        keep=keep,
        place_of=partial(place_of, settings=settings.fetch),
        before_searching=shared_out.enter_context(cores_shared_out(settings)),
    )
    limits = _limits_of(settings, versions.mode)
    pipeline = Pipeline(stages, limits, clock=clock, recorder=recorder, tracer=tracer, bell=bell)
    pipeline.start()
    del instruments, stages  # they hold the first bank, which may be exchanged
    try:
        yield pipeline
    finally:
        pipeline.close(THREADS_END_S)
        if cache is not None:
            cache.close()
        shared_out.close()


def _limits_of(settings: Settings, mode: Mode) -> PipelineLimits:
    return PipelineLimits(
        fetch_threads=settings.fetch.threads,
        decode_threads=settings.decode.threads,
        batch_size=settings.batch.size,
        batch_deadline_s=settings.batch.deadline_ms / 1000,
        max_bytes=settings.flow.max_in_flight_bytes,
        recent_embeddings=settings.flow.recent_embeddings,
        failure_known_s=settings.redis.failure_ttl_s,
        retries=retries_of(settings, mode),
        encode_threads=encode_threads(settings.encoder),
        share_batches=not encodes_on_gpu(settings.encoder),
    )


def open_cache(
    settings: Settings, instruments: Instruments, *, recorder: Recorder, clock: Clock
) -> EmbeddingCache | None:
    """
    The configured cache of what these instruments see; None where there is none.
    """
    if not settings.redis.enabled:
        return None
    return RedisCache(settings.redis, scope_of(settings, instruments), recorder=recorder, clock=clock)


def scope_of(settings: Settings, instruments: Instruments) -> SightingScope:
    """
    What the sightings of these instruments depend on beside the bytes.
    """
    preprocess, device = instruments.encoder.fingerprint.preprocess, device_version(instruments.decoder)
    return SightingScope.of(
        instruments.encoder.fingerprint,
        perceptual_hash=settings.decode.perceptual_hash,
        views=instruments.views,
        credentials=instruments.credentials,
        decoders=f"{sorted(decoder_versions(preprocess).items())} {settings.decode.formats}{device or ''}",
        looks=look_rules(settings.decode),
    )


def build_loop(
    settings: Settings,
    source: EventSource,
    outbox: Outbox,
    pipeline: Flow,
    *,
    recorder: Recorder,
    tracer: Tracer = UNTRACED,
    on_verdict: Callable[[ImageVerdictV1], None] | None = None,
    storm: StormLimits = NO_LIMITS,
    bell: Bell | None = None,
) -> Loop:
    """
    The loop over a source and an outbox, with the configured promise of delivery; ``bell`` as in ``Loop``.
    """
    route = Route(
        verdicts=settings.kafka.topics.verdicts,
        dead_letters=settings.kafka.topics.dead_letters,
        source=source_of(settings.service.name),
        retries=settings.retry_topics,
    )
    limits = LoopLimits(
        max_in_flight=settings.flow.max_in_flight,
        resume_below=settings.flow.resume_below,
        drain_timeout_s=settings.flow.drain_timeout_s,
        storm=storm,
    )
    return Loop(
        source,
        pipeline,
        _delivery(settings.kafka, source, outbox),
        serialise=partial(to_messages, route=route),
        limits=limits,
        clock=SystemClock(),
        recorder=recorder,
        tracer=tracer,
        on_verdict=on_verdict,
        bell=bell,
    )


def _delivery(settings: KafkaSettings, source: EventSource, outbox: Outbox) -> Delivery:
    if settings.delivery == "exactly_once":
        return ExactlyOnce(
            source,
            outbox,
            interval_s=settings.transaction_interval_s,
            max_messages=settings.transaction_max_messages,
        )
    return AtLeastOnce(source, outbox, commit_interval_s=settings.commit_interval_s)


def run_worker(settings: Settings, *, instance_id: str, on_loop: Callable[[Loop], None]) -> LoopReport:
    """
    The worker, from start to drained; ``on_loop`` is given the loop before its first step, to drain it by signal.

    The model and the bank are loaded before the group is joined: a member that loads for a minute stalls its group.
    Raises what broke; see ``Loop.run``.
    """
    with (
        serving(settings, instance_id=instance_id) as told,
        configured_tracing(settings, instance_id=instance_id) as tracing,
    ):
        report = _run_told(settings, told, tracing, instance_id=instance_id, on_loop=on_loop)
        log.info(
            "worker.stopped",
            consumed=report.consumed,
            released=report.released,
            abandoned=report.abandoned,
            letters=report.letters,
            **report.by_status,
            metrics=told.snapshot(),
        )
        return report


def _run_told(
    settings: Settings, told: Serving, tracing: Tracing, *, instance_id: str, on_loop: Callable[[Loop], None]
) -> LoopReport:
    recorder, bell = told.recorder, Bell()
    instruments, store = open_instruments(settings, recorder), build_image_store(settings.fetch, recorder)
    decoder, versions = instruments.decoder, instruments.versions("live")
    outbox = _open_outbox(settings, recorder, instance_id, bell)
    source = None
    collect_as_before = leave_to_stay()
    try:
        source = _open_source(settings, recorder, instance_id, bell)
        with ExitStack() as operation:
            enter = operation.enter_context
            watch = enter(bank_watching(settings, instruments, recorder=recorder))
            shadow = enter(shadowing(settings, instruments, instance_id=instance_id, recorder=recorder))
            keep = enter(kept_embeddings(settings, scope_of(settings, instruments), recorder))
            noting = enter(noting_contents(settings, recorder, keep))
            pipeline = enter(
                running_pipeline(
                    settings,
                    instruments,
                    versions,
                    store=store,
                    recorder=recorder,
                    keep_bytes=_keep_bytes(settings.kafka),
                    surround=lambda judge: noting.around(around(followed(judge, watch, told.judging_by), shadow)),
                    tracer=tracing.tracer,
                    keep=keep,
                    bell=bell,
                )
            )
            heard = enter(listening(settings, pipeline, recorder, noting, keep, client=instance_id))
            loop = build_loop(
                settings,
                tracing.source(source),
                tracing.outbox(outbox),
                WatchedFlow(pipeline, [noting.check, heard, *([] if watch is None else [watch.check])]),
                recorder=recorder,
                tracer=tracing.tracer,
                on_verdict=told.on_verdict,
                storm=storm_of(settings),
                bell=bell,
            )
            tracing.time_left_s = lambda: loop.finish_left_s
            on_loop(loop)
            status = None if watch is None else watch.status
            told.running(Watched(loop, pipeline, source.standing, outbox.unacknowledged_s), status)
            del instruments  # it holds the first bank, which may be exchanged
            log.info("worker.started", instance=instance_id, delivery=settings.kafka.delivery, **_names(versions))
            advise_bf16(settings.encoder)
            report = loop.run()
            pipeline.keep_the_rest(loop.finish_left_s)
        return report
    finally:
        if source is not None:
            source.close()
        outbox.close()
        store.close()
        close_decoder(decoder)
        collect_as_before()


def _open_outbox(settings: Settings, recorder: Recorder, instance_id: str, bell: Bell) -> KafkaOutbox:
    kafka, topics = settings.kafka, settings.retry_topics
    transactional_id = f"{kafka.group_id}-{instance_id}" if kafka.delivery == "exactly_once" else None
    with start_phase("producer"):
        return KafkaOutbox(
            kafka, recorder, client_id=instance_id, transactional_id=transactional_id, retry_topics=topics, bell=bell
        )


def _open_source(settings: Settings, recorder: Recorder, instance_id: str, bell: Bell) -> KafkaEventSource:
    static_id = instance_id if settings.kafka.static_membership else None
    waits = RetryWaits(settings.retry_topics, SystemClock(), delays_s=settings.retry.delays_s)
    with start_phase("consumer"):
        return KafkaEventSource(
            settings.kafka, recorder, client_id=instance_id, instance_id=static_id, retries=waits, bell=bell
        )


def _keep_bytes(settings: KafkaSettings) -> int:
    limit = dead_letter_limit_bytes(settings)
    if limit is None:
        return KEEP_BYTES
    room = min(KEEP_BYTES, dead_letter_room(limit))
    if room < KEEP_BYTES:
        log.warning(
            "dead_letters.cut_short",
            topic=settings.topics.dead_letters,
            max_message_bytes=limit,
            kept_bytes=room,
            advice="touchstone topics apply raises the limit, so that dead letters carry whole records",
        )
    return room


def _names(versions: RunVersions) -> dict[str, str]:
    return {
        "encoder": f"{versions.encoder.model} {versions.encoder.id[:12]}",
        "bank": f"{versions.bank.id} {versions.bank.version}",
        "policy": f"{versions.policy.id} {versions.policy.version}",
    }
