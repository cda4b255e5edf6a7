"""
One command of the guide, run as it is typed: in this process, or as a process of its own where it is a worker.

The order of the commands and what they must say are in ``guide_story.py``, their folders in ``guide_worlds.py``.
"""

import json
import re
import shlex
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

from schemas import feedback
from tests.command_line import Ran, Touchstone
from tests.guide_story import Chapter, Step
from tests.guide_worlds import UPLOADS, World
from tests.outcome_reader import OutcomeReader
from tests.platform_side import Event, inline, publish, upload_event
from tests.worker_rig import WorkerProcess


def words_of(step: Step, world: World) -> list[str]:
    """
    The words behind ``touchstone``, with what stands here for what the guide says.
    """
    filled_in = world.filled_in()
    anything = "|".join(map(re.escape, filled_in))
    line = re.sub(rf"(?<![\w-])(?:{anything})(?![\w-])", lambda found: filled_in[found[0]], step.line)
    return shlex.split(line)[1:]


def live_through(chapter: Chapter, world: World, touchstone: Touchstone) -> None:
    """
    Run the chapter's commands in their order, in the world's folder; each must end, say and leave what it should.
    """
    for step in chapter.steps:
        words = words_of(step, world)
        before = _state(world, step.leaves)
        ran = _ran(words, world, touchstone)
        told = f"`{step.line}` ended with {ran.code} and said:\n{ran.out[-4000:]}\n{ran.err[-4000:]}"

        assert step.code == ran.code, told
        assert re.search(step.says, ran.out + ran.err, flags=re.MULTILINE), f"expected {step.says!r}; {told}"
        assert step.leaves is None or before != _state(world, step.leaves) != {}, f"no {step.leaves}; {told}"


def _ran(words: list[str], world: World, touchstone: Touchstone) -> Ran:
    match words[:2]:
        case ["run", "--overlay"]:
            return _worked(words, world, new_uploads=0)
        case ["run", _]:
            return _worked(words, world, new_uploads=UPLOADS)
        case ["feedback", "collect"]:
            _opinions(world)
    return touchstone(*words)


def _worked(words: list[str], world: World, *, new_uploads: int) -> Ran:
    """
    A worker that has answered so many uploads, until SIGTERM.
    """
    servers, topics = world.kafka.bootstrap_servers, world.kafka.topics
    events = [upload_event(f"post/8412/{number}", inline(world.upload(number))) for number in range(new_uploads)]
    answers = [topics.verdicts, topics.dead_letters]
    with (
        closing(WorkerProcess(words, world.folder)) as worker,
        OutcomeReader(servers, answers, isolation_level="read_committed") as reader,
    ):
        published = publish(servers, topics.uploads, events)
        worker.until_started()
        assert reader.until_answered(published), worker.text()
        assert {"decided", "abstained"} >= {verdict["outcome"]["status"] for verdict in reader.verdicts()}
        code = worker.stop()
        return Ran(code, "\n".join(worker.lines()), "")


def _opinions(world: World) -> None:
    """
    A moderator says what two of the uploads are.
    """
    lines = (world.folder / "replayed.jsonl").read_text().splitlines()
    verdicts = {found["content_id"]: UUID(found["supersedes"]) for found in map(json.loads, lines)}
    said = [(verdicts["post/8412/0"], "real"), (verdicts["post/8412/5"], "ai_generated")]
    publish(world.kafka.bootstrap_servers, world.kafka.topics.feedback, [_opinion(*one) for one in said])


def _opinion(verdict_id: UUID, label: str) -> Event:
    attributes = {"specversion": "1.0", "id": str(uuid4()), "source": "urn:platform", "type": feedback.TYPE}
    body = {"verdict_id": str(verdict_id), "label": label, "reviewer_role": "moderator"}
    return Event(None, json.dumps(attributes | {"data": body}).encode())


def _state(world: World, path: str | None) -> dict[Path, tuple[int, int]]:
    if path is None:
        return {}
    place = world.folder / path
    files = place.rglob("*") if place.is_dir() else [place]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return {file: (stat.st_mtime_ns, stat.st_ino) for file, stat in found}
