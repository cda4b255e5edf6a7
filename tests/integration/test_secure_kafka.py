"""
Kafka with TLS, certificates on both sides, passwords and access control lists, on a real broker.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from tests.kafka_worlds import RealWorld
from tests.platform_side import inline, small_jpeg, upload_event
from tests.secured_rig import Files, certified, written
from tests.security_text import table
from tests.servers import eventually
from tests.worker_rig import START_DEADLINE_S, WorkerRig
from worker.adapters.kafka_client import require_topics
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_source import KafkaEventSource
from worker.adapters.kafka_waits import RetryWaits
from worker.adapters.system_clock import SystemClock
from worker.dev.kafka_secured import SecuredListener
from worker.dev.kafka_server import EmbeddedKafka
from worker.errors import EXIT_CANNOT_START, CannotStart, TouchstoneError
from worker.outcomes import Message, Release
from worker.settings.tree import KafkaSettings

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

PASSWORD = "Pa55word-of-the-worker"  # noqa: S105 - a broker of this test's own
WRONG = "Pa55word-of-nobody"
WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Secured:
    """
    The broker, and the files with which a worker is told of it.
    """

    kafka: EmbeddedKafka
    files: Files
    strangers: Files

    @property
    def fields(self) -> dict[str, object]:
        """
        The settings of whoever may connect.
        """
        return {
            "bootstrap_servers": self.kafka.secured_servers,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": WORKER,
            "sasl_password": PASSWORD,
            "ssl_cafile": self.files.cafile,
            "ssl_certfile": self.files.certfile,
            "ssl_keyfile": self.files.keyfile,
        }

    def settings(self, **changes: object) -> KafkaSettings:
        """
        The same, changed; None leaves a field out.
        """
        chosen = self.fields | changes
        return KafkaSettings.model_validate({name: value for name, value in chosen.items() if value is not None})

    def sets(self) -> list[str]:
        """
        The same for a command line.
        """
        return [f"kafka.{name}={json.dumps(str(value))}" for name, value in self.fields.items()]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """
    A broker that asks for a certificate and a password, and grants nothing that no list grants.
    """
    folder = tmp_path_factory.mktemp("secured")
    certificate = certified()
    listener = SecuredListener(
        certificate.keystore, certificate.authority, {WORKER: PASSWORD}, client_certificates=True
    )
    with EmbeddedKafka(secured=listener) as kafka:
        yield Secured(kafka, written(certificate, folder / "ours"), written(certified(by="others"), folder / "others"))


def acl(resource: ResourceType, name: str, operation: str) -> ACL:
    """
    What grants the worker's user one operation; a name that ends with ``*`` is a prefix.
    """
    pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
    return ACL(
        f"User:{WORKER}",
        "*",
        ACLOperation[operation.upper()],
        ACLPermissionType.ALLOW,
        ResourcePattern(resource, name.rstrip("*"), pattern),
    )


def documented(names: dict[str, str]) -> list[ACL]:
    """
    The lists that SECURITY.md says a worker needs, with these names in the place of settings.
    """
    kinds = {"Topic": ResourceType.TOPIC, "Group": ResourceType.GROUP, "TransactionalId": ResourceType.TRANSACTIONAL_ID}
    return [
        acl(kinds[kind], names[setting], operation.strip())
        for kind, setting, operations, _ in table("Kafka: what a worker's user needs")
        if setting in names
        for operation in operations.split(",")
    ]


@contextmanager
def granted(secured: Secured, acls: list[ACL]) -> Iterator[None]:
    """
    These lists, and no others, are in force inside.
    """
    with closing(KafkaAdminClient(bootstrap_servers=secured.kafka.bootstrap_servers)) as admin:
        kafka: Any = admin
        everything = ACLFilter(
            None,
            None,
            ACLOperation.ANY,
            ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )

        def none_left() -> bool:
            kafka.delete_acls([everything])
            return not kafka.describe_acls(everything)[0]

        kafka.create_acls(acls)
        try:
            yield
        finally:
            assert eventually(none_left)


def names_of(settings: KafkaSettings) -> dict[str, str]:
    """
    What a worker's settings name, under the words of SECURITY.md.
    """
    topics = settings.topics
    return {
        "kafka.topics.uploads": str(topics.uploads),
        "kafka.topics.verdicts": str(topics.verdicts),
        "kafka.topics.dead_letters": str(topics.dead_letters),
        "kafka.topics.retry-*": f"{topics.retry}-*",
        "kafka.group_id": settings.group_id,
        "kafka.group_id-*": f"{settings.group_id}-*",
    }


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_whole_worker_over_tls_with_a_password(
    delivery: str, secured: Secured, new_rig: Callable[..., WorkerRig]
) -> None:
    """
    With its certificate, its password and the documented lists alone, a worker reads, judges, commits and ends well.
    """
    rig = new_rig(bootstrap_servers=secured.kafka.bootstrap_servers).configure("retry.delays_s=[1]")
    rig.configure(f"kafka.delivery={delivery}").create_topics(2)
    with granted(secured, documented(names_of(rig.settings.kafka))):
        worker = rig.start("one", *secured.sets())
        worker.until_started()
        reader = rig.reader(isolation_level="read_committed")
        published = rig.publish(upload_event(f"secured-{number}", inline(small_jpeg(number))) for number in range(5))
        assert reader.until_answered(published), worker.text()
        assert worker.stop() == 0, worker.text()
        committed = rig.cluster.committed()

    assert {"decided", "abstained"} >= {verdict["outcome"]["status"] for verdict in reader.verdicts()}
    assert 5 == sum(committed.values())
    assert PASSWORD not in worker.text(lines=10**6)


def test_a_wrong_password_ends_the_start(secured: Secured, new_rig: Callable[..., WorkerRig]) -> None:
    """
    The whole worker ends at once with what to check, and shows neither password.
    """
    rig = new_rig(bootstrap_servers=secured.kafka.bootstrap_servers)
    worker = rig.start("one", *secured.sets(), f"kafka.sasl_password={WRONG}")

    assert EXIT_CANNOT_START == worker.wait(START_DEADLINE_S), worker.text()
    said = worker.text(lines=10**6)
    assert "check kafka.sasl_username, kafka.sasl_password" in said
    assert WRONG not in said


NO_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
PLAIN = dict.fromkeys(("sasl_mechanism", "sasl_username", "sasl_password", *NO_FILES)) | {
    "security_protocol": "PLAINTEXT"
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sasl_password": WRONG}, "check kafka.sasl_username"),
        ({"sasl_username": "nobody"}, "check kafka.sasl_username"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "kafka.sasl_mechanism"),
        ({"ssl_cafile": "strangers"}, "kafka.ssl_cafile"),
        ({"ssl_cafile": None}, "kafka.ssl_cafile"),
        ({"ssl_certfile": None, "ssl_keyfile": None}, "kafka.ssl_certfile"),
        (
            {"security_protocol": "SASL_PLAINTEXT", **dict.fromkeys(("ssl_cafile", "ssl_certfile", "ssl_keyfile"))},
            "TLS",
        ),
        (PLAIN, "set kafka.security_protocol to SSL or SASL_SSL"),
        ({"bootstrap_servers": "those without TLS"}, "set kafka.security_protocol to SASL_PLAINTEXT"),
    ],
    ids=["password", "user", "mechanism", "authority", "no authority", "no certificate", "no TLS", "plain", "TLS"],
)
def test_whoever_is_refused_is_told_why(secured: Secured, changes: dict[str, Any], said: str) -> None:
    """
    Each cause is told with the setting that mends it, and no message shows a password.
    """
    if changes.get("ssl_cafile") == "strangers":
        changes = changes | {"ssl_cafile": secured.strangers.cafile}
    if "bootstrap_servers" in changes:
        changes = changes | {"bootstrap_servers": secured.kafka.bootstrap_servers}
    with pytest.raises(CannotStart) as refused:
        require_topics(secured.settings(**changes), ["uploads"], timeout_s=3.0)

    assert said in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert WRONG not in str(refused.value)


def cycle(world: RealWorld, settings: KafkaSettings, transactional_id: str | None) -> None:
    """
    What a worker does with its topics: read an upload and one that was put off, publish to all, store offsets.
    """
    retries = [f"{world.name}-retry-1"]
    outbox = KafkaOutbox(settings, world.counts, client_id="c", transactional_id=transactional_id, retry_topics=retries)
    waits = RetryWaits(retries, SystemClock())
    with (
        closing(outbox),
        closing(KafkaEventSource(settings, world.counts, client_id="c", instance_id=None, retries=waits)) as source,
    ):
        taken: dict[str, Any] = {}

        def both_taken() -> bool:
            polled = source.poll(room=100, wait_s=0.05)
            taken.update({event.partition.topic: (event, polled.membership) for event in polled.events})
            return len(taken) == 2

        assert eventually(both_taken, deadline_s=60.0), taken
        event, membership = taken[world.uploads]
        topics = (world.verdicts, world.dead_letters, *retries)
        messages = [Message(topic=topic, key=b"k", value=b"{}", headers=(), timestamp_ms=1) for topic in topics]
        releases = [Release(event.partition, event.offset, messages[0], tuple(messages[1:]))]
        offsets = {event.partition: event.offset + 1}
        if transactional_id is not None:
            assert outbox.transact(releases, offsets, membership)
            return
        outbox.publish(releases)
        assert eventually(lambda: bool(outbox.take_acknowledged()))
        assert source.commit(offsets)


def attempt(world: RealWorld, settings: KafkaSettings, transactional_id: str | None) -> str:
    """
    How a worker without the rights would end; empty if it does its work.
    """
    for number in range(4):
        world.upload(number, b"{}")
    world._producer.send(f"{world.name}-retry-1", value=b"{}", partition=0).get(60)
    try:
        cycle(world, settings, transactional_id)
    except TouchstoneError as error:
        return str(error)
    return ""


def test_exactly_the_documented_lists_suffice(secured: Secured, topic_name: str) -> None:
    """
    With all of them the work is done, in transactions and without; with any one missing it is refused, and told why.
    """
    with RealWorld(secured.kafka.bootstrap_servers, topic_name) as world:
        world.admin.create_topics({f"{world.name}-retry-1": {"num_partitions": 1}}, wait_for_metadata=True)
        fields = secured.fields | {
            "group_id": world.name,
            "session_timeout_s": 6.0,
            "publish_timeout_s": 10.0,
            "topics": world.settings.topics.model_copy(update={"retry": f"{world.name}-retry"}).model_dump(),
        }
        settings = KafkaSettings.model_validate(fields)
        needed = documented(names_of(settings))
        transactional_id = f"{world.name}-one"
        with granted(secured, needed):
            whole = [attempt(world, settings, transactional_id), attempt(world, settings, None)]
        refused = {}
        for missing in needed:
            with granted(secured, [one for one in needed if one != missing]):
                name = f"{missing.resource_pattern.resource_name} {missing.operation.name}"
                refused[name] = attempt(world, settings, transactional_id)

    assert ["", ""] == whole
    assert 7 == len(refused)
    assert [] == [name for name, said in refused.items() if "Authorization" not in said]
