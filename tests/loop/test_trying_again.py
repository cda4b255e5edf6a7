"""
A fetch that fails for a reason which time may mend: tried again at once, then put off, then ended with a letter.
"""

from collections.abc import Iterator

import pytest

from schemas.errors import ErrorClass, ErrorCode, class_of
from tests.loop_rig import Tuning, Worker
from tests.loop_seams import ThreadKilled
from tests.loop_world import World, each, eventually
from worker.errors import UploadFailed, WorkerCrashed
from worker.flow.later import Later
from worker.flow.retrying import Retries

AWAY = UploadFailed(ErrorCode.FETCH_UPSTREAM, "cdn.example answered 503", http_status=503)
AT_ONCE = Retries(in_process=2, first_wait_s=0.002, longest_wait_s=0.01)
TWICE_LATER = Retries(delays_s=(0.01, 0.02))
NAMES = ("ant", "bee", "cat")


@pytest.fixture
def world() -> Iterator[World]:
    """
    A world with retry topics.
    """
    with World(retries=True) as made:
        yield made


@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_for_a_moment_is_judged_all_the_same(world: World, times: int) -> None:
    """
    A host that fails once or twice costs its upload a moment; the partition's order holds, and nobody else waits.
    """
    worker = Worker(world, Tuning(retries=AT_ONCE))
    worker.seams.fail("fetch", "ant", AWAY, times=times)
    world.publish(*NAMES)
    worker.finish()

    assert each(NAMES, "judged") == world.ends()
    assert list(NAMES) == world.judged()
    assert 1 + times == worker.seams.passed("fetch").count("ant")
    assert times == worker.counted('retries_total{code="FETCH_UPSTREAM",where="process"}')


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_what_keeps_failing_ends_with_a_verdict_and_its_letter(world: World, delivery: str) -> None:
    """
    Without retry topics the last try within the worker is the last: one verdict, one letter, committed once both lie.
    """
    worker = Worker(world, Tuning(delivery=delivery, retries=AT_ONCE))  # type: ignore[arg-type] # one of the two
    worker.seams.fail("fetch", "bee", AWAY)
    world.publish(*NAMES)
    report = worker.finish()

    assert {"ant": ["judged"], "bee": ["FETCH_UPSTREAM"], "cat": ["judged"]} == world.ends()
    assert {"bee": ["FETCH_UPSTREAM"]} == world.letters_beside()
    assert 3 == worker.seams.passed("fetch").count("bee")
    assert (1, 3, 1) == (report.letters, report.released, report.by_status["failed"])
    assert 1 == worker.counted('dead_letters_total{code="FETCH_UPSTREAM"}')


def test_a_host_that_is_down_is_not_asked_again_at_once(world: World) -> None:
    """
    Who says already that there is no use in asking is put off at once.
    """
    worker = Worker(world, Tuning(retries=AT_ONCE))
    worker.seams.fail("fetch", "ant", UploadFailed(ErrorCode.FETCH_HOST_DOWN, "left alone"))
    world.publish("ant")
    worker.finish()

    assert ["ant"] == worker.seams.passed("fetch")


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_what_was_put_off_comes_back_and_is_judged(world: World, delivery: str) -> None:
    """
    An upload whose host is away goes to the first retry topic, then to the second, and is judged when the host is back.

    Its verdict speaks of where the upload first lay; nothing is committed before it is answered.
    """
    worker = Worker(world, Tuning(delivery=delivery, retries=TWICE_LATER))  # type: ignore[arg-type] # one of the two
    worker.seams.fail("fetch", "bee", AWAY, times=2)
    world.publish(*NAMES, partition=2)
    report = worker.finish()
    verdicts = {one.content_id: one for one in world.verdicts()}

    assert each(NAMES, "judged") == world.ends()
    assert [("bee", 1), ("bee", 2)] == [(name, marks.attempts) for name, marks, _ in world.put_off()]
    assert (2, 1) == (verdicts["bee"].input.partition, verdicts["bee"].input.offset)
    assert 2 == report.by_status["deferred"]
    assert 2 == worker.counted('retries_total{code="FETCH_UPSTREAM",where="topic"}')


def test_after_the_last_retry_topic_it_ends_with_its_letter(world: World) -> None:
    """
    The verdict says how often the upload failed and since when, and the letter holds the record as it first was.
    """
    worker = Worker(world, Tuning(retries=TWICE_LATER))
    worker.seams.fail("fetch", "bee", AWAY)
    world.publish(*NAMES)
    worker.finish()
    error = {one.content_id: one for one in world.verdicts()}["bee"].error
    letter = world.dead_letters()[0]
    first = world.kafka.records("uploads")[1]

    assert {"ant": ["judged"], "bee": ["FETCH_UPSTREAM"], "cat": ["judged"]} == world.ends()
    assert error is not None
    assert 3 == error.attempts
    assert error.first_failed_at is not None
    assert error.first_failed_at.timestamp() * 1000 == pytest.approx(world.put_off()[0][1].first_failed_at_ms, abs=1)
    assert ("uploads", 0, 1) == (letter.original.topic, letter.original.partition, letter.original.offset)
    assert (first.value, first.headers) == (letter.original.value_bytes(), letter.original.header_items())


def test_only_what_may_mend_itself_is_put_off(world: World) -> None:
    """
    Of all codes exactly the transient ones go to a retry topic; all others end at once.
    """
    worker = Worker(world, Tuning(retries=Retries(delays_s=(0.01,))))
    for code in ErrorCode:
        worker.seams.fail("fetch", code.lower(), UploadFailed(code, "so it is"), times=1)
    world.publish(*(code.lower() for code in ErrorCode))
    worker.finish()
    transient = {code.lower() for code in ErrorCode if class_of(code) is ErrorClass.TRANSIENT}

    assert transient == {name for name, _, _ in world.put_off()}
    assert transient == {name for name, ends in world.ends().items() if ends == ["judged"]}


def test_every_code_has_a_letter_or_not(world: World) -> None:
    """
    What an operator, time or we may mend has a letter beside its verdict; what only the uploader can mend has none.
    """
    worker = Worker(world)
    for code in ErrorCode:
        worker.seams.fail("fetch", code.lower(), UploadFailed(code, "so it is"))
    world.publish(*(code.lower() for code in ErrorCode))
    worker.finish()
    mendable = {ErrorClass.TRANSIENT, ErrorClass.POLICY, ErrorClass.INTERNAL}

    assert {code.lower(): [code] for code in ErrorCode} == world.ends()
    assert {code.lower(): [code] for code in ErrorCode if class_of(code) in mendable} == world.letters_beside()


def test_a_revoked_upload_is_not_tried_again(world: World) -> None:
    """
    What waits for another try when its partition goes away is its next owner's.
    """
    worker = Worker(world, Tuning(retries=Retries(in_process=1, first_wait_s=1000, longest_wait_s=1000)))
    worker.seams.fail("fetch", "ant", AWAY, times=1)
    world.publish("ant", partition=1)
    worker.step_until(lambda: worker.counted('retries_total{code="FETCH_UPSTREAM",where="process"}') == 1)
    other = Worker(world, name="other")
    worker.step_until(lambda: worker.counted("uploads_forgotten_total") == 1)
    other.step_until(world.all_answered)

    assert {"ant": ["judged"]} == world.ends()
    assert ["ant"] == worker.seams.passed("fetch")
    eventually(lambda: not worker.pipeline._fetching._later)


def test_a_shutdown_does_not_wait_for_tries_to_come(world: World) -> None:
    """
    What waits when the drain's time is up is abandoned, neither answered nor committed, and read again by the next.
    """
    endless = Retries(in_process=1, first_wait_s=1000, longest_wait_s=1000)
    worker = Worker(world, Tuning(retries=endless, drain_timeout_s=0.05))
    worker.seams.fail("fetch", "ant", AWAY, times=1)
    world.publish("ant")
    worker.step_until(lambda: worker.counted('retries_total{code="FETCH_UPSTREAM",where="process"}') == 1)
    worker.loop.drain()
    report = worker.loop.run()
    worker.pipeline.close(5.0)
    worker.source.close()
    Worker(world, name="next").finish()

    assert 1 == report.abandoned
    assert {"ant": ["judged"]} == world.ends()


def test_the_thread_behind_which_uploads_wait_does_not_die_silently(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When it dies, the worker does, and what waited is read again.
    """

    def killed(_later: Later) -> None:
        raise ThreadKilled

    monkeypatch.setattr(Later, "_let_go", killed)
    worker = Worker(world, Tuning(retries=AT_ONCE))
    world.publish("ant")
    fault = worker.start().fault()

    assert isinstance(fault, WorkerCrashed)
    assert "thread later died" in str(fault)
    assert 0 == world.committed()
