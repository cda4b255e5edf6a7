"""
A scan: the same loop and pipeline over a source that ends, into lines.
"""

import json
from functools import partial
from pathlib import Path

from tests.bank_builders import a_picture
from tests.loop_rig import ROUTE, Tuning, Worker
from tests.loop_world import World
from worker.adapters.file_source import FileSource
from worker.adapters.line_outbox import LineOutbox
from worker.flow.delivery import AtLeastOnce
from worker.flow.loop import Loop, LoopLimits
from worker.outcomes import Message
from worker.stages.serialise import to_messages


def a_scan(world: World, files: list[Path], lines: list[Message]) -> Loop:
    """
    A loop over these files, with room for three at a time.
    """
    world.shelf.pictures |= {str(file): file.read_bytes() for file in files}
    worker = Worker(world, Tuning(cached=False))
    source = FileSource(files, surface=None, clock=world.clock)
    return Loop(
        source,
        worker.pipeline,
        AtLeastOnce(source, LineOutbox(lines.append), commit_interval_s=0.0),
        serialise=partial(to_messages, route=ROUTE),
        limits=LoopLimits(max_in_flight=3, resume_below=0.75, drain_timeout_s=20.0),
        clock=world.clock,
        recorder=worker.recorder,
    )


def test_a_scan_writes_one_line_per_file_and_ends(world: World, tmp_path: Path) -> None:
    """
    One verdict per file, in the order of the files, also for those that fail; then the run ends by itself.
    """
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        file.write_bytes(b"no picture" if number == 4 else a_picture(number))
    lines: list[Message] = []
    report = a_scan(world, files, lines).run()
    verdicts = [json.loads(line.value) for line in lines]

    assert [str(file) for file in files] == [verdict["content_id"] for verdict in verdicts]
    assert [4] == [at for at, verdict in enumerate(verdicts) if verdict["outcome"]["status"] == "failed"]
    assert (10, 10, 0) == (report.consumed, report.released, report.abandoned)
    assert 1 == report.by_status["failed"]


def test_a_scan_of_nothing_ends_at_once(world: World) -> None:
    """
    There is nothing to wait for.
    """
    lines: list[Message] = []
    report = a_scan(world, [], lines).run()

    assert (0, []) == (report.consumed, lines)
