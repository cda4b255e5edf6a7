"""
Which verdicts the sides of a comparison are, and what is said of those that cannot be read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.verdict import ImageVerdictV1
from tests.diff_worlds import Said, line, verdict, write_lines
from worker.adapters.verdict_lines import ReadSoFar, read_verdict_lines, verdict_of
from worker.diff.comparison import Comparison, compare
from worker.diff.joining import SideName, joined
from worker.diff.reading import SideSpec, parse_side, read_sides
from worker.errors import CannotStart, ConfigInvalid


@pytest.mark.parametrize(
    ("text", "kind", "name", "mode"),
    [
        ("live.jsonl", "file", "live.jsonl", None),
        ("topic:image-verdicts", "topic", "image-verdicts", None),
        ("topic:image-verdicts#mode=live", "topic", "image-verdicts", "live"),
        ("run:2026-11#b#mode=replay", "run", "2026-11#b", "replay"),
        ("odd#name.jsonl", "file", "odd#name.jsonl", None),
        ("./topic:x#mode=scan", "file", "./topic:x", "scan"),
    ],
)
def test_a_side_is_a_file_a_topic_or_a_run(text: str, kind: str, name: str, mode: str | None) -> None:
    """
    Each in one mode or in any.
    """
    side = parse_side(text)

    assert (text, kind, name, mode) == (side.text, side.kind, side.name, side.mode)


@pytest.mark.parametrize("text", ["", "topic:", "run:", "#mode=live", "topic:x#mode=", "a.jsonl#mode=dead"])
def test_what_is_no_side_is_refused(text: str) -> None:
    """
    The message says what was found and what is expected.
    """
    with pytest.raises(ConfigInvalid, match="expected") as refused:
        parse_side(text)

    assert repr(text) in str(refused.value)


class Topics:
    """
    Topics in memory, which remember how often each was read.
    """

    def __init__(self, **topics: list[Said]) -> None:
        self.topics = topics
        self.read: list[str] = []

    def __call__(self, topic: str, progress: ReadSoFar) -> Iterator[ImageVerdictV1]:
        """
        Read one.
        """
        self.read.append(topic)
        progress(0, len(self.topics[topic]))
        return map(verdict, self.topics[topic])


def compared(topics: Topics, a: str, b: str, *run_topics: str) -> Comparison:
    """
    The comparison of two sides that lie in these topics.
    """
    sides: dict[SideName, SideSpec] = {"a": parse_side(a), "b": parse_side(b)}
    with joined() as store:
        read_sides(store, sides, run_topics, read_topic=topics)
        return compare(store.pairs(), (a, b))


def test_a_mode_and_a_run_choose_within_a_topic() -> None:
    """
    One reading of the topic serves both sides.
    """
    topics = Topics(
        out=[
            Said("1", "real"),
            Said("1", "ai_generated", mode="replay", run_id="x", age_s=-1),
            Said("1", "uncertain", mode="replay", run_id="y", age_s=-2),
        ]
    )
    found = compared(topics, "topic:out#mode=live", "run:x", "out")

    assert [("real", "ai_generated")] == list(found.overall.transitions)
    assert ["out"] == topics.read


def test_a_run_is_looked_for_in_every_topic_given() -> None:
    """
    Its verdicts may lie in several.
    """
    topics = Topics(live=[Said("1"), Said("2")], one=[Said("1", run_id="x")], two=[Said("2", run_id="x")])
    found = compared(topics, "topic:live", "run:x", "one", "two")

    assert (2, 0, 0) == (found.compared, found.a.alone, found.b.alone)


def test_an_empty_side_says_what_was_there_instead() -> None:
    """
    Which side, what was looked for and where, what lies there, and what to do.
    """
    topics = Topics(live=[Said("1"), Said("2")], out=[Said("1", mode="replay", run_id="mine")])
    with pytest.raises(CannotStart) as refused:
        compared(topics, "topic:live", "run:yours#mode=replay", "out")

    message = str(refused.value)
    assert message.startswith("B (run:yours#mode=replay) is empty: found no verdict of run yours in mode replay")
    assert "topic out has 1 in mode replay of run mine" in message
    assert "--topic says where" in message


def test_lines_of_a_file_are_read_in_order(tmp_path: Path) -> None:
    """
    Empty lines and a missing last line end do no harm; progress ends at the size.
    """
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(line(Said("1")) + b"\n" + line(Said("2")).rstrip())
    told: list[tuple[int, int]] = []
    found = [one.input.event_id for one in read_verdict_lines(path, progress=lambda *so_far: told.append(so_far))]

    assert ["1", "2"] == found
    assert [(path.stat().st_size, path.stat().st_size)] == told


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - a field of any type may be changed
    """
    A verdict as a document.
    """
    found: dict[str, Any] = json.loads(line(Said("1")))
    return found | changes


def test_a_newer_minor_version_is_read() -> None:
    """
    Fields that it added are passed over, wherever they stand.
    """
    newer = document(watermark="yes")
    newer["versions"]["schema"] = "1.99"
    newer["outcome"]["severity"] = 3

    assert "1" == verdict_of(json.dumps(newer).encode(), where="here").input.event_id


@pytest.mark.parametrize("readable", [True, False])
def test_another_major_version_is_refused(readable: bool) -> None:
    """
    Whether or not it happens to look like ours: the message names both versions and what to do.
    """
    other = document()
    other["versions"]["schema"] = "2.0"
    if not readable:
        other["outcome"] = "decided"
    with pytest.raises(CannotStart, match=r"here: found a verdict of schema version 2\.0, expected 1\.x") as refused:
        verdict_of(json.dumps(other).encode(), where="here")

    assert "touchstone replay" in str(refused.value)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"no verdict\n", "11 bytes that begin with 'no verdict'"),
        (b"\xff\xfe\x00\x01\n", "5 bytes that begin with"),
        (b'{"verdict_id": 3}\n', " more)"),
        (line(Said("2"))[:200], "The line is cut off"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, bad: bytes, told: str) -> None:
    """
    File, number of the line, what was found, what was expected and what to do.
    """
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(line(Said("1")) + bad)
    with pytest.raises(CannotStart) as refused:
        list(read_verdict_lines(path))

    message = str(refused.value)
    assert message.startswith(f"{path}, line 2: found ")
    assert told in message
    assert "expected one verdict as JSON" in message
    assert "Remove the line" in message


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """
    With what a side may be.
    """
    with pytest.raises(CannotStart, match="topic:NAME"):
        list(read_verdict_lines(tmp_path / name))


def test_the_same_file_on_both_sides_is_read_once(tmp_path: Path) -> None:
    """
    And does not differ from itself.
    """
    path = str(write_lines(tmp_path / "verdicts.jsonl", Said("1"), Said("2", "failed")))
    told: list[str] = []
    sides: dict[SideName, SideSpec] = {"a": parse_side(path), "b": parse_side(path)}
    with joined() as store:
        read_sides(store, sides, [], read_topic=Topics(), report=lambda what, _done, _of: told.append(what))
        found = compare(store.pairs(), ("a", "b"))

    assert (2, 0) == (found.compared, found.differing)
    assert [f"reading file {path}"] == told
