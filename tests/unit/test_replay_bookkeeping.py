"""
The index of what earlier verdicts said, and the outbox that adds up what a replay writes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from schemas.errors import ErrorCode
from tests.builders import a_failure_ruling, a_judgement, an_upload, facts, handled, versions
from worker.adapters.past_upload_index import PastUploadIndex
from worker.domain import ContentHash, Partition, Upload
from worker.errors import EventUnreadable, UploadFailed
from worker.flow.replay_run import RunPlan, RunState, RunTotals
from worker.outcomes import Outcome, Release
from worker.ports import GroupMembership, PastUpload
from worker.replay.failures import Failures
from worker.replay.run_outbox import RunOutbox
from worker.stages.intake import dead_letter_of
from worker.stages.report import verdict_of_failure, verdict_of_judgement
from worker.stages.serialise import Route

SHA = "ab" * 32
ROUTE = Route("out", "out dead letters", "urn:touchstone:worker:test")
NOBODY = GroupMembership(None)


class Written:
    """
    A run's output that remembers what it was given.
    """

    def __init__(self) -> None:
        self.writes: list[tuple[list[Release], dict[Partition, int], RunTotals]] = []

    def find(self, _run_id: str | None) -> RunState | None:
        """
        Nothing.
        """
        return None

    def begin(self, plan: RunPlan) -> RunState:
        """
        New.
        """
        return RunState.new(plan)

    def resume(self, found: RunState) -> RunState:
        """
        As it is.
        """
        return found

    def write(self, releases: Sequence[Release], offsets: Mapping[Partition, int], totals: RunTotals) -> None:
        """
        Remembered.
        """
        self.writes.append((list(releases), dict(offsets), totals))

    def finish(self, _totals: RunTotals) -> None:
        """
        Nothing.
        """

    def close(self) -> None:
        """
        Nothing.
        """


def a_verdict(upload: Upload, verdict_id: UUID, image: Mapping[str, object] | None) -> bytes:
    """
    As much of a verdict as the index reads.
    """
    at = upload.raw.partition
    place: dict[str, Any] = {"topic": at.topic, "partition": at.number, "offset": upload.raw.offset}
    return json.dumps({"verdict_id": str(verdict_id), "input": place, "image": image}).encode()


def moved(upload: Upload, offset: int) -> Upload:
    """
    The same upload at another offset.
    """
    return replace(upload, raw=replace(upload.raw, offset=offset))


def test_the_latest_verdict_counts() -> None:
    """
    Of two verdicts on one upload the later is told; an upload that nobody judged is not known.
    """
    upload, first, second = an_upload(), uuid4(), uuid4()
    image = {"sha256": SHA, "byte_length": 77}
    index = PastUploadIndex(upload.raw.partition.topic)
    index.add([a_verdict(upload, first, None), a_verdict(upload, second, image)])

    assert index.of(upload) == PastUpload(ContentHash(SHA), 77, second)
    assert index.of(moved(upload, upload.raw.offset + 1)) is None
    assert len(index) == 1


def test_a_verdict_without_bytes_still_tells_what_is_superseded() -> None:
    """
    The bytes of an upload that failed to be fetched are not known, and its verdict is.
    """
    upload, verdict_id = an_upload(), uuid4()
    index = PastUploadIndex(upload.raw.partition.topic).add([a_verdict(upload, verdict_id, None)])

    assert index.of(upload) == PastUpload(None, 0, verdict_id)


def test_a_later_failure_does_not_forget_the_bytes() -> None:
    """
    An event that came twice, and found the image gone the second time: its embedding is kept under the first's hash.
    """
    upload, failed = an_upload(), uuid4()
    index = PastUploadIndex(upload.raw.partition.topic)
    index.add([a_verdict(upload, uuid4(), {"sha256": SHA, "byte_length": 77}), a_verdict(upload, failed, None)])

    assert PastUpload(ContentHash(SHA), 77, failed) == index.of(upload)


def test_what_is_no_verdict_is_counted_and_others_topics_are_passed_over() -> None:
    """
    Damaged records are counted; tombstones and verdicts on another topic's uploads are not.
    """
    upload = an_upload()
    index = PastUploadIndex("another")
    index.add([b"{", b"[]", b'{"input": 3}', None, a_verdict(upload, uuid4(), None)])

    assert index.unreadable == 3
    assert len(index) == 0


def test_many_verdicts_are_taken_in_order() -> None:
    """
    More than fit into one transaction of the index.
    """
    upload = an_upload()
    ids = [uuid4() for _ in range(2_500)]
    index = PastUploadIndex(upload.raw.partition.topic)
    index.add(a_verdict(moved(upload, number), one, None) for number, one in enumerate(ids))

    assert [index.of(moved(upload, number)) for number in (0, 999, 1000, 2499)] == [
        PastUpload(None, 0, ids[number]) for number in (0, 999, 1000, 2499)
    ]


def test_a_run_is_written_whole_and_added_up() -> None:
    """
    Verdicts go on; a dead letter is counted and left out, and the offsets pass it; totals go on from where they were.
    """
    output = Written()
    told: list[Mapping[Partition, int]] = []
    failures = Failures()
    outbox = RunOutbox(output, ROUTE, RunTotals(replayed=10, fetched=1), on_written=told.append, failures=failures)
    recalled, fetched, failed, unread = (moved(an_upload(), offset) for offset in range(4))
    place = recalled.raw.partition
    failure = UploadFailed(ErrorCode.EMBEDDING_UNKNOWN, "none")
    outcomes: list[Outcome] = [
        _judged(recalled, fetch_ms=None),
        _judged(fetched, fetch_ms=3.0),
        verdict_of_failure(
            failed,
            failure,
            ruling=a_failure_ruling(),
            handled=handled(facts=None, fetch_ms=None),
            versions=versions(),
        ),
        dead_letter_of(unread.raw, EventUnreadable(ErrorCode.EVENT_INVALID, "no"), worker_version="1", now_s=0.0),
    ]
    releases = [Release(place, number, outbox.serialise(outcome)[0]) for number, outcome in enumerate(outcomes)]
    before = failures.by_code
    done = outbox.transact(releases, {place: 4}, NOBODY)
    written, offsets, totals = output.writes[0]

    assert done
    assert [release.offset for release in written] == [0, 1, 2]
    assert offsets == {place: 4}
    assert totals == outbox.totals == RunTotals(13, from_embeddings=1, fetched=2, failed=1, dead_letters=1)
    assert told == [{place: 4}]
    assert ({}, {"EMBEDDING_UNKNOWN": 1, "EVENT_INVALID": 1}) == (before, failures.by_code)


def _judged(upload: Upload, *, fetch_ms: float | None) -> Outcome:
    return verdict_of_judgement(
        upload, a_judgement(), surface="post", handled=handled(facts=facts(), fetch_ms=fetch_ms), versions=versions()
    )
