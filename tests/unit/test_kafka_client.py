"""
What must hold before a Kafka client is made, and how kafka-python's failures are told.
"""

from pathlib import Path

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.record import util as kafka_record_util

from worker.adapters.kafka_client import (
    connection_config,
    crashed,
    leave,
    reading_config,
    require_crc32c,
    starting,
    told,
)
from worker.errors import EXIT_CANNOT_START, CannotStart
from worker.settings.tree import KafkaSettings

PLAIN = KafkaSettings(bootstrap_servers="one:9092, two:9093,")


def test_the_c_codec_is_installed_here() -> None:
    """
    Our own requirements bring the C implementation of crc32c.
    """
    require_crc32c()


def test_without_the_c_codec_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The slow codec that kafka-python falls back to is refused, with the command that mends it.
    """
    monkeypatch.setattr(kafka_record_util, "crc32c_c", None)

    with pytest.raises(CannotStart, match=r'pip install "kafka-python\[crc32c\]"') as refused:
        require_crc32c()
    assert refused.value.exit_code == EXIT_CANNOT_START


def test_every_server_is_named_to_the_client() -> None:
    """
    A list with blanks and a trailing comma is read as what it means, without any credentials.
    """
    config = connection_config(PLAIN)

    assert config["bootstrap_servers"] == ["one:9092", "two:9093"]
    assert config["security_protocol"] == "PLAINTEXT"
    assert [name for name in config if name.startswith(("sasl", "ssl"))] == []


def test_credentials_and_authorities_reach_the_client(tmp_path: Path) -> None:
    """
    SASL over TLS: mechanism, name, password and the file of authorities, under kafka-python's names.
    """
    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    settings = KafkaSettings.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "worker",
            "sasl_password": "secret",
            "ssl_cafile": authorities,
        }
    )

    config = connection_config(settings)

    assert config["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl_plain_username"], config["sasl_plain_password"]) == ("worker", "secret")
    assert config["ssl_cafile"] == str(authorities)


def test_kafka_python_knows_every_argument() -> None:
    """
    kafka-python refuses what it does not know, so the names are checked against its own.
    """
    assert set(connection_config(PLAIN)) <= set(KafkaAdminClient.DEFAULT_CONFIG)


def test_no_consumer_of_ours_commits_or_skips_unasked() -> None:
    """
    What kafka-python would do by itself, commit on a timer and begin at the end, both lose records.
    """
    config = reading_config(PLAIN, client_id="c", group_id="g", isolation="read_uncommitted")

    assert connection_config(PLAIN).items() <= config.items()
    assert (config["client_id"], config["group_id"]) == ("c", "g")
    assert config["enable_auto_commit"] is False
    assert config["auto_offset_reset"] == "earliest"
    assert config["allow_auto_create_topics"] is False
    assert config["isolation_level"] == "read_uncommitted"
    assert reading_config(PLAIN, client_id="c")["isolation_level"] == "read_committed"
    assert set(config) <= set(KafkaConsumer.DEFAULT_CONFIG)


def test_leaving_commits_nothing_and_survives_a_broker_that_is_away() -> None:
    """
    The broker notices by itself that we are gone; a worker that ends must not fail over it.
    """
    asked: list[dict[str, object]] = []

    class Consumer:
        def close(self, **how: object) -> None:
            asked.append(how)
            raise kafka_errors.NodeNotReadyError

    leave(Consumer())

    assert [False] == [how["autocommit"] for how in asked]


def test_a_missing_file_of_authorities_is_named(tmp_path: Path) -> None:
    """
    It is refused before any broker is asked.
    """
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=tmp_path / "gone.pem")

    with pytest.raises(CannotStart, match=r"gone\.pem"):
        connection_config(settings)


@pytest.mark.parametrize(
    "error", [kafka_errors.KafkaTimeoutError("late"), kafka_errors.SaslAuthenticationFailedError(), OSError("no route")]
)
def test_whatever_goes_wrong_at_the_start_names_the_servers(error: Exception) -> None:
    """
    Time-outs, refusals and the network alike end as one kind of error that says where we looked.
    """
    with pytest.raises(CannotStart, match="one:9092, two:9093"), starting(PLAIN, 3.0):
        raise error


def test_a_start_in_vain_says_what_to_do() -> None:
    """
    The message names the time, the protocol and the development server.
    """
    with pytest.raises(CannotStart, match=r"within 3 s .*PLAINTEXT.*touchstone dev"), starting(PLAIN, 3.0):
        raise kafka_errors.KafkaTimeoutError("late")


def test_our_own_errors_pass_unchanged() -> None:
    """
    What already says what to do is not wrapped.
    """
    with pytest.raises(CannotStart, match=r"^plain words$"), starting(PLAIN, 3.0):
        raise CannotStart("plain words")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (kafka_errors.FencedInstanceIdError(), "service.instance_id"),
        (kafka_errors.InconsistentGroupProtocolError(), "kafka.group_id"),
        (kafka_errors.InvalidSessionTimeoutError(), "kafka.session_timeout_s"),
        (kafka_errors.MessageSizeTooLargeError("big"), "touchstone topics plan"),
        (kafka_errors.TopicAuthorizationFailedError("uploads"), "grant this user"),
        (kafka_errors.GroupAuthorizationFailedError("group"), "grant this user"),
    ],
)
def test_a_failure_comes_with_advice(error: Exception, advice: str) -> None:
    """
    What an operator can mend is told with how, beside kafka-python's own name for it.
    """
    message = str(crashed(error, "to give events"))

    assert advice in message
    assert type(error).__name__ in message


def test_a_failure_without_advice_is_told_as_it_is() -> None:
    """
    Name and text of an error that we have no advice for.
    """
    assert told(kafka_errors.KafkaError("odd")) == "KafkaError: odd"
