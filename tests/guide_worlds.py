"""
The folders that the commands of the guide are typed in: what the guide takes for granted lies there under its names.

What is typed there, and in which order, stands in ``guide_story.py``; how it is run in ``guide_typing.py``.
"""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

import torch

from tests.conftest import ROOT
from tests.evaluation_parts import drawn_picture, write_evaluation_csv
from tests.guide_story import FILLED_IN, LEFT_TO_WORLDS
from worker.adapters.kafka_topics import topics_of
from worker.adapters.tiny_ladeda import SHAPES
from worker.bank.files import read_manifest
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.dev.servers import KafkaAt, RedisAt
from worker.settings.load import load_settings
from worker.settings.tree import KafkaSettings

UPLOADS: Final = 6
PLACE: Final = FILLED_IN["PLACE"]


@dataclass(frozen=True, slots=True)
class Servers:
    """
    Those of the tests.
    """

    kafka: KafkaAt
    redis: RedisAt


@dataclass(frozen=True, slots=True)
class World:
    """
    A folder that stands for a checkout: settings, pictures and listings; ``../shared/data`` lies beside it.

    ``name`` is that of nobody else, for topics and keys; ``servers`` where the commands need them.
    """

    folder: Path
    name: str
    servers: Servers | None

    def filled_in(self) -> Mapping[str, str]:
        """
        What stands here for what the guide says.
        """
        here = {
            # Brokers keep the time at which a record came, and the guide was written on one day.
            "2026-11-20T00:00:00Z": (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds"),
            "image-uploads": f"{self.name}-uploads",
            "moderation-verdicts": f"{self.name}-verdicts",
            "HEX": sha256(self.upload(3)).hexdigest(),
        }
        if (self.folder / "bank").is_dir():
            here["RELEASE"] = read_manifest(self.folder / "bank").version
        assert here.keys() <= set(LEFT_TO_WORLDS)
        return {**FILLED_IN, **here}

    def upload(self, number: int) -> bytes:
        """
        The picture of the upload of this number.
        """
        return sorted((self.folder / "pictures").rglob("*.jpg"))[number].read_bytes()

    @property
    def kafka(self) -> KafkaSettings:
        """
        The settings of Kafka that every command here has.
        """
        path = self.folder / "config" / "worker.toml"
        return load_settings(config=path, overlay=None, environ={}, sets=()).settings.kafka


@contextmanager
def prepared(folder: Path, name: str, servers: Servers | None, *, bank: Path | None) -> Iterator[World]:
    """
    A world in an empty folder, with a copy of this bank where one is given; its topics are gone afterwards.
    """
    checkout = folder / "checkout"
    _pictures(checkout)
    _listings(checkout)
    _field_data(folder / "shared" / "data")
    _settings(checkout, name, servers, with_bank=bank is not None)
    if bank is not None:
        _banks(checkout, bank)
    world = World(checkout, name, servers)
    yield world
    if servers is not None:
        with topics_of(world.kafka) as topics:
            names = [*world.kafka.topics.model_dump().values(), *world.kafka.topics.retries(3)]
            topics.delete(sorted(topics.find(names)))


def _drawn(folder: Path, generator: str, first_seed: int, count: int, *, ending: str = "png") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        drawn_picture(generator, first_seed + number).save(folder / f"{number}.{ending}")


def _pictures(checkout: Path) -> None:
    _drawn(checkout / "references/real", "", 0, 24)
    _drawn(checkout / "references/fake/plasma", "plasma", 100, 12)
    _drawn(checkout / "references/fake/checker", "checker", 200, 12)
    _drawn(checkout / "more/real", "", 300, 4)
    _drawn(checkout / "more/fake/checker", "checker", 310, 4)
    _drawn(checkout / "other/real", "", 400, 24)
    _drawn(checkout / "other/fake/checker", "checker", 430, 10)
    _drawn(checkout / "new-images", "stripes", 500, 8)
    _drawn(checkout / "images", "plasma", 520, 8)
    _drawn(checkout / "canaries/real", "", 0, 4)
    _drawn(checkout / "pictures/photo", "", 600, UPLOADS // 2, ending="jpg")
    _drawn(checkout / "pictures/screenshot", "checker", 610, UPLOADS // 2, ending="jpg")
    _drawn(checkout / "progan_train/real", "", 700, 10)
    _drawn(checkout / "progan_train/fake/plasma", "plasma", 720, 10)
    _drawn(checkout / "datasets/test/progan/cat/0_real", "", 740, 2)
    _drawn(checkout / "datasets/test/progan/cat/1_fake", "plasma", 750, 2)
    _drawn(checkout / "diffusion_datasets/laion/0_real", "", 760, 3)
    _drawn(checkout / "diffusion_datasets/dalle/1_fake", "plasma", 770, 2)
    drawn_picture("checker", 620).save(checkout / "photo.jpg")


def _listings(checkout: Path) -> None:
    for name, first_seed, count in (("references", 1000, 12), ("calibration", 2000, 20), ("unseen", 3000, 8)):
        rows = []
        for generator in ("", "plasma", "checker"):
            folder = Path(name) / (generator or "real")
            _drawn(checkout / "made" / folder, generator, first_seed, count)
            label = "ai_generated" if generator else "real"
            rows += [(folder / f"{number}.png", label, generator, "here") for number in range(count)]
        with (checkout / "made" / f"{name}.csv").open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["path", "label", "generator", "source"])
            writer.writerows(rows)


def _field_data(folder: Path) -> None:
    write_evaluation_csv(folder, each=8).rename(folder / "images.csv")
    (folder / "peers").mkdir()
    chance = torch.Generator().manual_seed(0)
    for peer in ("WildRF", "ForenSynth"):
        weights = {name: torch.rand(shape, generator=chance) for name, shape in SHAPES.items()}
        torch.save(weights, folder / "peers" / f"{peer}_Tiny_LaDeDa.pth")


def _settings(checkout: Path, name: str, servers: Servers | None, *, with_bank: bool) -> None:
    shutil.copytree(ROOT / "config", checkout / "config")
    tables: dict[str, dict[str, object]] = {
        "encoder": {"device": "cpu", "threads": 1},
        "batch": {"size": 8},
        "log": {"format": "json"},
        "bank": {"path": "bank"} if with_bank else {},
    }
    local = {"ViT-B-32-quickgelu/openai": "starter", "touchstone-local": f"{name}-local"}
    if servers is not None:
        roles = ("uploads", "retry", "verdicts", "dead_letters", "shadow_verdicts", "embeddings", "bank_control")
        topics: dict[str, object] = {role: f"{name}-{role}" for role in (*roles, "deletions", "feedback")}
        kafka, redis = servers.kafka.bootstrap_servers, servers.redis.url
        tables |= {
            "kafka": {"bootstrap_servers": kafka, "group_id": name, "session_timeout_s": 6.0},
            "kafka.topics": topics,
            # A busy machine is no slow Redis.
            "redis": {"url": redis, "namespace": name, "ttl_s": 3600, "connect_timeout_s": 2.0, "timeout_s": 2.0},
            "embeddings": {"keep": "file", "path": "embeddings.sqlite"},
            "deletions": {"enabled": True},
        }
        local |= {"localhost:9092": kafka, "redis://localhost:6379/0": redis, "timeout_s = 0.5": "timeout_s = 2.0"}
    (checkout / "config" / "worker.toml").write_text(_toml(tables))
    overlay = checkout / "config" / "local.toml"
    for there, here in local.items():
        assert there in overlay.read_text(), f"config/local.toml has no {there} any more"
        overlay.write_text(overlay.read_text().replace(there, here))


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines)


def _banks(checkout: Path, bank: Path) -> None:
    shutil.copytree(bank, checkout / "bank")
    # The name that config/local.toml has.
    shutil.copytree(bank, checkout / "bank-vit-b-32")
    releases = Releases(DirectoryPlace(checkout / PLACE))
    releases.publish(bank, "older")
    releases.activate("older", Issuer("a test"))
    policy = (checkout / "config" / "policy.toml").read_text()
    assert 'version = "2"' in policy
    (checkout / "candidate.toml").write_text(policy.replace('version = "2"', 'version = "candidate"'))
