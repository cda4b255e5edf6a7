"""
``touchstone topics``: compare the Kafka topics with what the worker wants, and make them so.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from worker.adapters.kafka_topics import KafkaTopics, topics_of
from worker.adapters.topic_plan import (
    TopicPlan,
    TopicsFile,
    changes,
    plan_topics,
    read_topics_file,
    roles_of,
    wanted_topics,
)
from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND
from worker.settings.load import LoadedSettings

SHIPPED_FILE = Path("config/topics.toml")
Returned = TypeVar("Returned")


def topic_options(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """
    What both commands take.
    """
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One object instead of a table."),
        click.option(
            "--replication-factor",
            type=click.IntRange(min=1),
            metavar="N",
            help="Copies of each partition. Default: the topics file, else 3 or the number of brokers if fewer.",
        ),
        click.option(
            "--partitions",
            type=click.IntRange(min=1),
            metavar="N",
            help="Partitions of uploads, retries and verdicts where these are created. Default: the file, else 12.",
        ),
        click.option(
            "--file",
            "file_path",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help=f"Topics file. Default: {SHIPPED_FILE}, where there is one.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def topics() -> None:
    """
    Plan and apply the Kafka topics.

    Creates what is missing and alters configuration that differs. Partitions and replicas of a topic that exists are
    shown when they differ, and never changed.
    """


@topics.command()
@topic_options
@settings_options
@click.pass_context
def plan(
    ctx: click.Context,
    loaded: LoadedSettings,
    *,
    file_path: Path | None,
    partitions: int | None,
    replication_factor: int | None,
    as_json: bool,
) -> None:
    """
    Show what `apply` would do. Exit code 0 when nothing, 1 when something.
    """
    with topics_of(loaded.settings.kafka) as found:
        planned = _planned(found, loaded, file_path, partitions, replication_factor)
    _show(loaded, planned, as_json=as_json, applied=False)
    if changes(planned):
        ctx.exit(EXIT_FOUND)


@topics.command()
@topic_options
@settings_options
def apply(
    loaded: LoadedSettings,
    *,
    file_path: Path | None,
    partitions: int | None,
    replication_factor: int | None,
    as_json: bool,
) -> None:
    """
    Create missing topics and alter configuration that differs. Applied twice, the second does nothing.
    """
    with topics_of(loaded.settings.kafka) as found:
        planned = _planned(found, loaded, file_path, partitions, replication_factor)
        found.apply(planned)
    _show(loaded, planned, as_json=as_json, applied=True)


def _planned(
    found: KafkaTopics,
    loaded: LoadedSettings,
    file_path: Path | None,
    partitions: int | None,
    replication_factor: int | None,
) -> Sequence[TopicPlan]:
    if file_path is None:
        file = read_topics_file(SHIPPED_FILE) if SHIPPED_FILE.is_file() else TopicsFile()
    else:
        file = read_topics_file(file_path)
    wanted = wanted_topics(
        loaded.settings.kafka,
        file,
        brokers=found.brokers(),
        roles=roles_of(loaded.settings),
        partitions=partitions,
        replication_factor=replication_factor,
        retry_delays_s=loaded.settings.retry.delays_s,
    )
    return plan_topics(wanted, found.find([topic.name for topic in wanted]))


def _show(loaded: LoadedSettings, planned: Sequence[TopicPlan], *, as_json: bool, applied: bool) -> None:
    servers = loaded.settings.kafka.bootstrap_servers
    if as_json:
        document = {
            "kafka": servers,
            "applied": applied,
            "changes": changes(planned),
            "topics": list(map(_as_json, planned)),
        }
        print(json.dumps(document, indent=2))
        return
    Console().print(_table(planned))
    for topic in planned:
        for warning in topic.warnings:
            print(f"warning: {topic.wanted.name} {warning}")
    if not changes(planned):
        print(f"Nothing to do at {servers}.")
    elif applied:
        print(f"Done at {servers}.")
    else:
        print(f"`touchstone topics apply` does this at {servers}.")


def _as_json(topic: TopicPlan) -> dict[str, Any]:
    return {
        "name": topic.wanted.name,
        "action": topic.action,
        "partitions": topic.wanted.partitions,
        "replication_factor": topic.wanted.replication_factor,
        "config": dict(topic.wanted.config),
        "differences": [
            {"key": difference.key, "found": difference.found, "wanted": difference.wanted}
            for difference in topic.differences
        ],
        "warnings": list(topic.warnings),
    }


def _table(planned: Sequence[TopicPlan]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("topic", "action", "setting", "found", "wanted"):
        table.add_column(title, overflow="fold")
    for topic in planned:
        name = topic.wanted.name
        if topic.action == "create":
            shape = {"partitions": topic.wanted.partitions, "replication factor": topic.wanted.replication_factor}
            rows = [(key, "", str(value)) for key, value in (shape | dict(topic.wanted.config)).items()]
        else:
            rows = [(entry.key, entry.found or "(none)", entry.wanted) for entry in topic.differences] or [("", "", "")]
        for at, row in enumerate(rows):
            table.add_row(*((name, topic.action) if at == 0 else ("", "")), *row)
    return table
