"""
``touchstone stress``: how it ends and what it says, against a platform that does as the test wants.
"""

from pathlib import Path

import pytest

from tests.command_line import Ran, Touchstone, command_line
from tests.stand_in_platform import Answer, StandInPlatform, at_once
from worker.bench import stress_result
from worker.cli import stress

UPLOADS = 20
FAST = ("--rate", "400", "--uploads", str(UPLOADS))
IMPATIENT = ("--patience-s", "1")


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone stress ...`` in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "stress")


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> "type[Against]":
    """
    Puts a platform in the place of Kafka.
    """
    monkeypatch.setattr(stress, "platform_of", lambda _settings: Against.platform)
    monkeypatch.setattr(stress, "SETTLE_S", 0.05)
    # A busy machine is no slow sender; the test of one says how slow it is.
    monkeypatch.setattr(stress_result, "MOST_LATE_S", 30.0)
    return Against


class Against:
    """
    The platform of this test.
    """

    platform = StandInPlatform()


def ran_against(against: type[Against], platform: StandInPlatform, touchstone: Touchstone, *words: object) -> Ran:
    """
    One run against this platform.
    """
    against.platform = platform
    return touchstone(*words)


def test_all_well(touchstone: Touchstone, against: type[Against]) -> None:
    """
    Every upload ended once, in order and in time: exit code 0, and the object has all figures.
    """
    platform = StandInPlatform()
    ran = ran_against(against, platform, touchstone, *FAST, "--max-p99-ms", "60000", "--json")

    assert (0, "") == (ran.code, ran.err)
    assert ran.json["ok"] is True
    assert [UPLOADS] * 3 == [ran.json[name] for name in ("uploads", "acknowledged", "ended")]
    assert {"decided": UPLOADS} == ran.json["statuses"]
    assert (0.0, {}, [], []) == tuple(ran.json[name] for name in ("drop_rate", "faults", "broken", "unfit"))
    assert 0 <= ran.json["latency"]["p50_ms"] <= ran.json["latency"]["p99_ms"] <= ran.json["latency"]["max_ms"]
    assert UPLOADS == len({event.value for event in platform.sent})


def test_the_table_says_the_same(touchstone: Touchstone, against: type[Against]) -> None:
    """
    Without --json a table is printed, and nothing is said on stderr.
    """
    ran = ran_against(against, StandInPlatform(), touchstone, *FAST)

    assert (0, "") == (ran.code, ran.err)
    assert f"{UPLOADS} of {UPLOADS} acknowledged" in ran.out
    assert "latency p99" in ran.out


def lost(number: int) -> list[Answer]:
    """
    Number 3 is never answered.
    """
    return [] if number == 3 else at_once(number)


def doubled(number: int) -> list[Answer]:
    """
    Number 3 is answered twice, by the same verdict.
    """
    return at_once(number) * (2 if number == 3 else 1)


def swapped(number: int) -> list[Answer]:
    """
    Number 3 is answered when 5 has been, which lies behind it in the same partition.
    """
    return {3: [], 5: [(5, 0.0), (3, 0.01)]}.get(number, at_once(number))


@pytest.mark.parametrize(
    ("answers", "kind", "said"),
    [
        (lost, "missing", "have no outcome, a drop rate of 0.05"),
        (doubled, "repeated", "the same outcome more than once"),
        (swapped, "out_of_order", "left behind that of a later upload"),
    ],
)
def test_a_broken_promise_is_exit_code_1(
    touchstone: Touchstone, against: type[Against], answers: object, kind: str, said: str
) -> None:
    """
    The fault is counted in the object, and said with the upload's name on stderr.
    """
    platform = StandInPlatform(answers)  # type: ignore[arg-type] # one of the above
    ran = ran_against(against, platform, touchstone, *FAST, *IMPATIENT, "--json")

    assert 1 == ran.code
    assert {kind: 1} == {name: fault["count"] for name, fault in ran.json["faults"].items()}
    assert said in ran.err
    assert f"{ran.json['run']}-3" in ran.err


def test_uploads_that_nobody_judged_are_exit_code_1(touchstone: Touchstone, against: type[Against]) -> None:
    """
    A failure is an end, and quicker than a judgement: it does not pass for one, unless so many are allowed.
    """
    ran = ran_against(against, StandInPlatform(status="failed"), touchstone, *FAST, "--json")
    allowed = ran_against(against, StandInPlatform(status="failed"), touchstone, *FAST, "--max-failed", "1")

    assert (1, 0) == (ran.code, allowed.code)
    assert (False, {"failed": UPLOADS}) == (ran.json["ok"], ran.json["statuses"])
    assert "20 of 20 uploads were not judged, a share of 1, at most 0 expected" in ran.err


def test_drops_and_repeats_may_be_allowed(touchstone: Touchstone, against: type[Against]) -> None:
    """
    Within the drop rate that is asked, and with --allow-repeats, the same is exit code 0.
    """
    some_lost = ran_against(against, StandInPlatform(lost), touchstone, *FAST, *IMPATIENT, "--max-drop", "0.05")
    again = ran_against(against, StandInPlatform(doubled), touchstone, *FAST, "--allow-repeats")

    assert (0, 0) == (some_lost.code, again.code)


def slow(number: int) -> list[Answer]:
    """
    Every answer takes a tenth of a second.
    """
    return [(number, 0.1)]


@pytest.mark.parametrize("limit", ["--max-p50-ms", "--max-p99-ms"])
def test_a_limit_of_latency_is_exit_code_1(touchstone: Touchstone, against: type[Against], limit: str) -> None:
    """
    It is said what was found and what was asked.
    """
    ran = ran_against(against, StandInPlatform(slow), touchstone, *FAST, limit, "50", "--json")

    assert 1 == ran.code
    assert f"{limit[6:9]} is " in ran.err
    assert "at most 50 ms expected" in ran.err
    assert ran.json["latency"]["p50_ms"] >= 100


def test_an_upload_that_is_lost_is_slower_than_any_limit(touchstone: Touchstone, against: type[Against]) -> None:
    """
    Drops that are allowed do not make the rest look fast: the percentile that they fill is never.
    """
    words = (*FAST, *IMPATIENT, "--max-drop", "1", "--max-p99-ms", "60000", "--json")
    ran = ran_against(against, StandInPlatform(lost), touchstone, *words)

    assert 1 == ran.code
    assert "p99 is never" in ran.err
    assert ran.json["latency"]["p99_ms"] is None


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        (StandInPlatform(members=0), "no worker is in the group"),
        (StandInPlatform(lambda _: []), "no outcome of any upload within 1 s, though Kafka took"),
        (StandInPlatform(acknowledges=False), "Kafka has acknowledged none of"),
    ],
    ids=["nobody in the group", "nobody answers", "Kafka says nothing"],
)
def test_where_nobody_answers_it_fails_loudly(
    touchstone: Touchstone, against: type[Against], platform: StandInPlatform, said: str
) -> None:
    """
    Exit code 3, no figures, and what to do.
    """
    ran = ran_against(against, platform, touchstone, *FAST, *IMPATIENT, "--json")

    assert (3, "") == (ran.code, ran.out)
    assert said in ran.err


def test_a_sender_that_cannot_hold_the_rate_is_a_failure_of_the_stress(
    touchstone: Touchstone, against: type[Against], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Exit code 4, with the attained rate, and nothing is said against the workers, whatever the latencies were.
    """
    monkeypatch.setattr(stress_result, "MOST_LATE_S", 0.25)
    words = (*FAST, "--arrivals", "even", "--max-p99-ms", "1", "--json")
    ran = ran_against(against, StandInPlatform(send_takes_s=0.02), touchstone, *words)

    assert 4 == ran.code
    assert ran.json["attained_per_s"] < 60
    assert pytest.approx(400) == ran.json["planned_per_s"]
    assert "uploads a second were sent where 400.0 were planned" in ran.err
    assert "say nothing of the workers" in ran.err


def test_uploads_that_kafka_refuses_are_no_drops(touchstone: Touchstone, against: type[Against]) -> None:
    """
    What never reached the topic is nobody's to answer: exit code 4, with Kafka's reason.
    """
    platform = StandInPlatform(refuses=frozenset({7}))
    ran = ran_against(against, platform, touchstone, *FAST, "--json")

    assert 4 == ran.code
    assert (UPLOADS - 1, 0.0) == (ran.json["acknowledged"], ran.json["drop_rate"])
    assert f"Kafka acknowledged {UPLOADS - 1} of {UPLOADS} uploads: the record is too large" in ran.err


def test_given_uploads_are_sent_in_turn(touchstone: Touchstone, against: type[Against], tmp_path: Path) -> None:
    """
    The data of --events as it stands, with event ids of the run's own.
    """
    line = '{"content_id": "%s", "image": {"ref": {"kind": "file", "path": "a.jpg"}}}'
    (tmp_path / "uploads.jsonl").write_text("\n".join([line % "a", "", line % "b"]))
    platform = StandInPlatform()
    ran = ran_against(against, platform, touchstone, *FAST, "--events", "uploads.jsonl", "--json")

    assert 0 == ran.code
    assert [(line % "ab"[number % 2]).encode() for number in range(UPLOADS)] == [one.value for one in platform.sent]
    assert UPLOADS == len({dict(one.headers)["ce_id"] for one in platform.sent})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--rate", "1", "--seconds", "1", "--uploads", "1"), "expected one of them"),
        (("--rate", "0"), "--rate"),
        (("--rate", "1", "--ref", "file"), "needs fetch.file_root"),
        (("--rate", "1", "--uploads", "1", "--picture", "4mp"), "choose a smaller --picture"),
        (("--rate", "1", "--events", "bad.jsonl"), "line 2: image.ref"),
        (("--rate", "1", "--events", "empty.jsonl"), "holds no uploads"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    touchstone: Touchstone, against: type[Against], tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    """
    Exit code 2 before anything is sent.
    """
    good = '{"content_id": "a", "image": {"ref": {"kind": "file", "path": "a.jpg"}}}'
    (tmp_path / "bad.jsonl").write_text(f"{good}\n{good.replace('file', 'ftp')}\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    platform = StandInPlatform()
    ran = ran_against(against, platform, touchstone, *words)

    assert (2, []) == (ran.code, platform.sent)
    assert why in ran.err


def test_files_are_there_while_the_run_lasts(touchstone: Touchstone, against: type[Against], tmp_path: Path) -> None:
    """
    Each upload names a file below the root with bytes of its own; afterwards none of them is left.
    """
    root = tmp_path / "root"
    root.mkdir()
    seen: list[bytes] = []

    def read(number: int) -> list[Answer]:
        seen.append(next(root.glob(f"*/{number}.jpg")).read_bytes())
        return at_once(number)

    words = (*FAST, "--ref", "file", "--set", f"fetch.file_root={root}", "--json")
    ran = ran_against(against, StandInPlatform(read), touchstone, *words)

    assert 0 == ran.code
    assert UPLOADS == len(set(seen))
    assert [] == list(root.iterdir())
