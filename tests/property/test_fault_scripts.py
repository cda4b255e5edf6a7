"""
Whatever fails, wherever and however often: each upload ends exactly once, in order, and nothing is committed early.
"""

from dataclasses import dataclass
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorClass, ErrorCode, class_of
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World
from worker.errors import UploadFailed
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits

NAMES = tuple(f"upload{number}" for number in range(8))
CODES = (
    ErrorCode.FETCH_UPSTREAM,
    ErrorCode.FETCH_HOST_DOWN,
    ErrorCode.FETCH_NOT_FOUND,
    ErrorCode.FETCH_TOO_LARGE,
    ErrorCode.DECODE_FAILED,
    ErrorCode.DECODE_CRASHED,
    ErrorCode.ENCODE_OUT_OF_MEMORY,
    ErrorCode.INTERNAL,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What happens to one upload at one seam, and how often.
    """

    seam: Literal["fetch", "decode", "judge"]
    name: str
    code: ErrorCode
    times: int


FAULTS = st.builds(
    Fault,
    st.sampled_from(("fetch", "decode", "judge")),
    st.sampled_from(NAMES),
    st.sampled_from(CODES),
    st.integers(min_value=1, max_value=4),
)


@settings(deadline=None, max_examples=40)
@given(
    faults=st.lists(FAULTS, max_size=10, unique_by=lambda fault: (fault.seam, fault.name)),
    in_process=st.integers(min_value=0, max_value=2),
    steps=st.integers(min_value=0, max_value=2),
    delivery=st.sampled_from(("at_least_once", "exactly_once")),
)
def test_fault_scripts_keep_conservation(
    faults: list[Fault], in_process: int, steps: int, delivery: Literal["at_least_once", "exactly_once"]
) -> None:
    """
    One end for each upload; one letter beside it if and only if its code has one; one record for each time put off.

    The world itself fails at a commit that passes an upload which neither ended nor was put off. What was not put off
    is answered in its partition's order.
    """
    retries = Retries(in_process, 0.001, 0.002, (0.002, 0.004)[:steps])
    storm = StormLimits(consecutive=len(NAMES) + 1, hold_s=0.002)
    with World(retries=True) as world:
        worker = Worker(world, Tuning(delivery=delivery, retries=retries, storm=storm))
        for fault in faults:
            worker.seams.fail(fault.seam, fault.name, UploadFailed(fault.code, "scripted"), times=fault.times)
        for number, name in enumerate(NAMES):
            world.publish(name, partition=number % 2)
        report = worker.finish()
        ends, put_off = world.ends(), world.put_off()
        failed = {name: codes[0] for name, codes in ends.items() if codes != ["judged"]}
        mendable = {name: [code] for name, code in failed.items() if class_of(ErrorCode(code)) is not PERMANENT}
        again = {name for name, _, _ in put_off}

        assert dict.fromkeys(NAMES, 1) == {name: len(codes) for name, codes in ends.items()}
        assert mendable == world.letters_beside()
        assert len({(name, marks.attempts) for name, marks, _ in put_off}) == len(put_off)
        assert (report.by_status["deferred"], 0) == (len(put_off), report.abandoned)
        for partition in range(2):
            order = [name for name in NAMES[partition::2] if name not in again]
            assert order == [name for name in world.judged(partition) if name not in again]


PERMANENT = ErrorClass.PERMANENT
