"""
``touchstone bank publish``, ``releases``, ``activate``, ``rollback``, ``disable`` and ``announce``: which bank is used.

Options, tables and exit codes only. The work is done in ``worker.bank.releases``.
"""

import getpass
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.bank_canaries import TriedCanaries, made_canaries
from worker.cli.bank_quarantine import disable_in_bank, is_bank, warn_of_quarantined
from worker.cli.bank_release_tables import disabled_lines, show_releases
from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND, EXIT_OK, CannotStart, ConfigInvalid, TouchstoneError
from worker.settings.load import LoadedSettings
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from schemas.bank_control import BankControlV1
    from worker.bank.releases import Issuer, Releases

PLACE = click.argument("place", metavar="PLACE")
JSON = click.option("--json", "as_json", is_flag=True, help="One object on stdout.")


def change_options(command: Callable[..., int]) -> Callable[..., int]:
    """
    What every command takes that changes what holds.
    """
    for option in (
        JSON,
        click.option("--reason", help="Why, for the history and the log of the workers."),
        click.option("--by", "issued_by", metavar="NAME", help="Who. Default: the user of this machine."),
        click.option(
            "--key",
            metavar="KEYFILE",
            type=click.Path(path_type=Path),
            help="Sign what holds then, by a key of `bank keygen`. Needed where bank.trusted_keys is set.",
        ),
        click.option(
            "--topic",
            "to_topic",
            is_flag=True,
            help='Tell it through kafka.topics.bank_control too, for workers with bank.activated_by = "topic".',
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option("--to", "place", required=True, metavar="PLACE", help="A directory, or s3://BUCKET/PREFIX.")
@click.option("--release", metavar="NAME", help="Name of the release. Default: the bank's version.")
@click.option(
    "--canaries",
    type=click.Path(path_type=Path),
    metavar="DIR|CSV",
    help="Labelled pictures, as for `bank build`, that a worker must judge so before it uses this release.",
)
@click.option("--unjudged", is_flag=True, help="Publish without judging the canaries here first.")
@JSON
@settings_options
def publish(path: Path, *, place: str, as_json: bool, loaded: LoadedSettings, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Put BANK into a place of releases, under a name that is not changed any more. No worker uses it yet.

    PLACE is a directory or s3://BUCKET/PREFIX, through the profile of fetch.s3 that bank.s3_profile names; it holds the
    releases of one bank. With --canaries the configured encoder is loaded and looks at them once, and the bank judges
    them by the configured policy: a release that misses more than bank.canary_agreement allows is not published, since
    no worker would use it. --unjudged leaves that to the workers, where their policy is another. Exit code 0 when it is
    published, 1 when canaries miss, 2 for a name that is taken, 3 for a bank or place that cannot be used.
    """
    from worker.bank.files import read_manifest  # noqa: PLC0415 - numpy and pydantic models; --help needs none

    with tempfile.TemporaryDirectory(prefix="touchstone-canaries-") as folder:
        tried = TriedCanaries({}, 0)
        if options["canaries"] is not None:
            judged, shown = not options["unjudged"], not as_json
            tried = made_canaries(path, options["canaries"], Path(folder), loaded.settings, judged=judged, shown=shown)
        elif loaded.settings.bank.require_canaries:
            raise ConfigInvalid("bank.require_canaries is true, so no worker would use this release; pass --canaries")
        if tried.refusal is not None:
            return _unpublished(place, tried, as_json=as_json)
        name = _open(place, loaded.settings).publish(path, options["release"], canaries=tried.files)
    manifest = read_manifest(path)
    warn_of_quarantined(path, place, loaded.settings)
    if as_json:
        said = {"place": place, "release": name, "bank": manifest.id, "version": manifest.version}
        counts = {"canaries": bool(tried.files), "canaries_right": tried.right, "canaries_total": tried.total}
        click.echo(json.dumps({"published": True, **said, **counts}, indent=2))
    else:
        click.echo(f"published bank {manifest.id} {manifest.version} as release {name} in {place}")
        if tried.right is not None:
            click.echo(f"{tried.right} of {tried.total} canaries were judged as expected")
        click.echo(f"`touchstone bank activate {place} {name}` lets the workers use it")
    return EXIT_OK


@click.command()
@PLACE
@JSON
@settings_options
def releases(place: str, *, as_json: bool, loaded: LoadedSettings) -> int:
    """
    List the releases in PLACE, which of them is active, and what of it is disabled.

    Exit code 1 when a release cannot be read, or the active one is not there or signed by none of bank.trusted_keys.
    """
    from worker.bank.manifest import manifest_sha256  # noqa: PLC0415 - pydantic models; --help needs none

    opened = _open(place, loaded.settings)
    found, active, damage = opened.releases(), opened.active(), opened.damage()
    rows = [
        {
            "release": one.name,
            "active": active is not None and one.name == active.release,
            "version": None if one.manifest is None else one.manifest.version,
            "entries": None if one.manifest is None else one.manifest.counts.entries,
            "manifest_sha256": None if one.manifest is None else manifest_sha256(one.manifest),
            "judgement": None if one.manifest is None or one.manifest.judgement is None else one.manifest.judgement.id,
            "canaries": one.has_canaries,
            "problem": one.problem,
        }
        for one in found
    ]
    lost = active is not None and active.release not in {one.name for one in found}
    if as_json:
        pointer = None if active is None else active.model_dump(mode="json")
        click.echo(json.dumps({"place": place, "active": pointer, "problem": damage, "releases": rows}, indent=2))
    else:
        show_releases(place, rows, active)
        if lost and active is not None:
            click.echo(f"release {active.release} is active and is not there: activate another one")
        if damage is not None:
            click.echo(f"no worker follows this: {damage}")
    return EXIT_FOUND if lost or damage or any(one.problem for one in found) else EXIT_OK


@click.command()
@PLACE
@click.argument("release", metavar="RELEASE")
@change_options
@settings_options
def activate(place: str, release: str, *, loaded: LoadedSettings, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Let the workers use RELEASE: they load it beside the old one, try its canaries, and change over while they run.

    What is disabled stays disabled. A worker that cannot use the release keeps the old one and says why in its log. A
    damaged active.json is mended, with what the newest step of the history disables that can be read and believed.
    """
    return _change(place, loaded.settings, options, lambda opened, issuer: opened.activate(release, issuer))


@click.command()
@PLACE
@JSON
@settings_options
def announce(place: str, *, as_json: bool, loaded: LoadedSettings) -> int:
    """
    Tell what is active in PLACE through kafka.topics.bank_control, again or for the first time. Nothing is changed.

    For workers with bank.activated_by = "topic", where a command with --topic could not do it.
    """
    opened = _open(place, loaded.settings)
    control = opened.active()
    if control is None:
        raise ConfigInvalid(f"{place}: no release is active, so nothing can be announced; activate one with --topic")
    opened.require_vouched(control)
    _announce(loaded.settings, control)
    _tell(place, loaded.settings, control, as_json=as_json, to_topic=True)
    return EXIT_OK


@click.command()
@PLACE
@change_options
@settings_options
def rollback(place: str, *, loaded: LoadedSettings, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Go back to the release that was used before the active one was activated; again, and it is the one before that.

    What is disabled stays disabled.
    """
    return _change(place, loaded.settings, options, lambda opened, issuer: opened.rollback(issuer))


@click.command()
@PLACE
@click.option(
    "--entry", "entries", multiple=True, metavar="ID", help="A reference, by its id or sha256. May be repeated."
)
@click.option("--generator", "generators", multiple=True, metavar="NAME", help="All of a generator. May be repeated.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="All of a source. May be repeated.")
@click.option("--enable", is_flag=True, help="Take them in again.")
@click.option("--list", "listing", is_flag=True, help="Show what is disabled, and change nothing.")
@change_options
@settings_options
def disable(place: str, *, loaded: LoadedSettings, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Leave references out of every judgement, from now on: of the releases in PLACE, or of the bank at PLACE.

    Of releases: of the active one and of later ones; the workers do so at their next look, without loading anything.
    Of a bank: as the file at bank.quarantine_path says, which this command writes and workers read when they start;
    it stays when the bank is built anew. Verdicts name what was left out in versions.bank.index. The judgement stays as
    it was fitted to all references: refit the bank without them (`touchstone fit`) where they were more than a few.
    Exit code 1 with --list where no worker follows what is shown: none of bank.trusted_keys signed it.
    """
    names = {kind: frozenset(options[kind]) for kind in ("entries", "generators", "sources")}
    if options["listing"] == any(names.values()):
        raise ConfigInvalid("say what to leave out: --entry ID, --generator NAME or --source NAME; or --list alone")
    if is_bank(place):
        options["issued_by"] = options["issued_by"] or _user()
        return disable_in_bank(Path(place), loaded.settings, options, names)
    if options["listing"]:
        return _list_disabled(place, loaded.settings, as_json=options["as_json"])

    def leave_out(opened: "Releases", issuer: "Issuer") -> "BankControlV1":
        return opened.disable(issuer, **names, enable=options["enable"])

    return _change(place, loaded.settings, options, leave_out)


def _list_disabled(place: str, settings: Settings, *, as_json: bool) -> int:
    opened = _open(place, settings)
    control, damage = opened.active(), opened.damage()
    if control is None:
        raise ConfigInvalid(f"{place}: no release is active, so nothing is disabled; activate one")
    _tell(place, settings, control, as_json=as_json, to_topic=False)
    if damage is None:
        return EXIT_OK
    click.echo(f"warning: no worker follows this: {damage}", err=True)
    return EXIT_FOUND


def _change(
    place: str,
    settings: Settings,
    options: dict[str, Any],
    change: "Callable[[Releases, Issuer], BankControlV1]",
) -> int:
    from worker.bank.releases import Issuer  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.bank.signing_key import read_key  # noqa: PLC0415 - likewise

    opened, key = _open(place, settings), None if options["key"] is None else read_key(options["key"])
    if options["to_topic"]:
        # Before anything is stored: a change that cannot be announced is better not made.
        _require_topic(settings)
    damage = opened.damage()
    control = change(opened, Issuer(options["issued_by"] or _user(), options["reason"], key=key))
    if damage is not None:
        disabled = sum(map(len, (control.disabled_entries, control.disabled_generators, control.disabled_sources)))
        click.echo(
            f"warning: {damage}. It is written anew, and disables {disabled} names, as the newest record does that can "
            "be believed; `touchstone bank releases` shows them",
            err=True,
        )
    if options["to_topic"]:
        try:
            _announce(settings, control)
        except TouchstoneError as fault:
            raise CannotStart(
                f"{place} is at release {control.release}, not announced: {fault}. Run `touchstone bank announce "
                f"{place}` when that is mended; this command need not be run again"
            ) from fault
    _tell(place, settings, control, as_json=options["as_json"], to_topic=options["to_topic"])
    return EXIT_OK


def _require_topic(settings: Settings) -> None:
    from worker.adapters.kafka_client import require_topics  # noqa: PLC0415 - kafka-python takes its time to import

    require_topics(settings.kafka, [settings.kafka.topics.bank_control])


def _announce(settings: Settings, control: "BankControlV1") -> None:
    from worker.adapters.kafka_control import announce as write  # noqa: PLC0415 - kafka-python, as above

    write(settings.kafka, control)


def _tell(place: str, settings: Settings, control: "BankControlV1", *, as_json: bool, to_topic: bool) -> None:
    if as_json:
        click.echo(json.dumps(control.model_dump(mode="json"), indent=2))
        return
    click.echo(f"bank {control.bank}: release {control.release} holds in {place}")
    for line in disabled_lines(control):
        click.echo(line)
    if to_topic:
        click.echo(f"announced in topic {settings.kafka.topics.bank_control}")


def _unpublished(place: str, tried: TriedCanaries, *, as_json: bool) -> int:
    if as_json:
        counts = {"canaries_right": tried.right, "canaries_total": tried.total}
        said = {"published": False, "place": place, "canaries": True, **counts, "problem": tried.refusal}
        click.echo(json.dumps(said, indent=2))
    else:
        click.echo(f"not published: {tried.refusal}")
    return EXIT_FOUND


def _open(place: str, settings: Settings) -> "Releases":
    from worker.operation.active_release import open_releases  # noqa: PLC0415 - numpy and pydantic models

    return open_releases(place, settings)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user without a name, as in many containers.
        return None
