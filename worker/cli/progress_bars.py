"""
The progress bars that long commands share.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[str, int, int], None]
"""Called with what is done, how many, of how many."""


class RateColumn(ProgressColumn):
    """
    How many per second, of late.
    """

    def render(self, task: Task) -> Text:
        """
        The rate in words; nothing before it is known.
        """
        return Text("" if task.speed is None else f"{task.speed:,.3g}/s")


@contextmanager
def progress_bars(*, shown: bool) -> Iterator[Report]:
    """
    A bar with its rate per kind of work, on stderr and only on a terminal.
    """
    console = Console(stderr=True)
    said = TextColumn("{task.description}")
    columns = (said, BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, completed=done)
            bars.update(tasks[what], completed=done)

        yield report
