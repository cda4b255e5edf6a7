"""
``touchstone forget``: remove what was kept of a content's images, from everywhere that the settings name.

What forgetting is, is in ``worker.operation.forgetting``.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import ConfigInvalid, StoreUnavailable, TouchstoneError
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.operation.forgetting import Deletion, Forgotten, Stores
    from worker.settings.tree import KafkaSettings, Settings

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@click.command()
@click.argument("content_ids", metavar="CONTENT_ID...", nargs=-1)
@click.option("--tenant", help="Whose contents these are, as in the upload event.")
@click.option("--sha256", "hashes", multiple=True, metavar="HEX", help="A hash of the bytes. May be repeated.")
@click.option(
    "--search-verdicts", is_flag=True, help="Find the bytes in the verdicts topic too. Reads all of it: slow."
)
@click.option("--publish", is_flag=True, help="Also tell all workers, by image.deleted.v1 in the deletions topic.")
@click.option("--scan", is_flag=True, help="Walk all keys of Redis; also finds those of earlier releases. Slow.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options
def forget(loaded: LoadedSettings, content_ids: tuple[str, ...], *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's
    """
    Remove the hashes and embeddings of these contents from Redis and from the archive of kept embeddings.

    Which bytes a content had is known from Redis, as long as anything of them is kept. Where Redis has lost it,
    --search-verdicts reads what the verdicts on the content say, and --sha256 names bytes directly: they are taken for
    those of every content that is named with them. Other contents with the same bytes lose theirs too, and are computed
    anew when needed. Running workers keep recent embeddings in
    memory, and archives on other machines are out of reach: --publish reaches both where deletions.enabled is set.
    Verdicts stay, as the record of what was decided, until their topic's retention ends. Exit code 1 when a store
    could not be reached, or nothing is known of a content: what is named was not removed.
    """
    from worker.operation.forgetting import forget as forget_all  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    _check(content_ids, options["hashes"], publish=options["publish"], search=options["search_verdicts"])
    deletions = _deletions(content_ids, options["tenant"], options["hashes"])
    in_verdicts = 0
    if options["search_verdicts"]:
        deletions, in_verdicts = _searched(loaded.settings.kafka, deletions, shown=not as_json)
    with _opened(loaded.settings, deletions, scan=options["scan"]) as stores:
        failed: dict[str, str] = {}
        published = 0
        if options["publish"]:
            # First, so that others hear of it whatever happens here.
            try:
                published = _publish(loaded.settings, deletions, stores)
            except ConfigInvalid:
                raise
            except TouchstoneError as fault:
                failed["the deletions topic"] = str(fault)
        forgotten = forget_all(deletions, stores, InMemoryRecorder())
    whole = replace(forgotten, failed={**forgotten.failed, **failed})
    if as_json:
        counts = {"contents": len(set(content_ids)), "in_verdicts": in_verdicts, "published": published}
        print(json.dumps({**counts, **asdict(whole), "unknown": whole.unknown}, indent=2))
    else:
        if options["search_verdicts"]:
            print(f"{in_verdicts} hashes found in {loaded.settings.kafka.topics.verdicts}.")
        _show(loaded.settings, whole, published)
    whole.require_whole()


def _check(content_ids: Sequence[str], hashes: Sequence[str], *, publish: bool, search: bool) -> None:
    if not (content_ids or hashes):
        raise ConfigInvalid("nothing was named; give a CONTENT_ID, or --sha256 with the hash of the bytes")
    if wrong := [text for text in hashes if not _SHA256.fullmatch(text)]:
        raise ConfigInvalid(f"--sha256 is {wrong[0]!r}; expected 64 hex digits, as `sha256sum FILE` prints them")
    if publish and not content_ids:
        raise ConfigInvalid("--publish needs a CONTENT_ID, which image.deleted.v1 is about; name the content too")
    if search and not content_ids:
        raise ConfigInvalid("--search-verdicts needs a CONTENT_ID, whose verdicts are looked for; name the content too")


def _deletions(content_ids: Sequence[str], tenant: str | None, hashes: Sequence[str]) -> "list[Deletion]":
    from worker.contents import ContentName  # noqa: PLC0415 - numpy; --help needs none
    from worker.domain import ContentHash  # noqa: PLC0415 - likewise
    from worker.operation.forgetting import Deletion  # noqa: PLC0415 - likewise

    found = tuple(map(ContentHash, hashes))
    if not content_ids:
        return [Deletion(None, found)]
    return [Deletion(ContentName(tenant, content_id), found) for content_id in dict.fromkeys(content_ids)]


def _searched(
    settings: "KafkaSettings", deletions: "Sequence[Deletion]", *, shown: bool
) -> "tuple[list[Deletion], int]":
    """
    The same deletions, each content also with the bytes that its verdicts name, and how many these are.

    Raises what reading a topic raises.
    """
    from worker.adapters.kafka_collection import collect  # noqa: PLC0415 - kafka takes its time to import
    from worker.operation.searching import bytes_in_verdicts  # noqa: PLC0415 - pydantic models

    names = [deletion.content for deletion in deletions if deletion.content is not None]
    with progress_bars(shown=shown) as report:
        records = collect(
            settings, settings.topics.verdicts, progress=lambda done, total: report("verdicts", done, total)
        )
        found = bytes_in_verdicts(records, names)
    searched = [
        replace(deletion, hashes=tuple(dict.fromkeys([*deletion.hashes, *sorted(found[deletion.content])])))
        for deletion in deletions
        if deletion.content is not None
    ]
    return searched, sum(map(len, found.values()))


@contextmanager
def _opened(settings: "Settings", deletions: "Sequence[Deletion]", *, scan: bool) -> "Iterator[Stores]":
    from worker.operation.stores import open_stores  # noqa: PLC0415 - kafka and redis take their time

    with open_stores(settings, scan=scan) as stores:
        if not stores.forgetters:
            raise ConfigInvalid(
                "redis.enabled is false and embeddings.keep is none: these settings name no store that keeps anything; "
                "give the workers' settings with --config"
            )
        if stores.index is None and not any(deletion.hashes for deletion in deletions):
            raise ConfigInvalid(
                "redis.enabled is false, and so far nothing tells which bytes these contents had; find them with "
                "--search-verdicts, or name them with --sha256 (`image.sha256` of their verdicts)"
            )
        yield stores


def _publish(settings: "Settings", deletions: "Sequence[Deletion]", stores: "Stores") -> int:
    """
    Tell the contents with all hashes that are known here: who hears of them later may no longer find them by name.
    """
    from worker.adapters.kafka_deletions import publish_deletions  # noqa: PLC0415 - kafka takes its time to import
    from worker.operation.deletion_events import deletion_messages  # noqa: PLC0415 - pydantic models
    from worker.operation.forgetting import known_bytes  # noqa: PLC0415 - likewise

    try:
        known = known_bytes(deletions, stores)
    except StoreUnavailable:
        known = {}  # told when it is to forget; the names alone are worth telling
    messages = [
        message
        for content, found in {deletion.content: deletion.hashes for deletion in deletions}.items()
        if content is not None
        for message in deletion_messages(
            content,
            [*found, *sorted(known.get(content, ()))],
            topic=settings.kafka.topics.deletions,
            service=settings.service.name,
        )
    ]
    publish_deletions(settings.kafka, messages, client_id=f"{settings.service.name}-forget")
    return len(messages)


def _show(settings: "Settings", forgotten: "Forgotten", published: int) -> None:
    for store, number in forgotten.removed.items():
        what = "tombstones written to" if (store, settings.embeddings.keep) == ("archive", "topic") else "removed from"
        print(f"{number} values {what} {store}, for {forgotten.hashes} hashes.")
    if published:
        print(f"{published} deletions published to {settings.kafka.topics.deletions}.")
    else:
        print("Workers that run may still have these embeddings in memory; --publish tells them.")
