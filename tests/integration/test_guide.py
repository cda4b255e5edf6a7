"""
Every command of the operator's guide, run as it is typed, in the guide's own order where one feeds the next.

That no command is forgotten is checked in ``tests/unit/test_readme_commands.py``.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.command_line import Touchstone, command_line
from tests.conftest import ROOT, missing
from tests.guide_story import CHAPTERS, DRY, ELSEWHERE
from tests.guide_typing import live_through
from tests.guide_worlds import Servers, World, prepared
from worker.cli.evaluate import evaluate
from worker.dev.servers import KafkaAt, RedisAt
from worker.fitting.contrastive_traces import TraceTraining, fit_natural_traces

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FEWER = {"draws": 20, "robustness_limit": 4}
"""Instead of these defaults of `touchstone evaluate`, which take most of the time and are asked for by no line."""

QUICK = TraceTraining(mapping_steps=4, strides=2, stride=2)
"""The guide fits a score of times; what it says of a command does not hang on how well this head was learnt."""

Lived = Callable[[str, Touchstone, Servers | None], World]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """
    Lives through a chapter, and before it through the one that it goes on from; each once.
    """
    worlds: dict[str, World] = {}
    with ExitStack() as stack:

        def live(name: str, touchstone: Touchstone, servers: Servers | None = None) -> World:
            if name not in worlds:
                chapter = CHAPTERS[name]
                before = chapter.goes_on_from
                bank = None if before is None else live(before, touchstone).folder / "bank"
                folder = tmp_path_factory.mktemp("guide")
                world = stack.enter_context(prepared(folder, f"touchstone-test-{uuid4().hex[:12]}", servers, bank=bank))
                with pytest.MonkeyPatch.context() as patched:
                    patched.chdir(world.folder)
                    live_through(chapter, world, touchstone)
                worlds[name] = world
            return worlds[name]

        yield live


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone ...`` without settings of the caller's own, on a wide terminal.
    """
    for name in os.environ:
        if name.startswith("TOUCHSTONE__") or name in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for parameter in evaluate.params:
        if parameter.name in FEWER:
            monkeypatch.setattr(parameter, "default", FEWER[parameter.name])
    quick = partial(fit_natural_traces, training=QUICK)
    monkeypatch.setattr("worker.fitting.contrastive_traces.fit_natural_traces", quick)
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize("name", [name for name, chapter in CHAPTERS.items() if not chapter.on_servers])
def test_what_the_guide_says_works_as_typed(name: str, lived: Lived, touchstone: Touchstone) -> None:
    """
    Each command ends with the exit code that the guide implies, says what it did, and leaves what it should.
    """
    world = lived(name, touchstone, None)

    assert world.folder.is_dir()


@pytest.mark.servers
@pytest.mark.parametrize("name", [name for name, chapter in CHAPTERS.items() if chapter.on_servers])
def test_what_the_guide_says_works_on_servers(
    name: str, lived: Lived, kafka: KafkaAt, redis_server: RedisAt, touchstone: Touchstone
) -> None:
    """
    The same with a real Kafka, a real Redis and a worker: topics, uploads, replay, comparison, feedback, forgetting.
    """
    world = lived(name, touchstone, Servers(kafka, redis_server))

    assert world.folder.is_dir()


@pytest.mark.parametrize("line", ELSEWHERE)
def test_a_command_that_is_run_elsewhere_is_run_there(line: str) -> None:
    """
    The test that is named has these very words.
    """
    other = ELSEWHERE[line]

    assert other.words in (ROOT / other.file).read_text(), f"{other.file} no longer runs `{line}`"


@pytest.mark.parametrize("line", DRY)
def test_a_target_of_make_would_run_what_it_should(line: str) -> None:
    """
    What ``make -n`` prints, whether the set-up is already there or not.
    """
    if shutil.which("make") is None:
        missing("make")
    command = ["make", "--dry-run", "--always-make", *line.split()[1:]]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == ran.returncode, ran.stderr
    assert re.search(DRY[line], ran.stdout.rstrip(), flags=re.MULTILINE), ran.stdout
