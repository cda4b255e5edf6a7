"""
Which release a worker starts with: the announced one, or where it cannot be used the last of the history that can.

How a release is opened is told by the caller; how a running worker follows is ``bank_watch.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import structlog

from schemas.bank_control import BankControlV1
from worker.bank.releases import Releases
from worker.errors import BankInvalid, CannotStart, ConfigInvalid, ReadFault
from worker.operation.active_release import ActiveRelease, announced_release, open_releases
from worker.operation.passing_faults import is_passing
from worker.settings.tree import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

EARLIER: Final = 5
"""So many earlier releases are tried; each is read and hashed in full, and a worker that starts is waited for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    What was announced and cannot be used; ``announced`` is None where not even the pointer could be read or believed.

    ``passing``: it could not be read at this moment, so that it is worth trying again.
    """

    announced: BankControlV1 | None
    why: str
    passing: bool = False


class StartingRelease:
    """
    What is announced, looked up already, and the releases before it. One for a start, called by one thread.
    """

    def __init__(self, settings: Settings, releases: Releases) -> None:
        self._releases = releases
        self._announced: BankControlV1 | None = None
        self._fault: Exception | None = None
        try:
            self._announced = announced_release(settings, releases)
        except BankInvalid as fault:
            self._fault = fault

    def first_usable(self, open_it: Callable[[ActiveRelease, Refusal | None], T]) -> T:
        """
        Open what was announced; where that is refused, the newest of the releases before it that can be opened.

        What is disabled by now is left out of the earlier ones too. Raises ``CannotStart`` where none can be opened,
        and whatever else ``open_it`` raises.
        """
        fault = self._fault
        if self._announced is not None:
            try:
                return self._opened(self._announced, None, open_it)
            except (BankInvalid, ConfigInvalid, ReadFault, OSError) as error:
                fault = error
        name = "the pointer" if self._announced is None else f"release {self._announced.release}"
        refusal = Refusal(self._announced, f"{name}: {type(fault).__name__}: {fault}", passing=is_passing(fault))
        others = []
        for control in islice(self._earlier(), EARLIER):
            try:
                found = self._opened(control, refusal, open_it)
            except (BankInvalid, ConfigInvalid, ReadFault, OSError) as error:
                others.append(f"release {control.release}: {error}")
                continue
            log.error(
                "bank.started_with_earlier",
                why=refusal.why,
                used=control.release,
                advice="correct what is named, or `touchstone bank rollback`",
            )
            return found
        tried = "; ".join(others) or "the history names no other release"
        raise CannotStart(
            f"{refusal.why}. No earlier release of {self._releases.place.name} can be used either: {tried}. Activate "
            "one that can be with `touchstone bank activate`"
        ) from fault

    def _opened(
        self, control: BankControlV1, refusal: Refusal | None, open_it: Callable[[ActiveRelease, Refusal | None], T]
    ) -> T:
        return open_it(ActiveRelease(control, self._releases.verified(control)), refusal)

    def _earlier(self) -> Iterator[BankControlV1]:
        newest = self._announced
        seen = set() if newest is None else {(newest.release, newest.manifest_sha256)}
        for control in self._releases.states():
            newest = newest or control
            names = (control.release, control.manifest_sha256)
            if names not in seen:
                seen.add(names)
                yield leaving_out_as(control, newest)


def starting_release(settings: Settings) -> StartingRelease | None:
    """
    What a worker that starts now may start with; None where no place of releases is configured.

    Raises ``CannotStart`` where nothing was activated, or the place or topic cannot be reached.
    """
    place = settings.bank.releases
    return None if place is None else StartingRelease(settings, open_releases(place, settings))


def leaving_out_as(control: BankControlV1, newest: BankControlV1) -> BankControlV1:
    """
    The record of one release with what another record disables, and with who said so, when and why; signed by nobody.
    """
    disabled = ("disabled_entries", "disabled_generators", "disabled_sources")
    names = (*disabled, "issued_at", "issued_by", "reason")
    return control.model_copy(update={name: getattr(newest, name) for name in names} | {"signatures": ()})
