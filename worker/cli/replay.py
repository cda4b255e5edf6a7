"""
``touchstone replay``: past uploads through the live worker's own stages, to a topic or a file of their own.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from worker.adapters.system_clock import SystemClock
from worker.cli.draining import drained_by_signals
from worker.cli.options import settings_options
from worker.cli.progress_lines import Estimates, ProgressLines
from worker.errors import EXIT_FOUND
from worker.replay.failures import Failures, summed_up
from worker.settings.load import LoadedSettings
from worker.telemetry.log import configure_logging

if TYPE_CHECKING:
    from worker.replay.order import Progress as Report
    from worker.replay.order import ReplayOrder, ReplayReport

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_WHOLE: Final = 100
"""From so many a second on, a rate is told without decimals."""


@click.command()
@click.option("--topic", required=True, help="Topic of the uploads.")
@click.option("--from", "since", metavar="TIME|OFFSET|beginning", help="First upload; default: beginning.")
@click.option("--to", "until", metavar="TIME|OFFSET|end", help="First upload that is left out; default: end.")
@click.option("--out", required=True, metavar="TOPIC|FILE", help="Where verdicts go; FILE has a slash or is *.jsonl.")
@click.option("--bank", type=click.Path(path_type=Path, exists=True), help="Instead of bank.path.")
@click.option("--policy", type=click.Path(path_type=Path, exists=True), help="Instead of policy.path.")
@click.option("--model", help="Instead of encoder.model.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N uploads a second.")
@click.option("--run-id", help="Go on with this run, or begin it under this name; default: a new name.")
@click.option("--no-fetch", is_flag=True, help="Fail uploads whose embedding is unknown, instead of fetching them.")
@click.option("--write-cache", is_flag=True, help="Keep new embeddings in the live cache.")
@click.option("--promote", is_flag=True, help="Allow the live verdict topic as --out.")
@click.option("--json", "as_json", is_flag=True, help="One object at the end.")
@click.option("--verbose", is_flag=True, help="Log as the worker does, not only warnings.")
@settings_options
def replay(
    *,
    bank: Path | None,
    policy: Path | None,
    model: str | None,
    as_json: bool,
    verbose: bool,
    loaded: LoadedSettings,
    **asked: Any,  # noqa: ANN401 - what an order says, in its own words
) -> int:
    """
    Judge past uploads again, and write the verdicts to a topic or a file of their own.

    Each says mode replay, the run's id and which verdict it supersedes. The range is fixed at the start: what is
    uploaded later does not belong. Embeddings come from Redis (only read) and from what embeddings.keep has kept; only
    uploads without one are fetched. Each verdict is written once, also when the command is killed: the same command
    with --run-id goes on where it was. SIGTERM and SIGINT stop it in order.

    A file's run is kept beside it (FILE.run.json). A topic's is kept by the brokers, in the consumer groups
    GROUP.replay.RUN_ID and GROUP.replay.RUN_ID.plan, until offsets.retention.minutes (a week by default) after it was
    stopped, however long it runs. A topic that does not exist is made.

    flow.max_in_flight holds as for the worker. With --no-fetch, which holds no image, at least 4,096 are under way.

    Progress with rate and time left is drawn on a terminal; without one, or with --json, it is a line on stderr every
    10 s: what is done, of how many, how many a second, and the seconds left. Uploads that fail are added up by code
    there and at the end, not logged one by one unless --verbose is given; each verdict says what was wrong with it.

    A range without any upload is warned of, and is empty_range in --json.

    Exit code 0 when the whole range was replayed, whatever the verdicts are, also an empty one; 1 when it was stopped
    before the end; 2 when the command contradicts itself or the run is finished; 3 when something is missing or the
    run's versions are not these; 4 when it broke. After 1 and 4 the run can be resumed.
    """
    from worker.replay.order import ReplayWatch, revised  # noqa: PLC0415 - torch is slow to import, and not for --help
    from worker.replay.run import replay_uploads  # noqa: PLC0415 - likewise

    settings = revised(loaded.settings, bank=bank, policy=policy, model=model)
    if not verbose:
        configure_logging(settings.log.model_copy(update={"level": "warning"}), service=settings.service.name)
    order = _order(**asked)

    def on_run(run_id: str, resumed: bool) -> None:
        click.echo(f"run {run_id} {'goes on' if resumed else 'begins'}; to resume it: --run-id {run_id}", err=True)

    failures = Failures()
    with ExitStack() as stack:
        if not verbose:
            stack.enter_context(summed_up())
        on_loop = stack.enter_context(drained_by_signals(settings.flow.drain_timeout_s))
        progress = stack.enter_context(_told(failures, bars=not as_json))
        report = replay_uploads(settings, order, ReplayWatch(on_loop, progress, on_run, failures))
    if as_json:
        click.echo(json.dumps(as_object(report)))
    else:
        _show(report)
    return 0 if report.finished else EXIT_FOUND


def _order(*, out: str, run_id: str | None, rate: float | None, no_fetch: bool, **rest: Any) -> "ReplayOrder":  # noqa: ANN401 - likewise
    from worker.replay.destination import parse_destination  # noqa: PLC0415 - likewise
    from worker.replay.order import ReplayOrder  # noqa: PLC0415 - likewise

    if run_id is not None and re.fullmatch(NAME, run_id) is None:
        raise click.BadParameter(f"{run_id!r} is no name; use letters, digits, '.', '_', '-'", param_hint="--run-id")
    return ReplayOrder(destination=parse_destination(out), run_id=run_id, per_s=rate, fetch=not no_fetch, **rest)


def as_object(report: "ReplayReport") -> dict[str, object]:
    """
    The report as ``--json`` prints it. ``fetched`` and ``failed`` overlap where a fetched image could not be judged.

    ``failures_by_code`` adds up what this process wrote as failed or counted as a dead letter.
    """
    totals = report.totals
    return {
        "run_id": report.run_id,
        "topic": report.topic,
        "out": report.out,
        "from": report.since,
        "to": report.until,
        "resumed": report.resumed,
        "finished": report.finished,
        "replayed": totals.replayed,
        "from_embeddings": totals.from_embeddings,
        "fetched": totals.fetched,
        "failed": totals.failed,
        "dead_letters": totals.dead_letters,
        "per_s": round(report.per_s, 3),
        "positions_left": report.positions_left,
        "failures_by_code": dict(report.failures_by_code),
        "empty_range": report.empty_range,
    }


def _show(report: "ReplayReport") -> None:
    told = as_object(report)
    state = "whole range replayed" if report.finished else f"stopped; go on with --run-id {report.run_id}"
    if report.empty_range:
        state = f"no upload from {report.since} to {report.until}"
    table = Table(title=Text(f"run {report.run_id}: {state}"))
    for column in ("of the run", ""):
        table.add_column(column)
    for name in ("out", "replayed", "from_embeddings", "fetched", "failed", "dead_letters", "per_s", "positions_left"):
        table.add_row(name.replace("_", " "), Text(str(told[name])))
    for code, count in report.failures_by_code.items():
        table.add_row(Text(f"{code}, this time"), Text(str(count)))
    Console().print(table)


@contextmanager
def _told(failures: Failures, *, bars: bool) -> Iterator["Report"]:
    """
    On a terminal, and unless the output is for a machine, bars; else lines on stderr. Both tell the failures by code.
    """
    console = Console(stderr=True)
    if bars and console.is_terminal:
        with progress_with_rate(console, failures) as report:
            yield report
    else:
        yield ProgressLines(lambda line: click.echo(f"{line} {failures}".rstrip(), err=True), SystemClock())


@contextmanager
def progress_with_rate(console: Console, failures: Failures) -> Iterator["Report"]:
    """
    A bar with rate and time left per kind of work, and the failures so far behind the one that is under way.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[failed]}"),
    )
    estimates = Estimates(SystemClock())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, completed=done, rate="", left="", failed="")
            estimate = estimates.note(what, done)
            per_s, eta_s = estimate.per_s, estimate.eta_s(total)
            rate = "" if per_s is None else f"{per_s:,.3g}/s" if per_s < _WHOLE else f"{per_s:,.0f}/s"
            left = "" if eta_s is None else f"{timedelta(seconds=round(eta_s))} left"
            bars.update(tasks[what], completed=done, total=total, rate=rate, left=left, failed=str(failures))

        yield report
