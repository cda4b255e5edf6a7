"""
What ``touchstone bank disable`` does to the list of one bank, where it is given a bank instead of a place of releases.

Options are in ``bank_releases.py``; the list is ``worker.bank.quarantine``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.errors import EXIT_OK, ConfigInvalid
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.files import StoredBank
    from worker.bank.leaving_out import Without
    from worker.bank.quarantine import Quarantine
    from worker.bank.releases import Issuer


def is_bank(place: str) -> bool:
    """
    Whether this is the directory of a bank: a place of releases has a manifest in each release, and none of its own.
    """
    from worker.bank.manifest import MANIFEST  # noqa: PLC0415 - pydantic models; --help needs none

    return (Path(place) / MANIFEST).exists()


def disable_in_bank(
    bank: Path, settings: Settings, options: Mapping[str, Any], names: Mapping[str, frozenset[str]]
) -> int:
    """
    Put names on the list of this bank, take them off it, or show it; nothing is written where that is refused.

    Raises ``ConfigInvalid`` for a name that the bank does not have, or the list, and without bank.quarantine_path;
    ``BankInvalid`` where a label would be left without any reference.
    """
    from worker.bank.canary_files import has_canaries  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.files import load_bank  # noqa: PLC0415 - likewise
    from worker.bank.leaving_out import Without  # noqa: PLC0415 - likewise
    from worker.bank.quarantine import write_quarantine  # noqa: PLC0415 - likewise
    from worker.bank.releases import Issuer  # noqa: PLC0415 - likewise

    if options["to_topic"]:
        raise ConfigInvalid(f"--topic announces releases, and {bank} is a bank; leave it away")
    if options["key"] is not None:
        raise ConfigInvalid(f"--key signs what holds of releases, and {bank} is a bank, whose list nobody signs")
    as_json, path = options["as_json"], _list_of(settings)
    stored = load_bank(bank, settings.bank.trusted_keys)
    present = _present(path, stored)
    if options["listing"]:
        _show(path, stored, present, as_json=as_json)
        return EXIT_OK
    issuer = Issuer(options["issued_by"], options["reason"])
    changed = _changed(stored, present, Without(**names), None if options["enable"] else issuer)
    is_new = not path.exists()
    write_quarantine(path, changed)
    if is_new:
        click.echo(f"warning: {path} was not there, so a new list was begun; if there was one, restore it", err=True)
    _show(path, stored, changed, as_json=as_json)
    if not as_json:
        click.echo("a worker reads the list when it starts: restart the workers that use this bank")
    if has_canaries(bank):
        click.echo(
            "the bank has canaries of its own: a worker tries them with nothing left out, and only warns where they "
            "miss without what is disabled; `touchstone doctor` tries both now",
            err=as_json,
        )
    return EXIT_OK


def warn_of_quarantined(bank: Path, place: str, settings: Settings) -> None:
    """
    Tell that a release was published with references that the list keeps from judging in the bank: it is not asked.
    """
    from worker.bank.files import load_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.quarantine import read_quarantine  # noqa: PLC0415 - likewise

    path = settings.bank.quarantine_path
    if path is None or not path.exists():
        return
    listed, stored = read_quarantine(path), load_bank(bank, settings.bank.trusted_keys)
    left_out = len(stored.entries) - len(listed.without().kept_rows(stored.entries))
    if listed.bank == stored.manifest.id and left_out:
        click.echo(
            f"warning: the release has {left_out} references that {path} keeps from judging, and releases do not ask "
            f"that file; once it is active, `touchstone bank disable {place}` leaves them out",
            err=True,
        )


def _changed(stored: "StoredBank", present: "Quarantine", names: "Without", issuer: "Issuer | None") -> "Quarantine":
    """
    The list with these names added, or without an issuer taken away; tried on the bank.
    """
    from worker.bank.leaving_out import Without, leave_out  # noqa: PLC0415 - numpy; --help needs none

    if issuer is None:
        changed = present.with_less(names)
    elif (unknown := names.strangers(stored.entries)) != Without():
        raise ConfigInvalid(
            f"{unknown.names()[0]!r} is not in bank {stored.manifest.id} {stored.manifest.version}; name a reference "
            "by its id or sha256, or a generator or source as the bank's entries have it"
        )
    else:
        changed = present.with_more(names, issuer)
    leave_out(stored, changed.without().kept_rows(stored.entries))
    return changed


def _list_of(settings: Settings) -> Path:
    if settings.bank.quarantine_path is None:
        raise ConfigInvalid(
            "bank.quarantine_path is not set, so no worker would know what is disabled in this bank; set it to a file "
            "that the workers read, here and for them"
        )
    return settings.bank.quarantine_path


def _present(path: Path, stored: "StoredBank") -> "Quarantine":
    from worker.bank.quarantine import (  # noqa: PLC0415 - pydantic models; --help needs none
        Quarantine,
        read_quarantine,
        require_bank,
        require_folder,
    )

    require_folder(path)
    if not path.exists():
        return Quarantine(bank=stored.manifest.id)
    found = read_quarantine(path)
    require_bank(found, path, stored.manifest.id)
    return found


def _show(path: Path, stored: "StoredBank", quarantine: "Quarantine", *, as_json: bool) -> None:
    from worker.bank.leaving_out import leave_out  # noqa: PLC0415 - numpy

    wanted = quarantine.without()
    unknown = wanted.strangers(stored.entries).names()
    kept = leave_out(stored, wanted.kept_rows(stored.entries))
    left_out = len(stored.entries) - len(kept.entries)
    if as_json:
        listed = quarantine.model_dump(mode="json")
        said = {"path": str(path), "references_left_out": left_out, "without": kept.without, "unknown": unknown}
        click.echo(json.dumps({**said, **listed}, indent=2))
        return
    click.echo(f"bank {quarantine.bank}: {left_out} of {len(stored.entries)} references are left out by {path}")
    for one in quarantine.quarantined:
        when = "" if one.at is None else f", {one.at:%Y-%m-%d}"
        why = "" if one.reason is None else f": {one.reason}"
        missing = " (no reference has this name)" if one.name in unknown else ""
        click.echo(f"disabled {one.kind} {one.name}{missing}, by {one.by or 'somebody'}{when}{why}")
