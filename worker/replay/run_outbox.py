"""
The outbox of a replay: what the loop releases becomes one write of the run, with what it amounts to.

Where a run is written is behind ``worker.flow.replay_run.RunOutput``.
"""

from collections.abc import Callable, Mapping, Sequence

from worker.domain import Partition
from worker.errors import PublishFailed
from worker.flow.replay_run import RunOutput, RunTotals
from worker.outcomes import DeadLettered, Deferred, Message, Outcome, Release
from worker.ports import GroupMembership, PositionDone
from worker.replay.failures import Failures
from worker.stages.serialise import Route, to_message

_Place = tuple[int, int]


class RunOutbox:
    """
    Implements ``worker.ports.Outbox`` for ``ExactlyOnce``. ``totals`` are those of the whole run.

    Dead letters are counted and not written: the live worker has written them, and a replay judges uploads.
    ``on_written`` is told the next offsets to read after each write; ``failures`` counts what was written without a
    judgement.
    """

    def __init__(
        self,
        output: RunOutput,
        route: Route,
        totals: RunTotals,
        *,
        on_written: Callable[[Mapping[Partition, int]], None],
        failures: Failures,
    ) -> None:
        self._output = output
        self._route = route
        self._totals = totals
        self._on_written = on_written
        self._failures = failures
        self._noted: dict[_Place, tuple[RunTotals, str | None]] = {}

    @property
    def totals(self) -> RunTotals:
        """
        What was written so far.
        """
        return self._totals

    def serialise(self, outcome: Outcome) -> Sequence[Message]:
        """
        The message of an outcome, which is noted until it is written.
        """
        place, share = _share_of(outcome)
        self._noted[place] = share, _code_of(outcome)
        return (to_message(outcome, self._route),)

    def transact(
        self,
        releases: Sequence[Release],
        offsets: Mapping[Partition, int],
        membership: GroupMembership,  # noqa: ARG002 - a run belongs to no group
    ) -> bool:
        """
        Write them; always True, for nobody else can take partitions away. Raises ``PublishFailed``.
        """
        totals = self._totals
        for release in releases:
            totals += self._noted[release.partition.number, release.offset][0]
        verdicts = [release for release in releases if release.message.topic == self._route.verdicts]
        self._output.write(verdicts, offsets, totals)
        self._totals = totals
        for release in releases:
            _, code = self._noted.pop((release.partition.number, release.offset))
            if code is not None:
                self._failures.count(code)
        self._on_written(offsets)
        return True

    def publish(self, releases: Sequence[Release]) -> None:
        """
        Refused: without offsets a run could not be resumed.
        """
        raise PublishFailed(f"{len(releases)} outcomes of a replay came without offsets; use delivery exactly_once")

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        Nothing waits: a write has happened when it returns.
        """
        return ()

    def flush(self, timeout_s: float) -> None:
        """
        Nothing waits.
        """

    def close(self) -> None:
        """
        The output is its owner's to close.
        """


def _code_of(outcome: Outcome) -> str | None:
    if isinstance(outcome, Deferred):
        return str(outcome.code)
    error = outcome.dead_letter.error if isinstance(outcome, DeadLettered) else outcome.verdict.error
    return None if error is None else str(error.code)


def _share_of(outcome: Outcome) -> tuple[_Place, RunTotals]:
    if isinstance(outcome, Deferred):
        raise PublishFailed("an upload of a replay was put off; a replay has no retry topics")
    if isinstance(outcome, DeadLettered):
        original = outcome.dead_letter.original
        return (original.partition, original.offset), RunTotals(dead_letters=1)
    verdict = outcome.verdict
    failed, fetched = verdict.outcome.status == "failed", verdict.timing.fetch_ms is not None
    share = RunTotals(
        replayed=1, from_embeddings=int(not failed and not fetched), fetched=int(fetched), failed=int(failed)
    )
    return (verdict.input.partition, verdict.input.offset), share
