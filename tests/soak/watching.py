"""
Who asks the brokers while a campaign harms them: patient with whatever they answer, and never the end of a campaign.

What is asked of healthy brokers is in ``tests/platform_side.py`` and ``tests/outcome_reader.py``.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, NotCoordinatorError, UnknownBrokerIdError

from tests.outcome_reader import CommitWatch
from tests.platform_side import Cluster

PATIENCE_S = 240.0
"""For one round to be answered whole; with all well it takes seconds."""


class PatientCluster(Cluster):
    """
    A cluster whose brokers a campaign stops and starts: whatever they answer meanwhile, it is asked again.
    """

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        super().__init__(bootstrap_servers, group)
        self._servers = bootstrap_servers

    def _ask(self, question: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - kafka-python is untyped
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._asking:
                    return question(self._admin)
            except KafkaError as error:
                if time.monotonic() > give_up_s:
                    raise
                threading.Event().wait(0.2)
                if isinstance(error, NotCoordinatorError | UnknownBrokerIdError):
                    self._renew()

    def _renew(self) -> None:
        """
        Ask through a new client.

        kafka-python 3.0.12's keeps what it once found, a coordinator or a leader that is gone, and asks it for ever.
        """
        with suppress(KafkaError):
            fresh = KafkaAdminClient(bootstrap_servers=self._servers)
            with self._asking:
                old, self._admin = self._admin, fresh
            old.close()


class ToldWatch(CommitWatch):
    """
    A watch of which the tally tells that it broke off, where others raise it past the tally.
    """

    def ended(self) -> Sequence[str]:
        """
        It looks no more; in words, what ended it before.
        """
        self._closing.set()
        self._thread.join(PATIENCE_S)
        fault, self._fault = self._fault, None
        return [] if fault is None else [f"the watch over the commits broke off, {type(fault).__name__}: {fault}"[:300]]
