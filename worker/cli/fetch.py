"""
``touchstone fetch``: one image under the worker's rules, so that an operator sees why it fails.

The stores and the stage are the worker's own; here one reference is made of a word of the command line, and what came
of it is shown.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from schemas.errors import class_of
from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND, ConfigInvalid, UploadFailed
from worker.redaction import one_line, redact_url
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from schemas.uploaded import ImageRef
    from worker.adapters.https_store import Hop
    from worker.domain import FetchedUpload, Upload
    from worker.settings.tree import Settings

_S3: Final = "s3://"
_FILE: Final = "file:"


@dataclass(slots=True)
class _Found:
    """
    What came of it, as it came: what was not reached stays None.
    """

    reference: str
    seconds: float | None = None
    bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    address: str | None = None
    hops: "list[Hop]" = field(default_factory=list)
    error: dict[str, Any] | None = None


@click.command()
@click.argument("address", metavar="https://...|s3://BUCKET/KEY|file:PATH")
@click.option("--profile", metavar="NAME", help="Profile of fetch.s3, as an event names it. Only for s3://.")
@click.option("--version-id", metavar="ID", help="Version of the object. Only for s3://.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options
def fetch(loaded: LoadedSettings, address: str, profile: str | None, version_id: str | None, *, as_json: bool) -> None:
    """
    Fetch one image as the worker would, and say what it is or why it fails.

    Everything of [fetch] and [decode] applies: allow-lists, credentials, limits of size and time. A file: PATH is
    relative to fetch.file_root, as in an event. The image is read and decoded, and kept nowhere.

    Exit codes: 0 fetched and decoded; 1 not, with the error code that its verdict would have; 2 this is no reference
    that an event may carry.
    """
    upload = _upload(_ref(address, profile, version_id))
    found = _Found(redact_url(address))
    try:
        fetched = _fetched(loaded.settings, upload, found)
        _decode(loaded.settings, fetched, found)
    except UploadFailed as failed:
        found.error = {
            "code": str(failed.code),
            "class": str(class_of(failed.code)),
            "stage": str(failed.stage),
            "detail": failed.detail,
            "http_status": failed.http_status,
            "retry_after_s": failed.retry_after_s,
        }
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _show(found)
    if found.error is not None:
        raise SystemExit(EXIT_FOUND)


def _ref(address: str, profile: str | None, version_id: str | None) -> "ImageRef":
    from pydantic import ValidationError  # noqa: PLC0415 - pydantic models; --help needs none

    from schemas.uploaded import FileRef, HttpsRef, S3Ref  # noqa: PLC0415 - likewise

    if not address.startswith(_S3) and (profile, version_id) != (None, None):
        raise ConfigInvalid("--profile and --version-id are for s3://BUCKET/KEY; leave them out")
    try:
        if address.startswith(_S3):
            bucket, _, key = address.removeprefix(_S3).partition("/")
            return S3Ref(kind="s3", bucket=bucket, key=key, profile=profile, version_id=version_id)
        if address.startswith(_FILE):
            path = address.removeprefix(_FILE)
            return FileRef(kind="file", path=path.removeprefix("//") if path.startswith("///") else path)
        return HttpsRef(kind="https", url=address)
    except ValidationError as error:
        fields = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors() if one["loc"]}))
        raise ConfigInvalid(
            f"{redact_url(address)!r} is no reference that an event may carry (wrong: {fields}); expected https://..., "
            "s3://BUCKET/KEY or file:PATH"
        ) from None


def _upload(ref: "ImageRef") -> "Upload":
    """
    An upload that claims nothing about its image.
    """
    from schemas.uploaded import ImageUploadedV1, UploadedImage  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.domain import EventIdentity, Partition, RawEvent, Upload  # noqa: PLC0415 - numpy; likewise

    return Upload(
        raw=RawEvent(Partition("fetch", 0), 0, None, None),
        identity=EventIdentity(str(uuid4()), "/touchstone/fetch", None, "binary"),
        data=ImageUploadedV1(content_id="fetch", image=UploadedImage(ref=ref)),
    )


def _fetched(settings: "Settings", upload: "Upload", found: _Found) -> "FetchedUpload":
    from worker.adapters.image_store import build_image_store  # noqa: PLC0415 - urllib3; --help needs none
    from worker.adapters.system_clock import SystemClock  # noqa: PLC0415 - likewise
    from worker.stages.fetch import fetch_upload  # noqa: PLC0415 - likewise

    def on_hop(hop: "Hop") -> None:
        found.hops.append(hop)
        found.address = hop.address or found.address

    clock = SystemClock()
    store = build_image_store(settings.fetch, on_hop=on_hop)
    started_s = clock.monotonic_s()
    try:
        fetched = fetch_upload(upload, store, clock=clock, max_image_bytes=settings.fetch.max_image_bytes)
    finally:
        found.seconds = round(clock.monotonic_s() - started_s, 3)
        store.close()
    found.bytes, found.sha256 = len(fetched.data), str(fetched.content_hash)
    return fetched


def _decode(settings: "Settings", fetched: "FetchedUpload", found: _Found) -> None:
    from worker.decoders import open_decoder_of  # noqa: PLC0415 - Pillow and numpy; --help needs none
    from worker.decoding.process_decoder import close_decoder  # noqa: PLC0415 - likewise
    from worker.domain import PreprocessSpec  # noqa: PLC0415 - likewise
    from worker.stages.sniff import format_of  # noqa: PLC0415 - likewise

    found.format = format_of(fetched.data)
    # What an encoder would be given is thrown away: anything does.
    spec = PreprocessSpec(16, "squash", "bilinear", 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), sha256="00" * 32)
    decoder = open_decoder_of(settings, spec)
    try:
        facts = decoder.decode(fetched.data, fetched.content_hash).facts
    finally:
        close_decoder(decoder)
    found.width, found.height = facts.width, facts.height


def _show(found: _Found) -> None:
    from rich.console import Console  # noqa: PLC0415 - --help needs none
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    size = None if found.width is None else f"{found.width} x {found.height}"
    rows = {
        "reference": found.reference,
        "seconds": found.seconds,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "format": found.format,
        "width x height": size,
        **{
            f"hop {number}": f"{hop.place} {hop.status}" + (f" from {hop.address}" if hop.address else "")
            for number, hop in enumerate(found.hops, start=1)
        },
        **({} if found.error is None else found.error),
    }
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, Text(one_line(str(value))))
    Console().print(table)
