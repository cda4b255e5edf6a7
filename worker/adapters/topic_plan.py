"""
Which topics the worker wants, what is found instead, and what would have to change. Pure values and one comparison.

The cluster is asked and changed in ``kafka_topics.py``; ``config/topics.toml`` explains each default.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import ConfigInvalid
from worker.settings.tree import KafkaSettings, Settings
from worker.stages.serialise import max_dead_letter_bytes

DAY_MS: Final = 24 * 3600 * 1000
GIB: Final = 1024**3
AROUND_EVENT_BYTES: Final = 65_536
RETRY_MARKS_BYTES: Final = 1_024
RETRIES_KEPT_MS: Final = 14 * DAY_MS
RETRIES_SPARE_MS: Final = 7 * DAY_MS
"""How long workers may be away before an upload that was put off is lost, beside its delay."""

MOST_REPLICAS: Final = 3
PARTITIONS: Final = 12


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """
    A topic as it should be; ``config`` has Kafka's own names and values as text.
    """

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """
    A topic as it is; ``config`` has the effective value of everything that may be set.
    """

    partitions: int
    replication_factor: int
    config: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One value of a topic's configuration that is not as wanted.
    """

    key: str
    found: str | None
    wanted: str


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """
    What is to be done about one topic. ``warnings`` are differences that are never mended automatically.
    """

    wanted: WantedTopic
    action: Literal["create", "alter", "ok"]
    differences: tuple[Difference, ...] = ()
    warnings: tuple[str, ...] = ()


class TopicTable(BaseModel):
    """
    One topic in a topics file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions: int | None = Field(default=None, ge=1)
    replication_factor: int | None = Field(default=None, ge=1)
    config: dict[str, bool | int | str] = Field(default_factory=dict)


class TopicsFile(BaseModel):
    """
    A topics file; what it does not say is as in the shipped ``config/topics.toml``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uploads: TopicTable = TopicTable()
    verdicts: TopicTable = TopicTable()
    dead_letters: TopicTable = TopicTable()
    retries: TopicTable = TopicTable()
    shadow_verdicts: TopicTable = TopicTable()
    embeddings: TopicTable = TopicTable()
    bank_control: TopicTable = TopicTable()
    deletions: TopicTable = TopicTable()
    feedback: TopicTable = TopicTable()


Role = Literal[
    "uploads",
    "verdicts",
    "dead_letters",
    "retries",
    "shadow_verdicts",
    "embeddings",
    "bank_control",
    "deletions",
    "feedback",
]

ALWAYS: Final[tuple[Role, ...]] = ("uploads", "verdicts", "dead_letters")


def roles_of(settings: Settings) -> tuple[Role, ...]:
    """
    The topics that a worker of these settings uses, and the one that its reviewers write to.
    """
    asked: dict[Role, bool] = {
        "retries": bool(settings.retry.delays_s),
        "shadow_verdicts": settings.shadow.enabled,
        "embeddings": settings.embeddings.keep == "topic",
        "bank_control": settings.bank.releases is not None and settings.bank.activated_by == "topic",
        "deletions": settings.deletions.enabled,
        "feedback": True,
    }
    return (*ALWAYS, *(role for role, wanted in asked.items() if wanted))


def read_topics_file(path: Path) -> TopicsFile:
    """
    What a topics file says. Raises ``ConfigInvalid``.
    """
    try:
        with path.open("rb") as file:
            return TopicsFile.model_validate(tomllib.load(file))
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}. Name a topics file with --file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors())
        raise ConfigInvalid(
            f"{path}: {found}. Known are {', '.join(f'[{name}]' for name in TopicsFile.model_fields)}, each with "
            "partitions, replication_factor and a table config with Kafka's own names."
        ) from error


def wanted_topics(
    settings: KafkaSettings,
    file: TopicsFile,
    *,
    brokers: int,
    roles: Sequence[Role] = ALWAYS,
    partitions: int | None = None,
    replication_factor: int | None = None,
    retry_delays_s: Sequence[float] = (),
) -> tuple[WantedTopic, ...]:
    """
    The topics of these roles as they should be on a cluster of so many brokers.

    ``partitions`` (of uploads, retry topics and verdicts) and ``replication_factor`` win over the file. The role
    ``retries`` stands for as many topics as there are ``retry_delays_s``.
    """
    shipped_configs = {
        "uploads": _uploads_config(settings),
        "dead_letters": _dead_letters_config(),
        "retries": _retries_config(settings, retry_delays_s),
        **_CONFIGS,
    }
    found = []
    for role, name in _named(settings, roles, len(retry_delays_s)):
        shipped = shipped_configs[role]
        table: TopicTable = getattr(file, role)
        many = role in _AS_MANY_AS_UPLOADS
        count = (partitions if role in {"uploads", "retries", "verdicts"} else None) or table.partitions
        count = count or (PARTITIONS if many else 1)
        replicas = replication_factor or table.replication_factor or max(1, min(MOST_REPLICAS, brokers))
        # With one replica away, acks=all still goes through; with two or fewer there is no such slack to have.
        config = shipped | {"min.insync.replicas": max(1, replicas - 1)} | table.config
        found.append(WantedTopic(name, count, replicas, {key: _text(value) for key, value in config.items()}))
    return tuple(found)


def _named(settings: KafkaSettings, roles: Sequence[Role], retries: int) -> Iterator[tuple[Role, str]]:
    for role in roles:
        names = settings.topics.retries(retries) if role == "retries" else (getattr(settings.topics, role),)
        yield from ((role, name) for name in names)


def _text(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


Config = dict[str, bool | int | str]
_AS_MANY_AS_UPLOADS: Final = frozenset({"uploads", "retries", "verdicts", "shadow_verdicts", "embeddings"})
_CONFIGS: Final[Mapping[str, Config]] = {
    "verdicts": {"cleanup.policy": "delete", "retention.ms": 90 * DAY_MS, "retention.bytes": 10 * GIB},
    "shadow_verdicts": {"cleanup.policy": "delete", "retention.ms": 14 * DAY_MS, "retention.bytes": 5 * GIB},
    # Compacted, so that a tombstone forgets; and deleted after a time, because embeddings are personal data.
    "embeddings": {"cleanup.policy": "compact,delete", "retention.ms": 90 * DAY_MS, "max.compaction.lag.ms": DAY_MS},
    "bank_control": {"cleanup.policy": "compact"},
    "deletions": {"cleanup.policy": "delete", "retention.ms": 30 * DAY_MS},
    "feedback": {"cleanup.policy": "delete", "retention.ms": 90 * DAY_MS},
}


def _uploads_config(settings: KafkaSettings) -> Config:
    return {
        "cleanup.policy": "delete",
        "retention.ms": 7 * DAY_MS,
        "retention.bytes": 10 * GIB,
        "max.message.bytes": settings.max_event_bytes + AROUND_EVENT_BYTES,
    }


def _retries_config(settings: KafkaSettings, delays_s: Sequence[float]) -> Config:
    # Without retention.bytes: what waits here is lost if it goes before its time.
    longest_ms = round(max(delays_s, default=0) * 1000)
    return {
        "cleanup.policy": "delete",
        "retention.ms": max(RETRIES_KEPT_MS, longest_ms + RETRIES_SPARE_MS),
        "max.message.bytes": retry_message_bytes(settings),
    }


def retry_message_bytes(settings: KafkaSettings) -> int:
    """
    The largest message of a retry topic: the largest upload, with our headers behind its own.
    """
    return settings.max_event_bytes + AROUND_EVENT_BYTES + RETRY_MARKS_BYTES


def _dead_letters_config() -> Config:
    return {
        "cleanup.policy": "delete",
        "retention.ms": 30 * DAY_MS,
        "retention.bytes": 5 * GIB,
        "max.message.bytes": max_dead_letter_bytes(),
    }


def plan_topics(wanted: Sequence[WantedTopic], found: Mapping[str, FoundTopic]) -> tuple[TopicPlan, ...]:
    """
    What is to be done so that each wanted topic is there and configured as wanted.
    """
    return tuple(_plan(topic, found.get(topic.name)) for topic in wanted)


def changes(plan: Sequence[TopicPlan]) -> int:
    """
    How many topics would be created or altered.
    """
    return sum(topic.action != "ok" for topic in plan)


def _plan(wanted: WantedTopic, found: FoundTopic | None) -> TopicPlan:
    if found is None:
        return TopicPlan(wanted, "create")
    warnings = []
    if found.partitions != wanted.partitions:
        warnings.append(
            f"has {found.partitions} partitions, wanted are {wanted.partitions}: never changed by us, because keys "
            "would move to other partitions and lose their order; make a new topic, or want what is there"
        )
    if found.replication_factor != wanted.replication_factor:
        warnings.append(
            f"has replication factor {found.replication_factor}, wanted is {wanted.replication_factor}: never changed "
            "by us, because that moves data; use Kafka's own kafka-reassign-partitions"
        )
    differences = []
    for key, value in sorted(wanted.config.items()):
        if found.config.get(key) == value:
            continue
        if key == "min.insync.replicas" and int(value) > max(1, found.replication_factor - 1):
            warnings.append(
                f"min.insync.replicas {value} is left for later: with replication factor {found.replication_factor} "
                "the first broker that is away would stop all publishing"
            )
            continue
        differences.append(Difference(key, found.config.get(key), value))
    return TopicPlan(wanted, "alter" if differences else "ok", tuple(differences), tuple(warnings))
