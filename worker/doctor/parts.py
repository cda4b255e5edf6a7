"""
What several checks look at, opened when the first of them asks, and only once.

A part that cannot be opened is the finding of the check that is named after it; the others say that they cannot know.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from worker.adapters.kafka_survey import ClusterFacts, survey_cluster
from worker.adapters.redis_survey import RedisFacts, survey_redis
from worker.bank.leaving_out import Without
from worker.doctor.finding import Unanswerable
from worker.encoders import for_pipeline, load_encoder
from worker.instruments import policy_path
from worker.operation.active_release import ActiveRelease, active_release
from worker.policy import Policy, load_policy
from worker.ports import Encoder
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.whole_banks import WholeBank, configured_bank, left_out, read_release

T = TypeVar("T")

ASK_TIMEOUT_S = 10.0
"""How long a server may take to answer: a doctor is asked by somebody who waits."""


class Part(Generic[T]):
    """
    Something that is opened once: ``own`` raises what went wrong, ``borrowed`` that another check has told it.
    """

    def __init__(self, check: str, open_it: Callable[[], T]) -> None:
        self._check = check
        self._open = open_it
        self._turn = threading.Lock()
        self._opened: tuple[T] | None = None
        self._fault: Exception | None = None

    def own(self) -> T:
        """
        The part, for the check that answers for it.
        """
        with self._turn:
            if self._fault is not None:
                raise self._fault
            if self._opened is None:
                try:
                    # Within a tuple, since a part may be None.
                    self._opened = (self._open(),)
                except Exception as fault:
                    self._fault = fault
                    raise
            return self._opened[0]

    def borrowed(self) -> T:
        """
        The part, for any other check; one that is still being opened is waited for no longer than a moment.
        """
        if not self._turn.acquire(timeout=1.0):
            raise Unanswerable(f"{self._check} has not answered")
        self._turn.release()
        try:
            return self.own()
        except Exception as fault:
            raise Unanswerable(f"needs {self._check}, which failed") from fault


@dataclass(frozen=True, slots=True)
class Parts:
    """
    The parts of one deployment; ``release`` is the one that holds, None where no place of releases is configured.
    """

    cluster: Part[ClusterFacts]
    redis: Part[RedisFacts]
    encoder: Part[Encoder]
    policy: Part[Policy]
    release: Part[ActiveRelease | None]
    bank: Part[WholeBank]


def parts_of(settings: Settings) -> Parts:
    """
    The parts that the settings name; nothing is opened yet.
    """
    release = Part("bank", partial(active_release, settings))
    return Parts(
        cluster=Part("kafka", partial(survey_cluster, settings.kafka, timeout_s=ASK_TIMEOUT_S)),
        redis=Part("redis", partial(survey_redis, settings.redis, timeout_s=ASK_TIMEOUT_S)),
        encoder=Part(
            "weights",
            lambda: load_encoder(
                for_pipeline(settings.encoder), recorder=InMemoryRecorder(), batch_size=settings.batch.size
            ),
        ),
        policy=Part("policy", lambda: load_policy(policy_path(settings.policy))),
        release=release,
        bank=Part("bank", lambda: _bank_of(settings, release.own())),
    )


def _bank_of(settings: Settings, active: ActiveRelease | None) -> WholeBank:
    """
    The bank that a worker would start with; of a place of releases, the active one without what is disabled.
    """
    if active is None:
        return configured_bank(settings)
    whole = read_release(active.folder, active.control, settings.bank.trusted_keys)
    return left_out(whole, Without.of(active.control))
