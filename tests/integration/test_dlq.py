"""
``touchstone dlq`` on a real Kafka: dead letters listed, shown and sent again, byte for byte and as the same event.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from schemas.errors import ErrorCode
from schemas.retry import HEADERS, read_marks, without_marks
from tests.builders import a_raw_event, upload_data
from tests.command_line import Ran, Touchstone, command_line
from tests.hostile_batches import BytesName
from tests.platform_side import DEADLINE_S
from worker.adapters.kafka_collection import collect
from worker.adapters.kafka_topics import create_for_a_while
from worker.dev.servers import KafkaAt
from worker.domain import Partition, RawEvent
from worker.errors import EXIT_CANNOT_START, EXIT_FOUND, EXIT_OK, EXIT_USAGE, EventUnreadable, UploadFailed
from worker.outcomes import DeadLettered
from worker.settings.tree import KafkaSettings
from worker.stages.intake import dead_letter_of, read_event
from worker.stages.letters import letter_of_failure
from worker.stages.serialise import Route, to_message

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

NOW_S = time.time() // 60 * 60 - 3600
SIGNED = "https://images.example/cat.jpg?X-Amz-Signature=5ec3e7"
KEEP_BYTES = 600


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    Topics of their own, with one retry topic.
    """
    names = {role: f"{topic_name}-{role}" for role in ("uploads", "verdicts", "dead_letters", "retry")}
    settings = KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": names})
    with create_for_a_while(settings, partitions=2, retry_delays_s=(30.0,)):
        yield settings


@pytest.fixture
def dlq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: KafkaSettings
) -> Touchstone:
    """
    Runs ``touchstone dlq ...`` on these topics, in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    sets = [f"kafka.bootstrap_servers={settings.bootstrap_servers}", "retry.delays_s=[30]"]
    sets += [
        f"kafka.topics.{role}={getattr(settings.topics, role)}"
        for role in ("uploads", "verdicts", "dead_letters", "retry")
    ]
    return command_line(monkeypatch, capsys, "dlq", last=[word for one in sets for word in ("--set", one)])


def lying(settings: KafkaSettings, offset: int, envelope: str = "binary", **changes: Any) -> RawEvent:  # noqa: ANN401 - fields of RawEvent
    """
    An upload with a signed address, as if it lay at this offset of the uploads topic.
    """
    data = upload_data("https", image={"ref": {"kind": "https", "url": SIGNED}})
    raw = a_raw_event(data, envelope=envelope)
    place: dict[str, Any] = {"partition": Partition(settings.topics.uploads, 1), "offset": offset}
    return replace(raw, **(place | changes))


def publish(settings: KafkaSettings, letters: Sequence[DeadLettered]) -> None:
    """
    Write the letters as a worker does.
    """
    route = Route(settings.topics.verdicts, settings.topics.dead_letters, "urn:test")
    messages = [to_message(letter, route) for letter in letters]
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")) as producer:
        sent = [
            producer.send(
                one.topic, key=one.key, value=one.value, headers=list(one.headers), timestamp_ms=one.timestamp_ms
            )
            for one in messages
        ]
        for future in sent:
            future.get(DEADLINE_S)


def failed(raw: RawEvent, code: ErrorCode, *, at_s: float = NOW_S) -> DeadLettered:
    """
    The letter of a readable upload that failed with this code.
    """
    upload = read_event(raw, max_event_bytes=1_000_000)
    failure = UploadFailed(code, f"no luck with it at attempt {at_s:g}")
    return DeadLettered(raw.key, letter_of_failure(upload, failure, worker_version="1", now_s=at_s))


def unreadable(raw: RawEvent, *, keep_bytes: int = 1_000_000) -> DeadLettered:
    """
    The letter of a record that is no event.
    """
    fault = EventUnreadable(ErrorCode.EVENT_INVALID, "value: found no JSON")
    return dead_letter_of(raw, fault, worker_version="1", now_s=NOW_S, keep_bytes=keep_bytes)


def at(after_s: float) -> str:
    """
    So long after the first failure, as one writes it.
    """
    return datetime.fromtimestamp(NOW_S + after_s, UTC).isoformat()


def lines(ran: Ran) -> list[dict[str, Any]]:
    """
    What ``--json`` printed, line by line.
    """
    return [json.loads(line) for line in ran.out.splitlines()]


def in_topic(settings: KafkaSettings, topic: str) -> list[RawEvent]:
    """
    What lies there now.
    """
    return list(collect(settings, topic))


def test_list_filters_and_counts(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    By code, class and time; the counts are of all that is meant, also of what --limit leaves out.
    """
    publish(
        settings,
        [
            failed(lying(settings, 0), ErrorCode.FETCH_UPSTREAM),
            failed(lying(settings, 1), ErrorCode.DECODE_BOMB, at_s=NOW_S + 60),
            failed(lying(settings, 2), ErrorCode.FETCH_UPSTREAM, at_s=NOW_S + 120),
            unreadable(lying(settings, 3, value=b"\xff\x1b[2J")),
        ],
    )

    everything = lines(dlq("list", "--json"))
    by_code = lines(dlq("list", "--json", "--code", "fetch_upstream", "--limit", 1))
    by_class = lines(dlq("list", "--json", "--class", "policy"))
    by_time = lines(dlq("list", "--json", "--since", at(60), "--until", at(120)))
    table = dlq("list")

    assert everything[-1]["by_code"] == {"FETCH_UPSTREAM": 2, "DECODE_BOMB": 1, "EVENT_INVALID": 1}
    assert len(everything) == 5
    assert ([row["offset"] for row in by_code[:-1]], by_code[-1]["letters"]) == ([2], 2)
    assert [row["code"] for row in by_class[:-1]] == ["DECODE_BOMB"]
    assert [row["offset"] for row in by_time[:-1]] == [1]
    assert table.code == EXIT_OK
    assert "4 dead letters: FETCH_UPSTREAM 2" in table.out
    assert "\x1b" not in table.out


def test_show_says_all_but_secrets_and_raw_is_the_value(
    settings: KafkaSettings, dlq: Touchstone, tmp_path: Path
) -> None:
    """
    Headers and value in safe text, an address without its query; --raw writes the value byte for byte.
    """
    raw = lying(settings, 0)
    hostile = unreadable(
        lying(settings, 1, value=b'\x1b[2J{"a": "' + SIGNED.encode() + b'"', headers=(("h\x07", b"\x1b"),))
    )
    publish(settings, [failed(raw, ErrorCode.FETCH_UPSTREAM), hostile])
    first, second = (row["id"] for row in lines(dlq("list", "--json"))[:-1])

    shown = dlq("show", first, "--raw", tmp_path / "value").out
    document = dlq("show", first[:8], "--json").json
    other = dlq("show", second).out

    assert (tmp_path / "value").read_bytes() == raw.value
    assert "X-Amz" not in shown + json.dumps(document) + other
    assert "https://images.example/cat.jpg" in shown
    assert document["value"]["image"]["ref"]["url"] == "https://images.example/cat.jpg"
    assert ["ce_id", dict(raw.headers)["ce_id"].decode()] in document["headers"]  # type: ignore[union-attr] # it has one
    assert not {"\x1b", "\x07"} & set(other)
    assert dlq("show", first, "--raw", tmp_path / "value").code == EXIT_USAGE
    assert dlq("show", "00000000").code == EXIT_USAGE


def test_redrive_sends_the_same_event_once_more(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    To the first retry topic: key, value and headers as they were, and behind them where the record lay, due at once.
    """
    enveloped, bare = lying(settings, 4, headers=(*lying(settings, 0).headers, ("x", None))), lying(settings, 5, "bare")
    publish(settings, [failed(enveloped, ErrorCode.FETCH_UPSTREAM), failed(bare, ErrorCode.INTERNAL)])

    ran = dlq("redrive", "--yes", "--json")
    again = in_topic(settings, settings.topics.retries(1)[0])

    assert (ran.code, ran.json["sent"], ran.json["refused"]) == (EXIT_OK, 2, [])
    for raw in (enveloped, bare):
        [sent] = [one for one in again if read_marks(one.headers).offset == raw.offset]
        marks = read_marks(sent.headers)
        assert (sent.key, sent.value, without_marks(sent.headers)) == (raw.key, raw.value, raw.headers)
        assert (marks.topic, marks.partition) == (settings.topics.uploads, 1)
        assert (marks.timestamp_ms, marks.attempts) == (raw.timestamp_ms, 0)
        assert abs(marks.not_before_ms / 1000 - time.time()) < DEADLINE_S
        assert sent.timestamp_ms is not None
        assert sent.timestamp_ms / 1000 == pytest.approx(time.time(), abs=DEADLINE_S)


def test_policy_is_left_out_unless_it_is_asked_for(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    By --include-policy, or by its code; and --dry-run sends nothing.
    """
    publish(settings, [failed(lying(settings, 0), ErrorCode.DECODE_BOMB)])

    left = dlq("redrive", "--yes", "--json", "--class", "policy").json
    by_switch = dlq("redrive", "--include-policy", "--dry-run", "--json").json
    by_code = dlq("redrive", "--code", "DECODE_BOMB", "--dry-run", "--json").json

    assert (left["chosen"], left["left_out_policy"]) == (0, 1)
    assert by_switch["chosen"] == by_code["chosen"] == 1
    assert in_topic(settings, settings.topics.retries(1)[0]) == []


def test_to_the_uploads_topic_goes_only_who_stays_who_it_is(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    Without headers of ours; an event without an envelope is refused with the reason, and the exit code is 1.
    """
    enveloped, bare = lying(settings, 4), lying(settings, 5, "bare")
    publish(settings, [failed(enveloped, ErrorCode.FETCH_UPSTREAM), failed(bare, ErrorCode.FETCH_UPSTREAM)])

    ran = dlq("redrive", "--yes", "--json", "--to", settings.topics.uploads)
    [sent] = in_topic(settings, settings.topics.uploads)

    assert (ran.code, ran.json["sent"]) == (EXIT_FOUND, 1)
    assert "no envelope" in ran.json["refused"][0]["why"]
    assert (sent.key, sent.value, sent.headers) == (enveloped.key, enveloped.value, enveloped.headers)
    assert not HEADERS & {name for name, _ in sent.headers}


def test_what_was_cut_short_is_read_from_where_it_lies(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    A letter with only the beginning of its record sends the whole record; where that is gone, it is refused by name.
    """
    value = b"\xff" * 2_000
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")) as producer:
        stored = producer.send(
            settings.topics.uploads, key=b"k", value=value, headers=[("h", b"1" * 300)], partition=0
        ).get(DEADLINE_S)
    place = {"partition": Partition(settings.topics.uploads, 0), "offset": stored.offset}
    whole = RawEvent(**place, key=b"k", value=value, headers=(("h", b"1" * 300),), timestamp_ms=stored.timestamp)
    gone = replace(whole, offset=77)
    publish(settings, [unreadable(whole, keep_bytes=KEEP_BYTES), unreadable(gone, keep_bytes=KEEP_BYTES)])

    ran = dlq("redrive", "--yes", "--json")
    [sent] = in_topic(settings, settings.topics.retries(1)[0])

    assert (ran.code, ran.json["sent"]) == (EXIT_FOUND, 1)
    assert ran.json["refused"][0]["at"].endswith("-77")
    assert "no longer" in ran.json["refused"][0]["why"]
    assert (sent.key, sent.value, without_marks(sent.headers)) == (b"k", value, whole.headers)


def test_what_no_client_can_write_again_is_refused(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    A record with a header name that is no UTF-8 would come back as another one: nothing of it is sent.
    """
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")) as producer:
        sent = producer.send(
            settings.topics.uploads, key=b"k", value=b"{}", headers=[(BytesName(b"\xff"), b"1")], partition=0
        )
        stored = sent.get(DEADLINE_S)
    place = {"partition": Partition(settings.topics.uploads, 0), "offset": stored.offset}
    raw = RawEvent(
        **place,
        key=b"k",
        value=b"{}",
        headers=(("\\xff", b"1"),),
        timestamp_ms=stored.timestamp,
        fault="x",
        whole=False,
    )
    publish(settings, [unreadable(raw)])
    ran = dlq("redrive", "--yes", "--json")

    assert (ran.code, ran.json["sent"]) == (EXIT_FOUND, 0)
    assert "header name: found b'\\xff'" in ran.json["refused"][0]["why"]
    assert in_topic(settings, settings.topics.retries(1)[0]) == []


def test_the_newest_letter_of_a_record_is_sent_at_the_rate(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    Of several letters of one record one is sent; --rate holds; redriven twice it is there twice, as the same event.
    """
    letters = [
        failed(lying(settings, number % 6), ErrorCode.FETCH_UPSTREAM, at_s=NOW_S + number) for number in range(12)
    ]
    publish(settings, letters)

    began_s = time.monotonic()
    first = dlq("redrive", "--yes", "--json", "--rate", 10)
    took_s = time.monotonic() - began_s
    one = lines(dlq("list", "--json"))[0]["id"]
    second = dlq("redrive", one, "--yes", "--json")

    assert (first.json["sent"], first.json["older_letters"]) == (6, 6)
    assert took_s >= 0.5
    assert (second.json["sent"], second.json["older_letters"]) == (1, 1)
    assert len(in_topic(settings, settings.topics.retries(1)[0])) == 7


def test_what_contradicts_itself_is_refused(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    Nobody to ask, a topic that holds no uploads, a code or id that is none, a topic that does not exist.
    """
    publish(settings, [failed(lying(settings, 0), ErrorCode.FETCH_UPSTREAM)])

    assert dlq("redrive").code == EXIT_USAGE
    assert dlq("redrive", "--yes", "--to", settings.topics.verdicts).code == EXIT_USAGE
    assert dlq("list", "--code", "NO_SUCH").code == EXIT_USAGE
    assert dlq("redrive", "--yes", "nonsense").code == EXIT_USAGE
    assert dlq("list", "--since", "17").code == EXIT_USAGE
    assert dlq("redrive", "--yes", "--to", f"{settings.topics.uploads}-not").code == EXIT_CANNOT_START
    assert in_topic(settings, settings.topics.retries(1)[0]) == []


def test_what_is_no_letter_is_named(settings: KafkaSettings, dlq: Touchstone) -> None:
    """
    It hides none of the letters beside it, and the exit code is 1.
    """
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")) as producer:
        producer.send(settings.topics.dead_letters, value=b"{}").get(DEADLINE_S)
    publish(settings, [failed(lying(settings, 0), ErrorCode.FETCH_UPSTREAM)])

    ran = dlq("list", "--json")

    assert ran.code == EXIT_FOUND
    assert lines(ran)[-1]["letters"] == 1
    assert f"{settings.topics.dead_letters}-0-0" in lines(ran)[-1]["unreadable"][0]
