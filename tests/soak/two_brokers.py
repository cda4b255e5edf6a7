"""
Two real brokers of one cluster, so that a group's coordinator can go and another broker take its place.

The first is also the controller; everything internal lies on both. One broker alone is ``worker/dev/kafka_server.py``.
"""

import os
import re
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self
from uuid import uuid4

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.servers import eventually
from worker.dev.embedded import LOOPBACK, EmbeddedServer, NotReady, free_port
from worker.dev.kafka_server import FORMAT_DEADLINE_S, LOG4J2, EmbeddedKafka
from worker.dev.probes import ask_port
from worker.dev.supervised import ServerStatus, SupervisedProcess
from worker.errors import CannotStart

OFFSETS = "__consumer_offsets"
FIRST_ID, SECOND_ID = 1, 2
PATIENCE_S = 120.0
REPLICATED = ("offsets.topic.replication.factor", "transaction.state.log.replication.factor")


class FirstBroker(EmbeddedKafka):
    """
    Broker and controller, as in development, but for its internal topics, which wait for a second broker.
    """

    def _prepare(self, process: SupervisedProcess) -> None:
        super()._prepare(process)
        properties = process.directory / "server.properties"
        text = properties.read_text(encoding="utf-8")
        for name in REPLICATED:
            text = re.sub(rf"^{re.escape(name)}=.*$", f"{name}=2", text, flags=re.MULTILINE)
        properties.write_text(text, encoding="utf-8")


class SecondBroker(EmbeddedServer):
    """
    A broker that joins the first one's cluster.
    """

    name = "Kafka-2"

    def __init__(self, first: FirstBroker) -> None:
        super().__init__()
        self._first = first
        self._port = 0
        self._java: tuple[str, ...] = ()

    @property
    def bootstrap_servers(self) -> str:
        """
        Where clients connect: ``host:port``.
        """
        return f"{LOOPBACK}:{self._port}"

    def _prepare(self, process: SupervisedProcess) -> None:
        theirs, ours = str(self._first.directory), str(process.directory)
        self._port = free_port()
        self._java = tuple(word.replace(theirs, ours) for word in self._first._java)
        text = (self._first.directory / "server.properties").read_text(encoding="utf-8").replace(theirs, ours)
        changes = {
            "process.roles": "broker",
            "node.id": str(SECOND_ID),
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self._port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self._port}",
        }
        for name, value in changes.items():
            text = re.sub(rf"^{re.escape(name)}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        (process.directory / "server.properties").write_text(text, encoding="utf-8")
        (process.directory / "log4j2.xml").write_text(LOG4J2.format(directory=ours), encoding="utf-8")
        process.start(
            [
                *self._java,
                "kafka.tools.StorageTool",
                *("format", "-t", self._first._cluster_id, "-c", "server.properties"),
            ]
        )
        status = process.wait(FORMAT_DEADLINE_S)
        if status.returncode != 0:
            raise CannotStart(f"Formatting the second broker's storage failed; its last lines:\n{process.log_tail()}")

    def _argv(self, process: SupervisedProcess) -> Sequence[str]:
        return (*self._java, "kafka.Kafka", str(process.directory / "server.properties"))

    def _probe(self, status: ServerStatus) -> None:
        ask_port(LOOPBACK, self._port)
        if SECOND_ID not in in_service(self._first.bootstrap_servers):
            raise NotReady("the controller does not count the second broker in")


class TwoBrokers:
    """
    Both, running inside. ``group()`` names a group that the second one coordinates.
    """

    def __init__(self) -> None:
        self.first = FirstBroker()
        self.second = SecondBroker(self.first)
        self._led: dict[int, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.first)
            stack.enter_context(self.second)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bootstrap_servers(self) -> str:
        """
        Of both.
        """
        return f"{self.first.bootstrap_servers},{self.second.bootstrap_servers}"

    def stop(self) -> None:
        """
        Nobody is left; the second goes first, while there is a controller to say so to.
        """
        self.second.stop()
        self.first.stop()

    def start(self) -> None:
        """
        Both are back, and the second leads again what it led at first.
        """
        self.first.start()
        self.bring_second_back()

    def restart(self) -> None:
        """
        Both went in order and are back.
        """
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """
        To both.
        """
        for server in (self.first, self.second):
            os.kill(server.pid, number)

    def kill_second(self) -> None:
        """
        It is gone without a word, and the first one leads all.
        """
        self.second.kill()
        assert eventually(lambda: set(self._leaders().values()) == {FIRST_ID}, deadline_s=PATIENCE_S), self._leaders()

    def bring_second_back(self) -> None:
        """
        It runs, holds all again that it missed, and coordinates the groups that it coordinated at first.
        """
        self.second.start()
        assert eventually(self._as_at_first, deadline_s=PATIENCE_S), f"leaders of {OFFSETS}: {self._leaders()}"

    def _as_at_first(self) -> bool:
        try:
            with KafkaAdminClient(bootstrap_servers=self.first.bootstrap_servers) as admin:
                admin.elect_leaders(0, raise_errors=False)
            return not self._led or self._leaders() == self._led
        except KafkaError:
            return False

    def group(self) -> str:
        """
        A new group's id, whose coordinator is the second broker.
        """
        with KafkaAdminClient(bootstrap_servers=self.first.bootstrap_servers) as admin:
            # Whoever asks first makes the topic of the groups.
            eventually(lambda: _answers(lambda: admin.list_group_offsets("touchstone-nobody")), deadline_s=PATIENCE_S)
        assert eventually(lambda: SECOND_ID in self._leaders().values(), deadline_s=PATIENCE_S), self._leaders()
        self._led = self._leaders()
        while True:
            name = f"touchstone-soak-{uuid4().hex[:12]}"
            if self._led[_java_hash(name) % len(self._led)] == SECOND_ID:
                return name

    def _leaders(self) -> dict[int, int]:
        """
        Broker by partition; empty while nobody says, as when the one who is asked is the one who was just killed.
        """
        try:
            with KafkaAdminClient(bootstrap_servers=self.first.bootstrap_servers) as admin:
                (told,) = admin.describe_topics([OFFSETS])
        except KafkaError:
            return {}
        return {one["partition_index"]: one["leader_id"] for one in told["partitions"]}


def in_service(bootstrap_servers: str) -> set[int]:
    """
    The brokers that the controller counts in; none while it does not answer.
    """
    try:
        with KafkaAdminClient(bootstrap_servers=bootstrap_servers) as admin:
            brokers: Any = admin.describe_cluster()["brokers"]
    except KafkaError:
        return set()
    return {broker["broker_id"] for broker in brokers if not broker.get("is_fenced")}


def _answers(ask: Any) -> bool:  # noqa: ANN401 - kafka-python is untyped
    try:
        ask()
    except KafkaError:
        return False
    return True


def _java_hash(text: str) -> int:
    """
    As Kafka places a group: Java's hash of its id, without the sign.
    """
    value = 0
    for one in text.encode("ascii"):
        value = (31 * value + one) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
