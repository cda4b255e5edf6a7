"""
``touchstone feedback collect`` on a real Kafka, up to a bank that has learnt from what people said.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from schemas import feedback, verdict
from tests.bank_builders import a_picture, a_source, build_small
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.conftest import ROOT
from tests.platform_side import Event, publish
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.bank.files import load_bank
from worker.cli import touchstone
from worker.dev.servers import KafkaAt
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers

EXAMPLE = json.loads((ROOT / "schemas" / "examples" / "imageVerdict.decided.json").read_text())["payload"]


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    Topics of verdicts and feedback that nobody else has.
    """
    names = {role: f"{topic_name}-{role}" for role in ("verdicts", "feedback")}
    settings = KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": names})
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=("verdicts", "feedback"))
        topics.apply(plan_topics(wanted, {}))
    yield settings
    with topics_of(settings) as topics:
        topics.delete(list(names.values()))


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """
    Runs ``touchstone bank ...`` with the fake encoder, beside a bank of 24 pictures.
    """
    command: Touchstone = bank_command(monkeypatch, capsys, tmp_path)
    build_small(a_source(tmp_path / "source", reals=12, fakes=12), tmp_path / "bank")
    return command


def a_verdict(content_id: str, data: bytes) -> tuple[UUID, Event]:
    """
    A verdict on a picture, as a worker publishes it.
    """
    verdict_id = uuid4()
    image = EXAMPLE["image"] | {"sha256": hashlib.sha256(data).hexdigest()}
    body = EXAMPLE | {"verdict_id": str(verdict_id), "content_id": content_id, "image": image}
    headers = (("ce_specversion", b"1.0"), ("ce_type", verdict.TYPE.encode()), ("ce_id", str(verdict_id).encode()))
    return verdict_id, Event(content_id.encode(), json.dumps(body).encode(), (*headers, ("ce_source", b"urn:worker")))


def said(verdict_id: UUID, label: str, *, envelope: str = "binary", **fields: str) -> Event:
    """
    What a person says of a verdict.
    """
    attributes = {"specversion": "1.0", "id": str(uuid4()), "source": "urn:platform", "type": feedback.TYPE}
    body = {"verdict_id": str(verdict_id), "label": label, "reviewer_role": "moderator", **fields}
    if envelope == "binary":
        headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
        return Event(None, json.dumps(body).encode(), headers)
    return Event(None, json.dumps(body if envelope == "bare" else attributes | {"data": body}).encode())


def collect(settings: KafkaSettings, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """
    Exit code and JSON of ``touchstone feedback collect``.
    """
    sets = [
        f"kafka.bootstrap_servers={json.dumps(settings.bootstrap_servers)}",
        f"kafka.topics.verdicts={settings.topics.verdicts}",
        f"kafka.topics.feedback={settings.topics.feedback}",
    ]
    options = [part for one in sets for part in ("--set", one)]
    command = ["feedback", "collect", "--json", *map(str, arguments), *options]
    ran = CliRunner().invoke(touchstone, command, standalone_mode=False)
    assert ran.exception is None, ran.output
    return int(ran.return_value), json.loads(ran.stdout)


def test_what_people_agree_on_can_be_added_to_a_bank(
    settings: KafkaSettings, bank: Callable[..., Any], tmp_path: Path
) -> None:
    """
    Agreed rows come with their pictures and are added; conflicts, strangers and noise are told, and nothing else is.
    """
    pictures = {name: a_picture(900 + number) for number, name in enumerate(["cat", "dog", "eel"])}
    (tmp_path / "images").mkdir()
    for name, data in pictures.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(data)
    (cat, cat_event), (dog, dog_event), (eel, eel_event) = (a_verdict(*one) for one in pictures.items())
    noise = Event(b"post", b"no verdict")
    publish(settings.bootstrap_servers, settings.topics.verdicts, [cat_event, noise, dog_event, eel_event])
    words = [
        said(cat, "real"),
        said(cat, "real", envelope="structured", reviewer_role="expert"),
        said(dog, "ai_generated", envelope="bare", generator="flux-9"),
        said(eel, "real"),
        said(eel, "ai_generated"),
        said(uuid4(), "real"),
        Event(None, b"a cat"),
    ]
    publish(settings.bootstrap_servers, settings.topics.feedback, words)
    code, found = collect(settings, "--images", tmp_path / "images", "--out", tmp_path / "review.csv")
    before = len(load_bank(tmp_path / "bank").entries)
    added = bank("add", "bank", tmp_path / "review.csv", "--json")
    entries = load_bank(tmp_path / "bank").entries
    with (tmp_path / "review.open.csv").open(newline="") as lines:
        left = {row["state"]: row["said"] for row in csv.DictReader(lines)}

    assert 1 == code
    assert (6, 4, 2, 1, 1) == tuple(found[name] for name in ("feedback", "images", "agreed", "conflict", "no_verdict"))
    assert 1 == len(found["unreadable"])
    assert {"conflict": "ai_generated:1 real:1", "no_verdict": "real:1"} == left
    assert 0 == added.code, added.err
    assert before + 2 == len(entries)
    assert "flux-9" in set(entries.generators())


def test_only_what_came_since_is_read(settings: KafkaSettings, tmp_path: Path) -> None:
    """
    From a time to come nothing is read, and that is well; from the beginning all is, and files are not written over.
    """
    cat, event = a_verdict("cat", b"cat")
    publish(settings.bootstrap_servers, settings.topics.verdicts, [event])
    publish(settings.bootstrap_servers, settings.topics.feedback, [said(cat, "real")])
    later = collect(settings, "--from", "2999-01-01T00:00:00Z", "--out", tmp_path / "later.csv")
    everything = collect(settings, "--out", tmp_path / "all.csv")
    again = CliRunner().invoke(touchstone, ["feedback", "collect", "--out", str(tmp_path / "all.csv")])

    assert (0, 0) == (later[0], later[1]["feedback"])
    assert (0, 1) == (everything[0], everything[1]["agreed"])
    assert "would be written over" in str(again.exception)
