"""
``touchstone demo``: the main job on real servers, and what one sees of it.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from schemas.verdict import ImageVerdictV1
from worker.cli.scan import COLOURS, plain
from worker.dev import demo as stage
from worker.dev.servers import KafkaAt, RedisAt, kafka_for, redis_for
from worker.policy import shipped_policy
from worker.settings.load import LoadedSettings, load_settings

PARTITIONS = 3


@dataclass(frozen=True, slots=True)
class Servers:
    """
    The servers of this run.
    """

    kafka: KafkaAt
    redis: RedisAt


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, path_type=Path),
    help="Judge the pictures below this folder instead of those that ship with packages.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
def demo(images: Path | None, *, as_json: bool) -> None:
    """
    Start a worker with the encoder and bank that ship, publish uploads, and watch the verdicts arrive.

    Uses the Kafka and Redis that KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name, else brings its own.
    """
    began_s = time.monotonic()
    console = Console(stderr=as_json)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="touchstone-demo-")))
        with console.status("starting Kafka and Redis"):
            kafka = stack.enter_context(kafka_for(os.environ))
            redis = stack.enter_context(redis_for(os.environ))
        servers = Servers(kafka, redis)
        console.print(f"Kafka {kafka.version} ({kafka.kind}) at {kafka.bootstrap_servers}")
        console.print(f"Redis {redis.version} ({redis.kind})")
        loaded, sets = _prepared(servers, folder, images, console)
        uploads = stage.folder_uploads(images) if images else stage.shipped_uploads(folder / "uploads")
        stack.enter_context(_topics(loaded))
        seen = _watch(loaded, sets, folder, uploads, console)
    summary = _summary(servers, len(uploads), seen, time.monotonic() - began_s)
    _show_summary(console, summary)
    if as_json:
        json.dump(summary, sys.stdout)
        sys.stdout.write("\n")


def _prepared(
    servers: Servers, folder: Path, images: Path | None, console: Console
) -> tuple[LoadedSettings, Sequence[str]]:
    """
    The demo's own configuration: the starter encoder and bank, and topics that nobody else uses.
    """
    from worker.bank.files import read_manifest  # noqa: PLC0415 - numpy and pydantic models; --help needs neither
    from worker.shipped import STARTER_BANK  # noqa: PLC0415 - beside its only use

    (folder / "uploads").mkdir()
    manifest = read_manifest(STARTER_BANK)
    console.print(
        f"Encoder: the starter that ships with Touchstone, and its bank of {manifest.counts.entries} references. "
        "It is small; what it can and cannot tell stands in its model card."
    )
    run = uuid4().hex[:8]
    root = folder / "uploads" if images is None else images if images.is_dir() else images.parent
    sets = [
        f"service.name=demo-{run}",
        f"kafka.bootstrap_servers={json.dumps(servers.kafka.bootstrap_servers)}",
        f"kafka.group_id=touchstone-demo-{run}",
        f"kafka.topics.uploads=touchstone-demo-{run}-uploads",
        f"kafka.topics.verdicts=touchstone-demo-{run}-verdicts",
        f"kafka.topics.dead_letters=touchstone-demo-{run}-dead-letters",
        f"kafka.topics.retry=touchstone-demo-{run}-retry",
        f"redis.url={json.dumps(servers.redis.url)}",
        f"redis.namespace=demo-{run}",
        "redis.ttl_s=3600",
        f"fetch.file_root={json.dumps(str(root.resolve()))}",
        f"policy.path={json.dumps(str(shipped_policy()))}",
        "log.format=json",
    ]
    return load_settings(config=None, overlay=None, environ={}, sets=sets), sets


@contextmanager
def _topics(loaded: LoadedSettings) -> Iterator[None]:
    from worker.adapters.kafka_topics import create_for_a_while  # noqa: PLC0415 - kafka-python loads slowly

    settings = loaded.settings
    with create_for_a_while(settings.kafka, partitions=PARTITIONS, retry_delays_s=settings.retry.delays_s):
        yield


def _watch(
    loaded: LoadedSettings,
    sets: Sequence[str],
    folder: Path,
    uploads: Sequence[stage.DemoUpload],
    console: Console,
) -> list[stage.DemoOutcome]:
    seen = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        stage.running_worker(sets, folder / "worker.log") as process,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("verdicts", total=len(uploads))
        stage.publish(loaded.settings, uploads)
        console.print(f"\n{len(uploads)} uploads published. The verdicts, as they arrive:\n")
        console.print(_row("upload", Text("verdict"), "score", "cache", "why"), style="bold")
        for outcome in stage.outcomes(loaded.settings, len(uploads), process, on_wait=progress.refresh):
            progress.advance(task)
            progress.console.print(_told(outcome), highlight=False)
            seen.append(outcome)
    return seen


def _told(one: stage.DemoOutcome) -> Text:
    verdict = one.verdict
    if verdict is None:
        return _row("-", Text("dead letter", "red"), "", "", "kept byte for byte")
    outcome = verdict.outcome
    return _row(
        one.name,
        Text(outcome.label or outcome.status, COLOURS[outcome.status]),
        "" if outcome.score is None else f"{outcome.score:.3f}",
        verdict.cache.status.replace("not_reached", ""),
        _grounds(verdict),
    )


def _row(upload: str, verdict: Text, score: str, cache: str, why: str) -> Text:
    row = Text()
    for cell, width in ((plain(upload), 24), (verdict, 14), (Text(score), 7), (Text(cache), 11), (plain(why), 24)):
        cell.truncate(width - 1, overflow="ellipsis", pad=True)
        row.append_text(cell).append(" ")
    return row


def _grounds(verdict: ImageVerdictV1) -> str:
    if verdict.error is not None:
        return verdict.error.code
    neighbours = verdict.evidence.neighbours if verdict.evidence else ()
    if verdict.outcome.status != "decided" or not neighbours:
        return verdict.outcome.reasons[0].code
    return f"near {neighbours[0].generator or neighbours[0].label} {neighbours[0].similarity:.3f}"


def _summary(servers: Servers, uploads: int, seen: Sequence[stage.DemoOutcome], wall_s: float) -> dict[str, object]:
    statuses = Counter(one.verdict.outcome.status for one in seen if one.verdict is not None)
    return {
        "kafka": {"kind": servers.kafka.kind, "version": servers.kafka.version},
        "redis": {"kind": servers.redis.kind, "version": servers.redis.version},
        "uploads": uploads,
        "verdicts": statuses.total(),
        "decided": statuses["decided"],
        "abstained": statuses["abstained"],
        "failed": statuses["failed"],
        "dead_letters": sum(one.verdict is None for one in seen),
        "wall_s": round(wall_s, 1),
    }


def _show_summary(console: Console, summary: dict[str, object]) -> None:
    console.print(
        f"{summary['uploads']} uploads: {summary['verdicts']} verdicts "
        f"({summary['decided']} decided, {summary['abstained']} abstained, {summary['failed']} failed), "
        f"{summary['dead_letters']} dead letters, in {summary['wall_s']} s."
    )
