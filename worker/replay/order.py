"""
What an operator asks of a replay, and what it comes to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from worker.errors import ConfigInvalid
from worker.flow.loop import Loop
from worker.flow.replay_run import RunTotals
from worker.replay.destination import Destination
from worker.replay.failures import Failures
from worker.settings.tree import BankSettings, EncoderSettings, PolicySettings, Settings

IN_FLIGHT_UNFETCHED: Final = 4096
"""Uploads under way at once where none is fetched: without images they are small, and batches are larger."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much, of how much."""


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """
    What to replay, and to where. ``since`` and ``until`` are as typed; None is the whole topic, or as the run began.

    ``per_s`` is the most uploads in a second, None for as many as go.
    """

    topic: str
    destination: Destination
    since: str | None = None
    until: str | None = None
    run_id: str | None = None
    per_s: float | None = None
    fetch: bool = True
    write_cache: bool = False
    promote: bool = False


@dataclass(frozen=True, slots=True)
class ReplayWatch:
    """
    Who looks on: ``on_loop`` is given the loop before its first step, to drain it by signal.

    ``failures`` has what could not be judged, up to the last write that ``progress`` was told of.
    """

    on_loop: Callable[[Loop], None] = lambda _loop: None
    progress: Progress = lambda _what, _done, _of: None
    on_run: Callable[[str, bool], None] = lambda _run_id, _resumed: None
    failures: Failures = field(default_factory=Failures)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """
    What a replay came to. ``totals`` are those of the whole run; ``per_s`` is of this process, from first to last.

    ``failures_by_code`` are of this process, too: failed uploads and dead letters. ``positions_left`` are offsets not
    read, of a run that was stopped. ``empty_range``: not one offset lies between the bounds.
    """

    run_id: str
    topic: str
    out: str
    since: str
    until: str
    resumed: bool
    finished: bool
    totals: RunTotals
    per_s: float
    positions_left: int
    failures_by_code: Mapping[str, int]
    empty_range: bool


def in_flight_limit(configured: int, *, fetch: bool) -> int:
    """
    How many uploads may be under way: as ``flow.max_in_flight`` says, or more where no image is ever held.
    """
    return configured if fetch else max(configured, IN_FLIGHT_UNFETCHED)


def revised(settings: Settings, *, bank: Path | None, policy: Path | None, model: str | None) -> Settings:
    """
    The settings with another bank, policy or encoder. Raises ``ConfigInvalid``.
    """
    changes: dict[str, object] = {}
    if bank is not None:
        # The list is of the configured bank, and may name another.
        quarantine = settings.bank.quarantine_path if bank == settings.bank.path else None
        changes["bank"] = BankSettings.model_validate(
            settings.bank.model_dump()
            | {"path": bank, "releases": None, "s3_profile": None, "quarantine_path": quarantine}
        )
    if policy is not None:
        changes["policy"] = PolicySettings(path=policy)
    if model is not None:
        try:
            changes["encoder"] = EncoderSettings.model_validate(settings.encoder.model_dump() | {"model": model})
        except ValidationError as invalid:
            raise ConfigInvalid(f"--model {model}: {invalid.errors()[0]['msg']}; set encoder.* with --set") from None
    return settings.model_copy(update=changes)
