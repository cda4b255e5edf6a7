"""
``touchstone diff``: what it prints for people, for machines and as a page, and its exit codes.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.command_line import Touchstone, command_line
from tests.diff_worlds import Said, line, write_lines
from tests.kafka_worlds import release
from worker.adapters.run_file import RunFile
from worker.domain import Partition
from worker.errors import EXIT_CANNOT_START, EXIT_FOUND, EXIT_OK, EXIT_USAGE
from worker.flow.replay_run import RunPlan, RunTotals, Stretch

PLACE = Partition("uploads", 0)

LIVE = [Said(str(number), "real", score=0.2, surface="ads" if number % 2 else "post") for number in range(40)]
CHANGED = [
    Said("0", "ai_generated", score=0.95, generator="flux", policy="8"),
    Said("1", "uncertain", score=0.5, surface="ads", near="sdxl", policy="8"),
    *LIVE[2:-1],
    Said("<new>&", "failed"),
]


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone ...`` where ``a.jsonl`` and ``b.jsonl`` lie.
    """
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl", *LIVE)
    write_lines(tmp_path / "b.jsonl", *CHANGED)
    return command_line(monkeypatch, capsys)


def test_one_json_object(touchstone: Touchstone) -> None:
    """
    With the promised keys, and nothing beside it.
    """
    ran = touchstone("diff", "a.jsonl", "b.jsonl", "--json", "--max-flips", "5%", "--movers", "1")
    found = ran.json

    assert (EXIT_FOUND if ran.err else EXIT_OK) == ran.code
    assert (39, 2, 1, 1) == (found["compared"], found["flips"], found["only_in_a"], found["only_in_b"])
    assert {"real -> ai_generated": 1, "real -> uncertain": 1} == found["transitions"]
    assert 1 == found["by_surface"]["ads"]["flips"]
    assert {"real -> ai_generated": 1} == found["by_generator"]["flux"]["transitions"]
    assert 0.75 == found["score_shift"]["quantiles"]["max"]
    assert ["0"] == [one["event_id"] for one in found["worst_movers"]]
    assert 2 == len(found["worst_movers"][0]["a"]["neighbours"])
    assert ["0", "1"] == [one["event_id"] for one in found["listed"]["flipped"]]
    assert ["39"] == [one["event_id"] for one in found["listed"]["only_in_a"]]
    assert {"policy.version", "policy.sha256"} == {row["name"] for row in found["versions"] if row["differs"]}
    assert [{"name": "max-flips", "allowed": "5%", "found": "2 (5.128% of 39)", "passed": False}] == found["gates"]
    assert found["passed"] is False


def test_tables_for_people(touchstone: Touchstone) -> None:
    """
    Flips by label, surface and generator, the movers with their neighbours, versions, and gates.
    """
    ran = touchstone("diff", "a.jsonl", "b.jsonl", "--max-flips", "2")
    said = " ".join(ran.out.split())

    assert EXIT_OK == ran.code
    for wanted in (
        "39 events compared: 2 flips, 2 differ in any compared field",
        "1 only in A, 1 only in B",
        "real -> ai_generated",
        "policy.version",
        "max-flips",
        "passed",
    ):
        assert wanted in said


@pytest.mark.parametrize(
    ("gates", "code", "named"),
    [
        ([], EXIT_OK, None),
        (["--max-flips", "2"], EXIT_OK, None),
        (["--max-flips", "1"], EXIT_FOUND, "gate max-flips: found 2 (5.128% of 39), allowed 1"),
        (["--max-flips-to", "uncertain", "0"], EXIT_FOUND, "gate max-flips-to uncertain: found 1"),
        (["--max-flips-to", "failed", "0"], EXIT_OK, None),
        (["--max-score-shift", "max=0.5"], EXIT_FOUND, "gate max-score-shift max: found 0.75, allowed 0.5"),
        (["--max-missing", "1"], EXIT_FOUND, "gate max-missing: found 2"),
        (["--require-equal"], EXIT_FOUND, "gate require-equal: found 2 differ, 1 only in A, 1 only in B"),
    ],
)
def test_a_gate_decides_the_exit_code(touchstone: Touchstone, gates: list[str], code: int, named: str | None) -> None:
    """
    Exit code 1 with the gate named on stderr when it is exceeded; without gates always 0.
    """
    ran = touchstone("diff", "a.jsonl", "b.jsonl", *gates)

    assert code == ran.code
    assert (named or "") in ran.err
    assert (named is not None) == ("gate" in ran.err)


@pytest.mark.parametrize(("finished", "code"), [(True, EXIT_OK), (False, EXIT_FOUND)])
def test_no_gate_passes_on_a_replay_that_has_not_finished(
    touchstone: Touchstone, tmp_path: Path, *, finished: bool, code: int
) -> None:
    """
    What is still to come could flip; without a bound it may be looked at, and with --allow-unfinished passed.
    """
    (tmp_path / "b.jsonl").unlink()
    run = RunFile(tmp_path / "b.jsonl")
    run.begin(RunPlan("r", "uploads", "file:b.jsonl", "beginning", "end", {}, {0: Stretch(0, 50)}))
    replayed = [release("out", PLACE, said.offset, line(said).rstrip()) for said in _replayed(LIVE)]
    run.write(replayed, {PLACE: 40}, RunTotals(replayed=40))
    if finished:
        run.finish(RunTotals(replayed=40))
    run.close()
    gated = touchstone("diff", "a.jsonl", "b.jsonl", "--max-flips", "50%", "--json")
    looked = touchstone("diff", "a.jsonl", "b.jsonl")
    allowed = touchstone("diff", "a.jsonl", "b.jsonl", "--max-flips", "50%", "--allow-unfinished")

    assert code == gated.code
    assert finished is gated.json["passed"]
    assert (EXIT_OK, EXIT_OK) == (looked.code, allowed.code)
    for ran in (gated, looked, allowed):
        assert ("has not finished, 10 positions are left" in ran.err) is not finished
    assert ("gate finished" in gated.err) is not finished
    assert "gate" not in allowed.err


def test_no_gate_passes_on_a_replay_of_which_nobody_can_tell(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    A file that was copied without its state may be half of a run; without a bound that is nobody's concern.
    """
    write_lines(tmp_path / "b.jsonl", *_replayed(LIVE))
    gated = touchstone("diff", "a.jsonl", "b.jsonl", "--require-equal")
    looked = touchstone("diff", "a.jsonl", "b.jsonl")
    allowed = touchstone("diff", "a.jsonl", "b.jsonl", "--require-equal", "--allow-unfinished")

    assert (EXIT_FOUND, EXIT_OK, EXIT_OK) == (gated.code, looked.code, allowed.code)
    assert "nobody can tell whether run r of B (b.jsonl) has finished" in gated.err
    assert "b.jsonl.run.json does not lie beside it" in gated.err
    assert "nobody" not in looked.err


def test_no_gate_passes_where_a_replay_judged_an_upload_twice(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    The newest counts, and both say the same; yet a replay that writes twice is broken.
    """
    twice = _replayed(LIVE)
    write_lines(tmp_path / "b.jsonl", *twice, replace(twice[7], age_s=5))
    ran = touchstone("diff", "a.jsonl", "b.jsonl", "--require-equal", "--allow-unfinished", "--json")

    assert EXIT_FOUND == ran.code
    assert ["once"] == [gate["name"] for gate in ran.json["gates"] if not gate["passed"]]
    assert (0, 1, 1) == (ran.json["a"]["repeats"], ran.json["b"]["repeats"], ran.json["b"]["duplicates"])
    assert "found none more in A, 1 more in B (the first on event 7, by run r)" in ran.err
    assert "allowed one verdict of a replay on an upload" in ran.err


def _replayed(all_said: list[Said]) -> list[Said]:
    return [replace(said, mode="replay", run_id="r", offset=number) for number, said in enumerate(all_said)]


def test_a_file_does_not_differ_from_itself(touchstone: Touchstone) -> None:
    """
    Every gate at nothing passes.
    """
    bounds = ("--max-flips", "0", "--max-missing", "0", "--max-score-shift", "max=0", "--require-equal")

    assert EXIT_OK == touchstone("diff", "b.jsonl", "b.jsonl", *bounds).code


def test_nothing_in_common_is_said(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Without gates that is no failure; with one it is.
    """
    write_lines(tmp_path / "other.jsonl", Said("elsewhere"))
    ran = touchstone("diff", "a.jsonl", "other.jsonl")

    assert EXIT_OK == ran.code
    assert "no event in common" in ran.out
    assert EXIT_FOUND == touchstone("diff", "a.jsonl", "other.jsonl", "--max-flips", "100%").code


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["absent.jsonl", "b.jsonl"], EXIT_CANNOT_START, "absent.jsonl cannot be read"),
        (["a.jsonl", "b.jsonl#mode=scan"], EXIT_CANNOT_START, "B (b.jsonl#mode=scan) is empty"),
        (["a.jsonl", "b.jsonl#mode=dead"], EXIT_USAGE, "expected one of live"),
        (["a.jsonl", "b.jsonl", "--max-flips", "few"], EXIT_USAGE, "'few' is no bound"),
        (["a.jsonl", "b.jsonl", "--from", "yesterday"], EXIT_USAGE, "'yesterday' is no time"),
        (["a.jsonl", "b.jsonl", "--out", "absent/report.html"], EXIT_USAGE, "lies in no folder"),
        (["a.jsonl", "b.jsonl", "--out", "n" * 300], EXIT_CANNOT_START, "cannot be written (File name too long)"),
        (["a.jsonl"], EXIT_USAGE, "Missing argument 'B'"),
    ],
)
def test_what_cannot_be_compared_is_told(touchstone: Touchstone, arguments: list[str], code: int, told: str) -> None:
    """
    Each with its exit code and nothing on stdout.
    """
    ran = touchstone("diff", *arguments)

    assert (code, "") == (ran.code, ran.out)
    assert told in ran.err


class Page(HTMLParser):
    """
    What a page opens and does not close, and what it points at.
    """

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pointers: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Remember it, and where it points.
        """
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Likewise, of what closes itself.
        """
        self.tags.add(tag)
        self.pointers += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        """
        It must be the last that was opened.
        """
        if tag not in self.VOID:
            assert tag == self.open.pop()


def test_the_page_needs_nothing_beside_it(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    No address of a network, no script, every element closed, and no name out of a verdict becomes markup.
    """
    ran = touchstone("diff", "a.jsonl", "b.jsonl", "--max-flips", "1", "--out", "report.html")
    html = (tmp_path / "report.html").read_text()
    page = Page(html)

    assert EXIT_FOUND == ran.code
    assert [] == page.open
    assert re.search(r"https?:|//[a-z]", html) is None
    assert all(pointer.startswith("#") for pointer in page.pointers)
    assert page.tags.isdisjoint({"script", "link", "iframe", "new"})
    assert 5 == html.count("<svg")
    for wanted in ("2 flips of 39 events", "&lt;new&gt;&amp;", "near:flux", "max-flips", "exceeded", "policy.version"):
        assert wanted in html
    assert ["a.jsonl", "b.jsonl", "report.html"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_page_of_failures_only(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Without a score on both sides there is nothing to plot of scores, and the page says so.
    """
    write_lines(tmp_path / "gone.jsonl", *(Said(str(number), "failed") for number in range(3)))
    touchstone("diff", "gone.jsonl", "gone.jsonl", "--out", "report.html")
    html = (tmp_path / "report.html").read_text()

    assert "No event has a score on both sides." in html
    assert 1 == html.count("<svg")


def test_control_codes_do_not_reach_the_terminal(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    An event's id is a producer's text.
    """
    write_lines(tmp_path / "a.jsonl", Said("\x1b[2Jevil[red]", score=0.1))
    write_lines(tmp_path / "b.jsonl", Said("\x1b[2Jevil[red]", score=0.9))
    ran = touchstone("diff", "a.jsonl", "b.jsonl")

    assert "\x1b" not in ran.out
    assert "evil[red]" in "".join(ran.out.split())


def test_help_and_files_wait_for_no_heavy_library(tmp_path: Path) -> None:
    """
    Comparing two files imports neither torch nor Kafka's client nor matplotlib.
    """
    write_lines(tmp_path / "a.jsonl", Said("1"))
    path = str(tmp_path / "a.jsonl")
    code = (
        "import sys, json; from worker.cli import touchstone;"
        f"touchstone.main(['diff', {path!r}, {path!r}], standalone_mode=False);"
        "json.dump(sorted({name.split('.')[0] for name in sys.modules}), sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert set(json.loads(ran.stderr.splitlines()[-1])).isdisjoint({"torch", "kafka", "matplotlib", "sklearn", "faiss"})
