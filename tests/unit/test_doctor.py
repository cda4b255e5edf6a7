"""
Every check of ``touchstone doctor``, failing on purpose and well, and how checks are run.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest

from tests.bank_builders import a_source, build_small
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.adapters.kafka_survey import ClusterFacts, GroupFacts
from worker.adapters.redis_survey import RedisFacts, survey_redis
from worker.adapters.topic_plan import Difference, TopicPlan, WantedTopic
from worker.doctor import machine, model, servers
from worker.doctor.finding import Check, Finding, Unanswerable, examine, ok
from worker.doctor.parts import Part, Parts, parts_of
from worker.doctor.samples import SAMPLES
from worker.errors import BankInvalid, CannotStart
from worker.instruments import read_bank
from worker.policy import load_policy
from worker.settings.operations import EmbeddingsSettings, HttpSettings, ShadowSettings
from worker.settings.tree import DecodeSettings, EncoderSettings, KafkaSettings, RedisSettings, Settings

T = TypeVar("T")
POLICY = ROOT / "config" / "policy.toml"
CLUSTER = ClusterFacts(3, (4, 1))
GROUP = GroupFacts("Stable", 2, {0: 0, 1: 0}, committed=2)
REDIS = RedisFacts("7.4", 0.0005, 1 << 30, "allkeys-lru", (), 0.001)


def there(value: T) -> Part[T]:
    """
    A part that opens.
    """
    return Part("a part", lambda: value)


def broken(check: str) -> Part[Any]:
    """
    A part that does not open.
    """

    def fail() -> Any:  # noqa: ANN401 - it never returns
        raise CannotStart(f"{check} is not there")

    return Part(check, fail)


def some_parts(**changes: Part[Any]) -> Parts:
    """
    Parts of which those given are there, and no other.
    """
    names = {"cluster": "kafka", "redis": "redis", "encoder": "weights", "policy": "policy", "bank": "bank"}
    parts = {name: broken(check) for name, check in names.items()} | changes
    return Parts(**parts)


@pytest.fixture(scope="module")
def model_parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """
    The fake encoder, a bank that was built with it, and the shipped policy.
    """
    folder = tmp_path_factory.mktemp("doctor")
    build_small(a_source(folder / "source"), folder / "bank", fake_embedder())
    return some_parts(
        encoder=there(FakeEncoder()), bank=there(read_bank(folder / "bank")), policy=there(load_policy(POLICY))
    )


def planned(action: Any, **changes: Any) -> tuple[TopicPlan, ...]:  # noqa: ANN401 - literals and any field
    """
    The plan of one topic.
    """
    return (TopicPlan(WantedTopic("uploads", 12, 3, {}), action, **changes),)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """
    A port on which somebody listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# how checks are run


def check_of(look: Callable[[], Finding], *, timeout_s: float = 20.0) -> Check:
    """
    A check that looks so.
    """
    return Check("one", look, "do this", timeout_s)


def raises(fault: Exception) -> Callable[[], Finding]:
    """
    A look that raises.
    """

    def look() -> Finding:
        raise fault

    return look


def test_checks_do_not_spoil_each_other() -> None:
    """
    One that is refused, one that crashes and one that hangs are reported, and the last one is made all the same.
    """
    forever = threading.Event()

    def hang() -> Finding:
        forever.wait(60)
        return ok("at last")

    checks = [
        check_of(raises(BankInvalid("the bank is damaged"))),
        check_of(raises(ZeroDivisionError("by zero"))),
        check_of(hang, timeout_s=0.05),
        check_of(raises(Unanswerable("needs kafka, which failed"))),
        check_of(lambda: ok("fine")),
    ]
    found = [checked.finding for checked in examine(checks)]
    forever.set()

    assert ["failed", "failed", "failed", "skipped", "ok"] == [one.status for one in found]
    assert ("the bank is damaged", "do this") == (found[0].text, found[0].advice)
    assert "the check itself broke: ZeroDivisionError: by zero" == found[1].text
    assert "no answer within 0.05 s" == found[2].text
    assert ("needs kafka, which failed", "") == (found[3].text, found[3].advice)


def test_a_part_is_opened_once_and_its_fault_is_told_once() -> None:
    """
    The check that answers for a part raises what was wrong; the others say whose finding to read.
    """
    opened: list[int] = []

    def fail() -> int:
        opened.append(1)
        raise CannotStart("nobody there")

    part = Part("kafka", fail)
    with pytest.raises(Unanswerable, match="needs kafka, which failed"):
        part.borrowed()
    with pytest.raises(CannotStart, match="nobody there"):
        part.own()

    assert [1] == opened


def test_nothing_is_opened_before_it_is_asked_for() -> None:
    """
    Parts of settings that name nothing reachable can be made.
    """
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="nowhere.invalid:1"))

    assert isinstance(parts_of(settings), Parts)


# servers


@pytest.mark.parametrize(
    ("facts", "delivery", "status"),
    [
        (CLUSTER, "exactly_once", "ok"),
        (ClusterFacts(0, ()), "at_least_once", "failed"),
        (ClusterFacts(1, (2, 4)), "exactly_once", "failed"),
        (ClusterFacts(1, (2, 4)), "at_least_once", "ok"),
    ],
)
def test_kafka(facts: ClusterFacts, delivery: Any, status: str) -> None:  # noqa: ANN401 - the delivery's literal
    """
    A cluster without brokers fails, and so does one too old for exactly_once where that is asked for.
    """
    settings = Settings(kafka=KafkaSettings(delivery=delivery))
    found = servers.kafka(settings, some_parts(cluster=there(facts)))

    assert status == found.status
    assert bool(found.advice) == (status == "failed")


def test_kafka_says_who_we_are_and_no_password() -> None:
    """
    User and mechanism are in the line, the password is not.
    """
    kafka = KafkaSettings.model_validate(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "touchstone",
            "sasl_password": "s3cret",
        }
    )
    found = servers.kafka(Settings(kafka=kafka), some_parts(cluster=there(CLUSTER)))

    assert "as touchstone by SCRAM-SHA-512" in found.text
    assert "s3cret" not in found.text


@pytest.mark.parametrize(
    ("plan", "status", "said"),
    [
        (planned("ok"), "ok", "1 topics, as planned"),
        (planned("create"), "failed", "no topic uploads"),
        (planned("alter", differences=(Difference("retention.ms", "1", "2"),)), "warning", "retention.ms is 1"),
        (planned("ok", warnings=("has 3 partitions, wanted are 12",)), "warning", "has 3 partitions"),
    ],
)
def test_topics(plan: tuple[TopicPlan, ...], status: str, said: str) -> None:
    """
    A missing topic fails; other configuration or another number of partitions is a warning.
    """
    found = servers.judged_topics(plan)

    assert status == found.status
    assert said in found.text
    assert bool(found.advice) == (status != "ok")


@pytest.mark.parametrize(
    ("facts", "status", "said"),
    [
        (GROUP, "ok", "2 members, Stable, 0 uploads"),
        (replace(GROUP, members=0, state="Empty", uncommitted={0: 7, 1: 5}), "warning", "12 uploads not committed"),
        (replace(GROUP, members=0, state="Dead"), "ok", "0 members, Dead"),
        (replace(GROUP, members=5), "warning", "3 members have no partition"),
    ],
)
def test_group(facts: GroupFacts, status: str, said: str) -> None:
    """
    Uploads that nobody reads are a warning, and so are members without a partition.
    """
    found = servers.group(Settings(), some_parts(cluster=there(CLUSTER)), lambda: facts)

    assert status == found.status
    assert said in found.text


@pytest.mark.parametrize(
    ("facts", "status", "said"),
    [
        (REDIS, "ok", "not on disk"),
        (replace(REDIS, on_disk=("append-only file", "snapshots")), "ok", "on disk: append-only file and snapshots"),
        (replace(REDIS, ping_s=0.04), "warning", "the worker waits 50 ms at most"),
        (replace(REDIS, maxmemory_bytes=0), "warning", "no memory limit"),
        (replace(REDIS, maxmemory_policy="noeviction"), "warning", "noeviction"),
    ],
)
def test_redis(facts: RedisFacts, status: str, said: str) -> None:
    """
    A slow Redis, one without a limit and one that refuses writes when full are warnings.
    """
    found = servers.redis(Settings(), some_parts(redis=there(facts)))

    assert status == found.status
    assert said in found.text


def test_redis_that_is_not_there_keeps_the_password() -> None:
    """
    The failure names the address without its password.
    """
    settings = RedisSettings.model_validate({"url": "redis://user:s3cret@127.0.0.1:1/0"})
    with pytest.raises(CannotStart, match=r"No Redis answers at redis://\*\*\*@127\.0\.0\.1:1/0") as caught:
        survey_redis(settings, timeout_s=0.5)

    assert "s3cret" not in str(caught.value)


def test_disabled_redis_is_skipped() -> None:
    """
    Nobody is asked where redis.enabled is false.
    """
    assert "skipped" == servers.redis(Settings(redis=RedisSettings(enabled=False)), some_parts()).status


@pytest.mark.parametrize(
    ("skew_s", "newest_in_s", "status"), [(0.0, -5.0, "ok"), (30.0, -5.0, "warning"), (0.0, 600.0, "warning")]
)
def test_clock(skew_s: float, newest_in_s: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Redis with another time and an upload from the future are warnings.
    """
    monkeypatch.setattr(servers, "time", SimpleNamespace(time=lambda: 1000.0))
    parts = some_parts(cluster=there(CLUSTER), redis=there(replace(REDIS, skew_s=skew_s)))
    found = servers.clock(Settings(), parts, lambda: 1000.0 + newest_in_s)

    assert status == found.status
    assert bool(found.advice) == (status == "warning")


def test_clock_without_anybody_to_ask_is_skipped() -> None:
    """
    Without Kafka and Redis there is nothing to compare with.
    """
    assert "skipped" == servers.clock(Settings(), some_parts(), lambda: 0.0).status


def test_what_needs_kafka_is_skipped_without_it() -> None:
    """
    Topics and group point at the finding that tells why.
    """
    checks = [check for check in servers.server_checks(Settings(), some_parts()) if check.name in {"topics", "group"}]
    found = [checked.finding for checked in examine(checks)]

    assert [("skipped", "needs kafka, which failed")] * 2 == [(one.status, one.text) for one in found]


# what is judged with


def test_model_is_in_order(model_parts: Parts) -> None:
    """
    An encoder, its bank and a policy that fits are ok; a bank without a judgement is a warning.
    """
    settings = Settings()
    checks = model.model_checks(settings, model_parts)
    found = {checked.name: checked.finding.status for checked in examine(checks)}

    assert {
        "weights": "ok",
        "device": "ok",
        "policy": "ok",
        "bank": "ok",
        "calibration": "warning",
        "shadow": "skipped",
    } == found


def statuses(settings: Settings, parts: Parts) -> dict[str, tuple[str, str]]:
    """
    Status and text of each check of what is judged with.
    """
    checks = model.model_checks(settings, parts)
    return {checked.name: (checked.finding.status, checked.finding.text) for checked in examine(checks)}


def test_damaged_weights_fail_once(tmp_path: Path, model_parts: Parts) -> None:
    """
    A checkpoint with another hash than declared fails as weights; what needs the encoder says so.
    """
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    encoder = EncoderSettings(model="ViT-B-32", checkpoint=tmp_path / "weights.pt", checkpoint_sha256="ab" * 32)
    parts = replace(model_parts, encoder=parts_of(Settings(encoder=encoder)).encoder)
    found = statuses(Settings(), parts)

    assert "failed" == found["weights"][0]
    assert "has sha256" in found["weights"][1]
    assert ("skipped", "needs weights, which failed") == found["device"]
    assert "ok" == found["bank"][0]
    assert "whether it fits the encoder is not known" in found["bank"][1]


def test_a_device_that_is_not_there_fails(model_parts: Parts) -> None:
    """
    A CUDA device beyond those of this machine fails with what torch finds.
    """
    parts = replace(model_parts, encoder=parts_of(Settings(encoder=EncoderSettings(device="cuda:99"))).encoder)

    assert "failed" == statuses(Settings(), parts)["weights"][0]
    assert "cuda:99" in statuses(Settings(), parts)["weights"][1]


def test_more_threads_than_cores_are_a_warning(model_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Threads that only wait for each other are told.
    """
    monkeypatch.setattr("worker.adapters.clip_device.torch.get_num_threads", lambda: 10_000)
    found = model.device(Settings(encoder=EncoderSettings(device="cpu")), model_parts)

    assert "warning" == found.status
    assert "10000 threads" in found.text


def test_a_policy_that_does_not_fit_fails(tmp_path: Path, model_parts: Parts) -> None:
    """
    A policy file that is not there fails, and so does one without a rule for a label of the bank.
    """
    text = POLICY.read_text().replace("labels.ai_generated]", "labels.painted]")
    (tmp_path / "other.toml").write_text(text.replace('label = "ai_generated"', 'label = "painted"'))
    gone = statuses(Settings(), replace(model_parts, policy=Part("policy", lambda: load_policy(tmp_path / "gone"))))
    other = statuses(Settings(), replace(model_parts, policy=there(load_policy(tmp_path / "other.toml"))))

    assert "failed" == gone["policy"][0]
    assert ("skipped", "needs policy, which failed") == gone["calibration"]
    assert "failed" == other["policy"][0]
    assert "ai_generated" in other["policy"][1]


def test_a_damaged_bank_fails_once(tmp_path: Path, model_parts: Parts) -> None:
    """
    Bytes that do not have the manifest's checksum fail as bank; calibration says what it needs.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder())
    vectors = tmp_path / "bank" / "vectors.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\xff")
    found = statuses(Settings(), replace(model_parts, bank=Part("bank", lambda: read_bank(tmp_path / "bank"))))

    assert "failed" == found["bank"][0]
    assert "vectors.safetensors" in found["bank"][1]
    assert ("skipped", "needs bank, which failed") == found["calibration"]
    assert "ok" == found["policy"][0]


def test_a_bank_of_another_encoder_fails(model_parts: Parts) -> None:
    """
    The line names what differs between bank and encoder.
    """
    found = statuses(Settings(), replace(model_parts, encoder=there(FakeEncoder(weights=2))))

    assert "failed" == found["bank"][0]
    assert "was built by another encoder: weights" in found["bank"][1]


def test_too_few_reals_fail() -> None:
    """
    The shipped bank supports the shipped alpha, and not a thousandth; the line says how many reals that would need.
    """
    parts = parts_of(Settings())
    whole, policy = parts.bank.own(), load_policy(POLICY)
    rule = policy.rule.model_copy(update={"alpha": 0.001})
    strict = replace(policy, rule=rule)
    (enough,) = examine([check_of(lambda: model.calibration(some_parts(bank=there(whole), policy=there(policy))))])
    (few,) = examine([check_of(lambda: model.calibration(some_parts(bank=there(whole), policy=there(strict))))])

    assert "ok" == enough.finding.status
    assert "failed" == few.finding.status
    assert "at least 999" in few.finding.text


def test_a_candidate_that_does_not_open_fails(tmp_path: Path, model_parts: Parts) -> None:
    """
    A shadow whose bank is not there would keep the worker from starting, and is told.
    """
    shadow = ShadowSettings(enabled=True, bank_path=tmp_path / "nowhere")
    found = statuses(Settings(shadow=shadow), model_parts)

    assert "failed" == found["shadow"][0]
    assert "shadow.bank_path" in found["shadow"][1]


# this machine


def test_every_format_decodes_here() -> None:
    """
    The built-in sample of each format comes out in its colours.
    """
    found = machine.codecs(Settings())

    assert "ok" == found.status
    assert "JPEG, PNG, WEBP, GIF, AVIF" in found.text


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_a_codec_that_is_missing_or_wrong_fails(format_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Pillow without the format, one that cannot decode it and one that gets the colours wrong are all told.
    """
    settings = Settings(decode=DecodeSettings.model_validate({"formats": [format_name]}))
    found = []
    for broken_by in ("absent", "damaged", "colours"):
        with monkeypatch.context() as patch:
            if broken_by == "absent":
                patch.setattr("worker.stages.decode._supported", lambda _name: False)
            elif broken_by == "damaged":
                patch.setattr("worker.doctor.machine.SAMPLES", {format_name: SAMPLES[format_name][:40]})
            else:
                patch.setattr(machine, "_is_red_and_blue", lambda _pixels: False)
            found.append(machine.codecs(settings))

    assert ["failed"] * 3 == [one.status for one in found]
    assert all(format_name in one.text and "decode.formats" in one.advice for one in found)


def test_the_colours_are_looked_at() -> None:
    """
    Red and blue the other way round are not red and blue.
    """
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:, :2, 0], pixels[:, 2:, 2] = 200, 200

    assert machine._is_red_and_blue(pixels)
    assert not machine._is_red_and_blue(pixels[:, ::-1])


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No folder and no right to write fail, little room is a warning; without a file there is nothing to look at.
    """
    here = Settings(embeddings=EmbeddingsSettings(keep="file", path=tmp_path / "kept.sqlite"))
    gone = Settings(embeddings=EmbeddingsSettings(keep="file", path=tmp_path / "no" / "kept.sqlite"))
    found = [machine.disk(Settings()), machine.disk(here), machine.disk(gone)]
    with monkeypatch.context() as patch:
        patch.setattr("worker.doctor.machine.shutil.disk_usage", lambda _path: SimpleNamespace(free=1000))
        found.append(machine.disk(here))
    with monkeypatch.context() as patch:
        patch.setattr("worker.doctor.machine.os.access", lambda _path, _mode: False)
        found.append(machine.disk(here))

    assert ["skipped", "ok", "failed", "warning", "failed"] == [one.status for one in found]
    assert not list(tmp_path.iterdir())


def test_http(taken_port: int) -> None:
    """
    A taken port and a foreign address fail; a free port is free afterwards, too.
    """

    def at(host: str, port: int) -> Finding:
        return machine.http(Settings(http=HttpSettings(enabled=True, host=host, port=port)))

    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    found = [machine.http(Settings()), at("127.0.0.1", taken_port), at("192.0.2.1", free), at("127.0.0.1", 0)]
    found += [at("127.0.0.1", free), at("127.0.0.1", free)]

    assert ["skipped", "failed", "failed", "ok", "ok", "ok"] == [one.status for one in found]
    assert "may be running here already" in found[1].advice


def test_each_check_has_advice_for_what_it_raises() -> None:
    """
    No check leaves an operator without something to do.
    """
    settings = Settings()
    parts = some_parts()
    checks = [
        *servers.server_checks(settings, parts),
        *model.model_checks(settings, parts),
        *machine.machine_checks(settings),
    ]

    assert len(checks) == len({check.name for check in checks})
    assert all(check.advice for check in checks)
