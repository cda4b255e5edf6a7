"""
``touchstone dlq``: which uploads ended as dead letters, what one of them is, and sending them again.

Which letters are meant is decided in ``worker.operation.dead_letters``, what is sent in ``worker.operation.redriving``;
how they look is in ``dlq_tables.py``.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from schemas.errors import ErrorClass, ErrorCode
from worker.adapters.system_clock import SystemClock
from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.operation.dead_letters import Filters
    from worker.operation.redriving import Redrive, RedriveOrder

Returned = TypeVar("Returned")
MOST_LISTED: Final = 100


def filter_options(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """
    Which letters are meant.
    """
    classes = [one.value for one in ErrorClass]
    for option in (
        click.option("--until", metavar="TIME", help="Only those that failed before."),
        click.option("--since", metavar="TIME", help="Only those that failed then or later, as 2026-11-22T10:00Z."),
        click.option("--class", "error_class", type=click.Choice(classes), help="Only those of this class."),
        click.option(
            "--code", "codes", multiple=True, metavar="CODE", help="Only those of this code. May be repeated."
        ),
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """
    List, show and redrive dead letters.

    A dead letter keeps the whole record of an upload that could not be read, or that failed for a reason which time did
    not mend, which an operator may mend, or which is our own fault. Codes and classes are those of failed verdicts.
    """


@dlq.command(name="list")
@filter_options
@click.option(
    "--limit", type=click.IntRange(min=1), default=MOST_LISTED, show_default=True, help="Show the newest so many."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object per line, the last one with the counts.")
@settings_options
def list_letters(loaded: LoadedSettings, *, limit: int, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    The dead letters that there are, oldest first, and how many there are of each code.

    Exit code 0, also when there are none; 1 when the topic holds records that are no dead letters.
    """
    from worker.cli.dlq_tables import show_list  # noqa: PLC0415 - see below
    from worker.operation.dead_letters import LettersFound, row_as_json  # noqa: PLC0415 - kafka takes its time to import
    from worker.operation.redriving import letters_of  # noqa: PLC0415 - likewise

    filters = _filters(**options)
    found = LettersFound(keep=limit)
    with progress_bars(shown=not as_json) as report:
        found.gather(letters_of(loaded.settings, filters, report), filters)
    if as_json:
        for row in found.rows:
            print(json.dumps(row_as_json(row)))
        unreadable = {"unreadable": found.unreadable_named, "unreadable_records": found.unreadable}
        print(json.dumps({"letters": found.letters, "by_code": found.by_code()} | unreadable))
    else:
        show_list(found)
    return EXIT_FOUND if found.unreadable else EXIT_OK


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option(
    "--raw", type=click.Path(path_type=Path), metavar="FILE", help="Write the original value there, as it is."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options
def show(loaded: LoadedSettings, letter_id: str, *, raw: Path | None, as_json: bool) -> int:
    """
    All that a dead letter says: why it failed, where it lay, the original headers and value.

    ID is as `touchstone dlq list` shows it, or more of it. Of addresses the query and any password are left out, and
    long base64 is shown as its length: --raw has the value byte for byte, secrets included. Exit code 1 when --raw asks
    for a value of which the letter has only the beginning, and the record is no longer where it lay.
    """
    from worker.cli.dlq_tables import show_letter  # noqa: PLC0415 - see above
    from worker.operation.dead_letters import Filters, LettersFound, letter_as_json  # noqa: PLC0415 - likewise
    from worker.operation.redriving import letters_of, whole_original  # noqa: PLC0415 - likewise

    if raw is not None and raw.exists():
        raise ConfigInvalid(f"{raw} exists already and would be written over; name another file")
    filters = Filters(ids=(letter_id.lower(),))
    found = LettersFound()
    newest = None
    with progress_bars(shown=not as_json) as report:
        for row, letter in found.read(letters_of(loaded.settings, filters, report), filters):
            newest = row, letter
    filters.require_one_each(found.rows)
    assert newest is not None  # noqa: S101 - one is required in the line before
    document = letter_as_json(*newest) | {"letters": found.letters}
    print(json.dumps(document, indent=2)) if as_json else show_letter(document)
    if raw is None:
        return EXIT_OK
    original, why = whole_original(loaded.settings, newest[1])
    if original is None:
        click.echo(f"touchstone: {raw} was not written: {why}", err=True)
        return EXIT_FOUND
    raw.write_bytes(original.value or b"")
    return EXIT_OK


@dlq.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@filter_options
@click.option(
    "--to", metavar="TOPIC", help="Default: the first retry topic; where there is none, where each record lay."
)
@click.option("--rate", "per_s", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N a second.")
@click.option("--include-policy", is_flag=True, help="Also those of class policy, without naming their --code.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and no progress.")
@settings_options
def redrive(
    loaded: LoadedSettings,
    letter_ids: tuple[str, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click's
) -> int:
    """
    Send the original records again: those of these IDs, of these filters, or all.

    Key, value and headers are the original's, so that it is the same event, and its new verdict has the id of the old
    one unless bank, model or policy have changed. In a retry topic four headers of ours stand behind, which workers
    take off: an event without an envelope, which is known by where it lay, keeps its identity there, and is refused
    elsewhere. The retries begin anew. Letters of class policy are left out unless --code names theirs: what a limit or
    an allow-list refused is refused again until that is changed.

    In a retry topic they are no storm if they fail again; sent anywhere else with --to, they count like any upload.

    A record of which the letter has only the beginning is read from where it lay. Of several letters of one record the
    newest is sent. Nothing keeps you from redriving twice: verdicts of the same id collapse.

    Exit code 0 when all were sent, 1 when some had to be refused, 4 when Kafka failed midway.
    """
    from worker.operation.redriving import RedriveOrder, plan_redrive  # noqa: PLC0415 - kafka takes its time to import
    from worker.operation.redriving import redrive as send_again  # noqa: PLC0415 - likewise

    to, include_policy, per_s = options.pop("to"), options.pop("include_policy"), options.pop("per_s")
    order = RedriveOrder(_filters(**options, ids=letter_ids), to, include_policy, per_s)
    with progress_bars(shown=not as_json) as report:
        plan = plan_redrive(loaded.settings, order, report)
    if not (dry_run or yes) and plan.chosen:
        _ask(plan)
    if not dry_run:
        with progress_bars(shown=not as_json) as report:
            send_again(loaded.settings, order, plan, SystemClock(), report)
    _told(plan, order, dry_run=dry_run, as_json=as_json)
    return EXIT_FOUND if plan.refused else EXIT_OK


def _ask(plan: "Redrive") -> None:
    question = f"Send {len(plan.chosen)} records to {', '.join(plan.targets)}?"
    if not sys.stdin.isatty():
        raise ConfigInvalid(f"{question} Nobody can be asked here: give --yes, or --dry-run to see what would be sent")
    click.confirm(question, abort=True, err=True)


def _told(plan: "Redrive", order: "RedriveOrder", *, dry_run: bool, as_json: bool) -> None:
    from worker.cli.dlq_tables import show_redrive  # noqa: PLC0415 - see above

    if not as_json:
        show_redrive(plan, dry_run=dry_run)
        return
    document = {
        "dry_run": dry_run,
        "to": order.to,
        "topics": list(plan.targets),
        "chosen": len(plan.chosen),
        "sent": plan.sent,
        "refused": [{"id": str(row.id), "at": row.place, "why": why} for row, why in plan.refused],
        "left_out_policy": plan.policy,
        "older_letters": plan.repeated,
        "unreadable": plan.unreadable,
    }
    print(json.dumps(document, indent=2))


def _filters(
    *,
    codes: tuple[str, ...],
    error_class: str | None,
    since: str | None,
    until: str | None,
    ids: tuple[str, ...] = (),
) -> "Filters":
    from worker.operation.dead_letters import Filters  # noqa: PLC0415 - see above

    known = {one.value for one in ErrorCode}
    if unknown := [code for code in codes if code.upper() not in known]:
        raise ConfigInvalid(f"--code {unknown[0]!r} is no error code; known are {', '.join(sorted(known))}")
    return Filters(
        codes=frozenset(ErrorCode(code.upper()) for code in codes),
        error_class=None if error_class is None else ErrorClass(error_class),
        since_ms=_time_ms(since, "--since"),
        until_ms=_time_ms(until, "--until"),
        ids=tuple(one.lower() for one in ids),
    )


def _time_ms(text: str | None, option: str) -> int | None:
    from worker.replay.bounds import parse_bound  # noqa: PLC0415 - see above

    if text is None:
        return None
    bound = parse_bound(text, option)
    if bound.kind != "time":
        raise ConfigInvalid(f"{option} is {text!r}; give a time such as 2026-11-20T08:00:00Z")
    return bound.value
