"""
What ``touchstone scan`` shows on a terminal.
"""

import io

import pytest
from rich.console import Console
from rich.text import Text

from schemas.errors import ErrorCode
from schemas.judgement import AttributionV1
from schemas.verdict import ImageVerdictV1
from tests.builders import (
    a_failure_ruling,
    a_judgement,
    an_abstention,
    an_upload,
    handled,
    versions,
)
from tests.fused_builders import a_fused_judgement
from worker.cli.scan import verdict_table
from worker.domain import Judgement, Provenance
from worker.errors import UploadFailed
from worker.stages.report import verdict_of_failure, verdict_of_judgement


def judged(judgement: Judgement, name: str = "/pictures/one.png") -> ImageVerdictV1:
    """
    The verdict on a file.
    """
    upload = an_upload(content_id=name)
    return verdict_of_judgement(
        upload, judgement, surface="post", handled=handled(), versions=versions(mode="scan")
    ).verdict


def failed(name: str) -> ImageVerdictV1:
    """
    The failed verdict on a file, while a fitted judgement is there.
    """
    gone = UploadFailed(ErrorCode.DECODE_TRUNCATED, "JPEG ends early")
    ruling = a_failure_ruling()
    fused = type(ruling)(ruling.surface, a_fused_judgement().thresholds, ruling.action)
    way = handled(facts=None, provenance=Provenance("not_reached"))
    return verdict_of_failure(
        an_upload(content_id=name), gone, ruling=fused, handled=way, versions=versions(mode="scan")
    ).verdict


def cells(*verdicts: ImageVerdictV1) -> dict[str, list[str]]:
    """
    The table's columns, as text.
    """
    table = verdict_table(verdicts)
    return {
        str(column.header): [cell.plain if isinstance(cell, Text) else str(cell) for cell in column.cells]
        for column in table.columns
    }


def test_a_fitted_judgement_shows_its_numbers() -> None:
    """
    Decision, probability, p-value, and the generator or unknown; a file that failed has none of them.
    """
    unsure = AttributionV1(generator=None, probability=0.4, posterior={"flux": 0.4})
    shown = cells(
        judged(a_fused_judgement(), "/pictures/one.png"),
        judged(a_fused_judgement(attribution=unsure), "/pictures/two.png"),
        failed("/pictures/three.png"),
    )

    assert shown["file"] == ["one.png", "two.png", "three.png"]
    assert shown["decision"] == ["ai_generated", "ai_generated", "failed"]
    assert shown["probability"] == ["0.970", "0.970", ""]
    assert shown["p-value"] == ["0.00332", "0.00332", ""]
    assert shown["generator"] == ["flux (0.81)", "unknown (0.40)", ""]
    assert shown["why"] == ["CALIBRATED", "CALIBRATED", "DECODE_TRUNCATED"]
    assert "score" not in shown


def test_a_vote_shows_its_score() -> None:
    """
    And no columns that would stay empty.
    """
    shown = cells(judged(a_judgement(), "/pictures/one.png"), judged(an_abstention(), "/pictures/two.png"))

    assert shown["decision"] == ["ai_generated", "uncertain"]
    assert shown["score"] == ["0.930", "0.580"]
    assert not {"probability", "p-value", "generator"} & shown.keys()


def printed(width: int, verdicts: list[ImageVerdictV1]) -> list[str]:
    """
    The lines of the table on a terminal so wide.
    """
    console = Console(width=width, file=io.StringIO())
    with console.capture() as shown:
        console.print(verdict_table(verdicts, width=width))
    return shown.get().splitlines()


def some_fused() -> list[ImageVerdictV1]:
    """
    One that was decided, one that failed; one of the files lies deep.
    """
    deep = "/pictures/" + "folder-of-uploads/" * 4 + "two.png"
    return [judged(a_fused_judgement(), "/pictures/one.png"), failed(deep)]


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_broken(width: int) -> None:
    """
    What must be read at a glance stands whole in one line, the long name goes over several, and nothing is too wide.
    """
    lines = printed(width, some_fused())
    text = "\n".join(lines)

    assert max(len(line) for line in lines) <= width
    for word in ("file", "decision", "probability", "ai_generated", "failed", "0.970", "one.png", "DECODE_TRUNCATED"):
        assert word in text
    assert sum("folder-of" in line for line in lines) > 1


def test_a_narrow_terminal_is_told_what_it_is_not_shown() -> None:
    """
    At 80 cells the nearest reference goes first; a wide terminal is shown everything.
    """
    narrow, wide = " ".join(printed(80, some_fused())), "\n".join(printed(160, some_fused()))

    assert "not shown at this width" in narrow
    assert narrow.count("nearest reference") == 1  # in the caption alone
    assert "not shown" not in wide
    assert "nearest reference" in wide


@pytest.mark.parametrize("width", [30, 40, 60])
def test_however_narrow_the_decision_stays(width: int) -> None:
    """
    File, decision and probability are never left out.
    """
    table = verdict_table(some_fused(), width=width)

    assert [column.header for column in table.columns][:3] == ["file", "decision", "probability"]


def test_a_table_of_nothing() -> None:
    """
    No verdicts, no rows.
    """
    assert verdict_table([], width=80).row_count == 0


def test_a_generator_cannot_command_the_terminal() -> None:
    """
    Names come from a bank that somebody else may have made.
    """
    hostile = AttributionV1(generator="\x1b[2Jflux[red]", probability=0.9, posterior={})
    table = verdict_table([judged(a_fused_judgement(attribution=hostile))])
    console = Console(width=200, record=True, file=None)
    with console.capture() as printed:
        console.print(table)

    assert "\x1b[2J" not in printed.get()
    assert "flux[red]" in printed.get()
