"""
Which release of a place of releases holds, where its files are on this machine, and how a place is looked at.

What changes it is ``worker.bank.releases``; which release a worker starts with is ``starting_release.py``, and how a
running one follows is ``bank_watch.py``.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.bank_control import BankControlV1
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Releases
from worker.errors import CannotStart
from worker.settings.tree import Settings

_S3: Final = "s3://"


@dataclass(frozen=True, slots=True)
class ActiveRelease:
    """
    What holds, and the verified directory of its release.
    """

    control: BankControlV1
    folder: Path


def open_releases(place: str, settings: Settings) -> Releases:
    """
    The releases in a directory, or below s3://BUCKET/PREFIX through the profile that ``bank.s3_profile`` names.
    """
    if not place.startswith(_S3):
        return Releases(DirectoryPlace(Path(place)), settings.bank.trusted_keys)
    from worker.adapters.s3_releases import S3Place  # noqa: PLC0415 - boto3 takes its time to import

    cache = _copies() / hashlib.sha256(place.encode()).hexdigest()[:16]
    remote = S3Place(place, settings.fetch, profile=settings.bank.s3_profile, cache=cache)
    return Releases(remote, settings.bank.trusted_keys)


def active_release(settings: Settings) -> ActiveRelease | None:
    """
    The release that holds when this is asked; None where no place of releases is configured.

    Raises ``CannotStart`` where nothing was activated or the place or topic cannot be reached, ``BankInvalid`` where
    the release is not the one that was activated.
    """
    place = settings.bank.releases
    if place is None:
        return None
    releases = open_releases(place, settings)
    control = announced_release(settings, releases)
    return ActiveRelease(control, releases.verified(control))


def announced_release(settings: Settings, releases: Releases) -> BankControlV1:
    """
    What the pointer or the topic says now.

    Raises ``CannotStart`` where nothing was activated or the place or topic cannot be reached, ``BankInvalid`` for a
    pointer that says nothing, and for what none of the trusted keys signed.
    """
    place = releases.place.name
    control = releases.active() if settings.bank.activated_by == "pointer" else _announced(settings, releases)
    if control is None:
        where = place if settings.bank.activated_by == "pointer" else f"topic {settings.kafka.topics.bank_control}"
        flag = "" if settings.bank.activated_by == "pointer" else " --topic"
        raise CannotStart(
            f"bank.releases is {place}, and {where} names no active release; run `touchstone bank publish BANK --to "
            f"{place}` and `touchstone bank activate {place} RELEASE{flag}`"
        )
    releases.require_vouched(control)
    return control


def bank_of(releases: Releases) -> str:
    """
    Which bank a place is of, whose records a worker follows. Raises ``CannotStart`` while nothing was published.
    """
    found = releases.bank_id()
    if found is None:
        place = releases.place.name
        raise CannotStart(f"{place} has no release; run `touchstone bank publish BANK --to {place}`")
    return found


def control_reader(
    settings: Settings, releases: Releases
) -> tuple[Callable[[], BankControlV1 | None], Callable[[], None]]:
    """
    How to look at what holds now, again and again, and how to stop. Raises ``CannotStart`` where Kafka is not there.
    """
    if settings.bank.activated_by == "pointer":
        return releases.active, _nothing
    from worker.adapters.kafka_control import ControlReader  # noqa: PLC0415 - kafka-python takes its time to import

    reader = ControlReader(settings.kafka, bank_of(releases))
    return reader.newest, reader.close


def _announced(settings: Settings, releases: Releases) -> BankControlV1 | None:
    look, close = control_reader(settings, releases)
    try:
        return look()
    finally:
        close()


def _nothing() -> None:
    return None


def _copies() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(configured) if configured else Path.home() / ".cache"
    except RuntimeError:
        # A user without a home, as in many containers.
        root = Path(tempfile.gettempdir())
    return root / "touchstone" / "releases"
