"""
``touchstone feedback``: gather what people said of verdicts into files that a reviewer goes through.

What is gathered how is in ``worker.operation.reviewing``, and what a file looks like in ``review_file`` beside it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from worker.cli.options import settings_options
from worker.cli.progress_bars import Report, progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.operation.reviewing import FeedbackFound, Reviewed
    from worker.settings.tree import KafkaSettings

MOST_SHOWN: Final = 10
"""Unreadable records that the table names; the JSON names them all."""

_MEANING: Final = {
    "agreed": "into {out}, for `touchstone bank add`",
    "conflict": "people disagree",
    "unsure": "nobody could tell",
    "unknown_label": "no label of the bank",
    "no_verdict": "its verdict is no longer in the topic",
    "no_bytes": "the verdict failed before there were bytes",
    "no_picture": "no picture of these bytes in --images",
}


@dataclass(frozen=True, slots=True)
class _Collected:
    found: "FeedbackFound"
    rows: "list[Reviewed]"
    out: Path
    beside: Path

    def counts(self) -> dict[str, int]:
        """
        How many images are in which state, those states that there are.
        """
        return {state: number for state in _MEANING if (number := sum(row.state == state for row in self.rows))}


@click.group()
def feedback() -> None:
    """
    What people said of verdicts.
    """


@feedback.command()
@click.option(
    "--from", "since", default="beginning", metavar="beginning|TIME", help="The oldest to read, as 2026-11-22T10:00Z."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("review.csv"), show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the pictures lie: `path` is filled in by their sha256.",
)
@click.option(
    "--label", "labels", multiple=True, help="A label of the bank. May be repeated. Default: the shipped two."
)
@click.option("--source", "source", default="feedback", show_default=True, help="What the column `source` says.")
@click.option("--licence", default="", help="What the column `licence` says.")
@click.option("--replace", is_flag=True, help="Write over the files of an earlier review.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and no progress.")
@settings_options
def collect(loaded: LoadedSettings, *, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Read the feedback that there is, and write what people agree on to --out, all else beside it.

    The first file is what `touchstone bank add` accepts once every row has a path; nothing goes into a bank by itself.
    The second, OUT.open.csv, has what people disagree on, could not tell, or what cannot be added, with the label left
    empty: whoever decides moves the row. Exit code 0 when all was agreed, 1 when a second look is needed.
    """
    from worker.bank.manifest import GENERATED  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.operation.review_file import write_review  # noqa: PLC0415 - likewise

    out: Path = options["out"]
    beside = out.with_suffix(".open.csv")
    if standing := [str(path) for path in (out, beside) if path.exists() and not options["replace"]]:
        raise ConfigInvalid(
            f"{' and '.join(standing)} would be written over, and may hold a reviewer's work; give --replace or --out"
        )
    since_ms = _since_ms(options["since"])
    labels = options["labels"] or GENERATED.labels
    with progress_bars(shown=not as_json) as report:
        collected = _collect(loaded.settings.kafka, since_ms, labels, options["images"], report)
    result = _Collected(*collected, out, beside)
    words = {"source": options["source"], "licence": options["licence"]}
    write_review(out, [row for row in result.rows if row.state == "agreed"], **words)
    write_review(beside, [row for row in result.rows if row.state != "agreed"], **words)
    print(json.dumps(_as_json(result), indent=2)) if as_json else _show(result)
    clean = all(row.state == "agreed" for row in result.rows) and not result.found.unreadable
    return EXIT_OK if clean else EXIT_FOUND


def _collect(
    kafka: "KafkaSettings", since_ms: int | None, labels: tuple[str, ...], images: Path | None, report: Report
) -> "tuple[FeedbackFound, list[Reviewed]]":
    from worker.adapters.kafka_collection import collect as records_of  # noqa: PLC0415 - kafka takes its time
    from worker.operation.review_file import pictures_in  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.operation.reviewing import FeedbackFound, judged_among, review  # noqa: PLC0415 - likewise

    def told(what: str) -> Callable[[int, int], None]:
        return lambda done, total: report(what, done, total)

    found = FeedbackFound()
    for record in records_of(kafka, kafka.topics.feedback, since_ms=since_ms, progress=told("feedback")):
        found.take(record)
    wanted = frozenset(word.verdict_id for word in found.words)
    judged = {}
    if wanted:
        # From the beginning: what somebody says today may be of a verdict as old as the topic keeps.
        verdicts = records_of(kafka, kafka.topics.verdicts, progress=told("verdicts"))
        judged = dict(judged_among(verdicts, wanted))
    hashes = frozenset(about.sha256 for about in judged.values() if about.sha256 is not None)
    paths = None if images is None else pictures_in(images, hashes, progress=told("pictures"))
    return found, review(found.words, judged, labels, paths=paths)


def _since_ms(text: str) -> int | None:
    if text == "beginning":
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigInvalid(f"--from is {text!r}; expected beginning, or a time as 2026-11-22T10:00:00Z") from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _as_json(result: _Collected) -> dict[str, Any]:
    found = result.found
    return {
        "feedback": len(found.words),
        "repeated": found.repeated,
        "images": len(result.rows),
        **{state: sum(row.state == state for row in result.rows) for state in _MEANING},
        "unreadable": [{"partition": one.partition, "offset": one.offset, "why": one.why} for one in found.unreadable],
        "out": str(result.out),
        "open": str(result.beside),
    }


def _show(result: _Collected) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("images", "state", ""):
        table.add_column(title, overflow="fold")
    for state, number in result.counts().items():
        table.add_row(str(number), state, _MEANING[state].format(out=result.out))
    found = result.found
    repeated = f" ({found.repeated} more were told twice)" if found.repeated else ""
    print(f"{len(found.words)} words of feedback{repeated} on {len(result.rows)} images.")
    if result.rows:
        Console().print(table)
    if len(result.rows) > result.counts().get("agreed", 0):
        print(f"What needs a second look is in {result.beside}.")
    for one in found.unreadable[:MOST_SHOWN]:
        print(f"unreadable: partition {one.partition}, offset {one.offset}: {one.why}")
    if len(found.unreadable) > MOST_SHOWN:
        print(f"unreadable: {len(found.unreadable) - MOST_SHOWN} more; --json names them all")
