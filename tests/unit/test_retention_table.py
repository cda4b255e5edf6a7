"""
``config/RETENTION.md``: every store is in it, and every setting that it cites exists.
"""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel

from worker.adapters.topic_plan import TopicsFile
from worker.settings.tree import Settings, TopicSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "config" / "RETENTION.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
DAYS_OF_TOPIC = re.compile(r"^(\d+) days")


def test_every_topic_has_a_row() -> None:
    """
    No topic of the worker is left out, and none is made up.
    """
    named = {name for row in ROWS for name in re.findall(r"^Topic `(\w+)`$", row[0])}

    assert set(TopicSettings.model_fields) == named


def test_every_setting_exists() -> None:
    """
    Whatever is written as section.key is a setting, down to the last part.
    """
    sections = "|".join(Settings.model_fields)
    cited = set(re.findall(rf"`((?:{sections})\.[a-z0-9_.]+)`", TEXT))

    for name in cited:
        model: type[BaseModel] = Settings
        for part in name.split("."):
            assert part in model.model_fields, f"{name}: no {part}"
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
    assert {"redis.ttl_s", "embeddings.retention_s", "flow.recent_embeddings", "deletions.enabled"} <= cited


def test_days_are_those_of_the_defaults() -> None:
    """
    What the table says of a topic's retention is what config/topics.toml says, and of other stores what the code says.
    """
    file = tomllib.loads((ROOT / "config" / "topics.toml").read_text())
    told = {row[0].removeprefix("Topic `").rstrip("`"): DAYS_OF_TOPIC.match(row[3]) for row in ROWS}
    days_ms = 24 * 3600 * 1000
    for role in TopicsFile.model_fields:
        retention_ms = file[role]["config"].get("retention.ms")
        found = told["retry" if role == "retries" else role]  # the prefix of several
        assert (None if retention_ms is None else str(retention_ms // days_ms)) == (found and found.group(1)), role
    settings = Settings()

    assert f"{settings.embeddings.retention_s // 86_400} days after" in next(row[3] for row in ROWS if "file" in row[0])
    assert f"{settings.redis.ttl_s // 86_400} days" in next(row[3] for row in ROWS if "`e2`" in row[0])
    assert str(settings.flow.recent_embeddings) in next(row[3] for row in ROWS if row[0].startswith("Memory"))


def test_every_row_is_whole() -> None:
    """
    Each store says what is in it, whether that is personal data, how long, by which setting, and how it is forgotten.
    """
    header, *stores = ROWS

    assert [
        "Store",
        "What is in it",
        "Personal data",
        "How long by default",
        "Setting",
        "How it is forgotten",
    ] == header
    assert all(len(row) == len(header) and all(row) for row in stores)
