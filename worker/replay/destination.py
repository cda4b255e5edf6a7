"""
Where a replay may write: a topic or a file, and never by mistake where live verdicts lie.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import ConfigInvalid
from worker.settings.tree import TopicSettings

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Destination:
    """
    A topic by name or a file by path: one of the two.
    """

    topic: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return f"topic:{self.topic}" if self.path is None else f"file:{self.path}"


def parse_destination(text: str) -> Destination:
    """
    ``topic:NAME`` or ``file:PATH``; without either, what has a slash or ends in .jsonl is a file.

    Raises ``ConfigInvalid`` for what is neither.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in {"topic", "file"}:
        name = rest
    else:
        kind, name = ("file" if "/" in text or text.endswith(".jsonl") else "topic"), text
    if kind == "file" and name:
        # Absolute, so that the run is found again from another folder.
        return Destination(path=Path(name).absolute())
    if kind == "topic" and _TOPIC.fullmatch(name):
        return Destination(topic=name)
    raise ConfigInvalid(f"--out is {text!r}; give a topic's name, or a path that ends in .jsonl or has a slash")


def require_apart(destination: Destination, source: str, topics: TopicSettings, *, promote: bool) -> None:
    """
    The replay does not write into what it reads or what is live; else raises ``ConfigInvalid``.

    ``promote`` allows the live verdict topic, and nothing else.
    """
    name = destination.topic
    if name is None:
        return
    if name == source:
        raise ConfigInvalid(f"--out and --topic are both {name}: a replay does not write into what it reads")
    if name == topics.verdicts and not promote:
        raise ConfigInvalid(
            f"--out is {name}, the live verdict topic: whoever reads it would act on the replay. Write to another "
            "topic and compare (`touchstone diff`), or say --promote"
        )
    taken = {role: topic for role, topic in dict(topics).items() if role != "verdicts"}
    for role, topic in taken.items():
        if name == topic:
            raise ConfigInvalid(f"--out is {name}, which is kafka.topics.{role}; name a topic of its own")
