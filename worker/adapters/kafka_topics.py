"""
The topics of a cluster, asked and changed through kafka-python's admin client.

What should be there, and what differs, is decided in ``topic_plan.py``.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from worker.adapters.kafka_client import START_TIMEOUT_S as TIMEOUT_S
from worker.adapters.kafka_client import admin_client, starting, told
from worker.adapters.topic_plan import (
    ALWAYS,
    FoundTopic,
    TopicPlan,
    TopicsFile,
    WantedTopic,
    changes,
    plan_topics,
    wanted_topics,
)
from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings

ASK_AGAIN_S: Final = 0.05


class KafkaTopics:
    """
    The topics of one cluster. Every method blocks and raises ``CannotStart`` when Kafka does not answer or refuses.
    """

    def __init__(self, settings: KafkaSettings, admin: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._settings = settings
        self._admin = admin

    def brokers(self) -> int:
        """
        How many brokers are in service.
        """
        with starting(self._settings, TIMEOUT_S):
            cluster = self._admin.describe_cluster()
        return sum(not broker.get("is_fenced") for broker in cluster["brokers"])

    def find(self, names: Sequence[str]) -> dict[str, FoundTopic]:
        """
        Those of the named topics that exist.
        """
        with starting(self._settings, TIMEOUT_S):
            described = [topic for topic in self._admin.describe_topics(list(names)) if not self._missing(topic)]
            if not described:
                return {}
            resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in described]
            configs = self._admin.describe_configs(resources, config_filter="all")["topic"]
        return {
            topic["name"]: FoundTopic(
                partitions=len(topic["partitions"]),
                replication_factor=len(topic["partitions"][0]["replica_nodes"]),
                config={key: entry["value"] for key, entry in configs[topic["name"]].items()},
            )
            for topic in described
        }

    def _missing(self, topic: dict[str, Any]) -> bool:
        error = kafka_errors.for_code(topic["error_code"])
        if error not in (kafka_errors.NoError, kafka_errors.UnknownTopicOrPartitionError):
            raise CannotStart(f"Kafka will not describe topic {topic['name']}: {told(error())}")
        return error is kafka_errors.UnknownTopicOrPartitionError

    def apply(self, plan: Sequence[TopicPlan]) -> None:
        """
        Create what is missing and alter what differs; what is as wanted is not touched.
        """
        self._create([topic.wanted for topic in plan if topic.action == "create"])
        self._alter([topic for topic in plan if topic.action == "alter"])

    def _create(self, topics: Sequence[WantedTopic]) -> None:
        if not topics:
            return
        wanted = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "configs": dict(topic.config),
            }
            for topic in topics
        }
        with starting(self._settings, TIMEOUT_S):
            answered = self._admin.create_topics(wanted, raise_errors=False)["topics"]
            for topic in answered:
                error = kafka_errors.for_code(topic["error_code"])
                # Another who applies the same plan was quicker.
                if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                    raise CannotStart(
                        f"Kafka will not create topic {topic['name']}: {told(error(topic['error_message']))}"
                    )
            self._admin.wait_for_topics(list(wanted))

    def _alter(self, topics: Sequence[TopicPlan]) -> None:
        if not topics:
            return
        # Only what differs: the request leaves every other value as it is.
        resources = [
            ConfigResource(
                ConfigResourceType.TOPIC,
                topic.wanted.name,
                {difference.key: difference.wanted for difference in topic.differences},
            )
            for topic in topics
        ]
        with starting(self._settings, TIMEOUT_S):
            answered = self._admin.alter_configs(resources)["topic"]
        for name, answer in answered.items():
            if answer != "OK":
                raise CannotStart(f"Kafka will not alter topic {name}: {answer}")
        self._wait_for(topics)

    def _wait_for(self, topics: Sequence[TopicPlan]) -> None:
        # The controller has taken the values, and the brokers learn of them soon.
        wanted = [topic.wanted for topic in topics]
        deadline_s = time.monotonic() + TIMEOUT_S
        while changes(plan_topics(wanted, self.find([topic.name for topic in wanted]))):
            if time.monotonic() > deadline_s:
                names = ", ".join(topic.name for topic in wanted)
                raise CannotStart(f"Kafka took new values for {names}, but shows the old ones after {TIMEOUT_S:g} s")
            time.sleep(ASK_AGAIN_S)

    def delete(self, names: Sequence[str]) -> None:
        """
        Delete topics and everything in them; those that do not exist are passed over.
        """
        with starting(self._settings, TIMEOUT_S):
            self._admin.delete_topics(list(names), raise_errors=False)


@contextmanager
def topics_of(settings: KafkaSettings) -> Iterator[KafkaTopics]:
    """
    The topics of the configured cluster, while inside. Raises ``CannotStart``.
    """
    with ExitStack() as stack:
        with starting(settings, TIMEOUT_S):
            admin = stack.enter_context(admin_client(settings, timeout_s=TIMEOUT_S))
        yield KafkaTopics(settings, admin)


@contextmanager
def create_for_a_while(
    settings: KafkaSettings, *, partitions: int, retry_delays_s: Sequence[float] = ()
) -> Iterator[None]:
    """
    The configured topics exist while inside, and are deleted with all that is in them afterwards.

    So do as many retry topics as there are ``retry_delays_s``. For names that nobody else uses. Raises ``CannotStart``,
    also when one of them exists already.
    """
    with topics_of(settings) as topics:
        wanted = wanted_topics(
            settings,
            TopicsFile(),
            brokers=topics.brokers(),
            roles=(*ALWAYS, "retries"),
            partitions=partitions,
            retry_delays_s=retry_delays_s,
        )
        names = [topic.name for topic in wanted]
        if existing := sorted(topics.find(names)):
            raise CannotStart(f"Topics {', '.join(existing)} exist already and would be deleted; use other names")
        topics.apply(plan_topics(wanted, {}))
    try:
        yield
    finally:
        with topics_of(settings) as topics:
            topics.delete(names)


def dead_letter_limit_bytes(settings: KafkaSettings) -> int | None:
    """
    The largest message that the dead-letter topic takes; None where we may not ask.

    A dead letter over the limit would stop the worker at the same record for ever.
    """
    return least_limit_bytes(settings, [settings.topics.dead_letters])


def least_limit_bytes(settings: KafkaSettings, names: Sequence[str]) -> int | None:
    """
    The largest message that each of these topics takes; None where we may not ask, or none of them is there.
    """
    try:
        with topics_of(settings) as topics:
            found = topics.find(names)
    except CannotStart:
        return None
    limits = [topic.config.get("max.message.bytes") for topic in found.values()]
    return min((int(limit) for limit in limits if limit), default=None)
