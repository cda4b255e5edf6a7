"""
``touchstone explain``: one picture as a reviewer should see it, with the places that look generated and why.

Reading and printing only; the numbers are ``worker/stages/review_picture.py``, the drawing is ``explain_picture.py``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.verdict import ImageFacts
from worker.cli.options import settings_options
from worker.cli.scan import plain
from worker.domain import ContentHash
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid, UploadFailed
from worker.settings.load import LoadedSettings
from worker.settings.tree import Settings
from worker.telemetry.log import configure_logging

if TYPE_CHECKING:
    from worker.bank.files import StoredBank
    from worker.judgement.model import FittedJudgement
    from worker.ports import Encoder, PictureDecoder
    from worker.stages.review_picture import Review


@dataclass(frozen=True, slots=True)
class _Opened:
    encoder: "Encoder"
    decoder: "PictureDecoder"
    bank: "StoredBank"
    judgement: "FittedJudgement | None" = None


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--bank", "bank", type=click.Path(path_type=Path), help="Bank to compare with. Default: bank.path.")
@click.option("--out", "out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout: every tile, and the order of the crops.")
@settings_options
def explain(image: Path, *, bank: Path | None, out: Path, as_json: bool, loaded: LoadedSettings) -> int:
    """
    Draw which places of IMAGE look like generated references, the most suspicious first, with those references.

    For people who review; no part of any verdict. Exit code 1 when IMAGE cannot be read as an image.
    """
    from worker.cli.explain_picture import review_png  # noqa: PLC0415 - matplotlib; --help needs none

    configure_logging(loaded.settings.log.model_copy(update={"level": "error"}))
    data = _read(image, out)
    opened = _open(loaded.settings, bank)
    try:
        review, facts = _reviewed(data, opened)
    except UploadFailed as failure:
        click.echo(f"touchstone: {plain(str(image))}: {plain(str(failure))}", err=True)
        return EXIT_FOUND
    found = _report(review, facts, opened)
    try:
        out.write_bytes(review_png(review, found, title=plain(image.name).plain, reading=reading_of(found["vote"])))
    except OSError as fault:
        raise ConfigInvalid(
            f"--out {out} cannot be written ({fault.strerror}); name a file in a folder that exists"
        ) from fault
    if as_json:
        click.echo(json.dumps({"image": str(image), "out": str(out), **found}))
    else:
        _show(found, out)
    return EXIT_OK


def _read(image: Path, out: Path) -> bytes:
    if out.exists() and image.exists() and out.samefile(image):
        raise ConfigInvalid(f"--out {out} is the image itself; name another file")
    try:
        return image.read_bytes()
    except OSError as fault:
        raise ConfigInvalid(f"{image} cannot be read ({fault.strerror}); name an image file") from fault


def _open(settings: Settings, bank: Path | None) -> _Opened:
    """
    Bank with its judgement if it carries one, encoder and decoder, checked against each other.

    Raises ``BankInvalid``, ``EncoderInvalid``, or ``CannotStart`` for what decoding needs.
    """
    from worker.adapters.clip_encoder import load_encoder  # noqa: PLC0415 - torch takes seconds to import
    from worker.bank.files import load_bank  # noqa: PLC0415 - likewise
    from worker.bank.fit import check_fit  # noqa: PLC0415 - likewise
    from worker.decoders import open_decoder  # noqa: PLC0415 - likewise
    from worker.instruments import bank_path, judgement_of  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    path = bank_path(settings) if bank is None else bank
    stored = load_bank(path, settings.bank.trusted_keys)
    judgement = judgement_of(stored, path)
    encoder = load_encoder(settings.encoder, recorder=InMemoryRecorder())
    decoder = open_decoder(settings, encoder, stored.views)
    check_fit(stored, encoder, decoder)
    return _Opened(encoder, decoder, stored, judgement)


def _reviewed(data: bytes, opened: _Opened) -> tuple["Review", ImageFacts]:
    from worker.heads.reference_bank import ExactBank  # noqa: PLC0415 - numpy; --help needs none
    from worker.stages.review_picture import review_of  # noqa: PLC0415 - likewise
    from worker.stages.whole_picture import whole_picture  # noqa: PLC0415 - likewise

    facts = opened.decoder.decode(data, ContentHash(hashlib.sha256(data).hexdigest())).facts
    picture = whole_picture(data, facts, opened.bank.views)
    return review_of(picture, opened.encoder, ExactBank(opened.bank.references()), opened.judgement), facts


def _report(review: "Review", facts: ImageFacts, opened: _Opened) -> dict[str, Any]:
    """
    What ``--json`` prints, but for the names of files.
    """
    tiles = [
        {"left": left, "top": top, "width": right - left, "height": bottom - top, "log_odds": float(value)}
        for (left, top, right, bottom), value in zip(review.grid.boxes, review.evidence, strict=True)
    ]
    crops = []
    for crop in review.crops:
        references = []
        for row, similarity in crop.references:
            entry = opened.bank.entries.entry(row)
            references.append(
                {
                    "entry_id": entry.id,
                    "label": entry.label,
                    "generator": entry.generator,
                    "source": entry.source,
                    "similarity": similarity,
                }
            )
        crops.append({"tile": crop.tile, **tiles[crop.tile], "references": references})
    height, width = review.picture.shape[:2]
    manifest = opened.bank.manifest
    return {
        "sha256": facts.sha256,
        "width": width,
        "height": height,
        "positive": manifest.question.positive,
        "bank": {"id": manifest.id, "version": manifest.version, "manifest_sha256": opened.bank.manifest_sha256},
        "encoder": opened.encoder.fingerprint.id,
        "view": review.view,
        "vote": {
            "judgement": opened.judgement.id if opened.judgement is not None and review.vote.head else None,
            **asdict(review.vote),
        },
        "rows": review.grid.shape[0],
        "columns": review.grid.shape[1],
        "tiles": tiles,
        "crops": crops,
    }


def _show(found: dict[str, Any], out: Path) -> None:
    table = Table(title=f"places by evidence for {found['positive']}")
    for column in ("place (left, top)", "evidence", "nearest references"):
        table.add_column(column, overflow="fold")
    for crop in found["crops"]:
        named = Text("\n").join(
            plain(f"{one['similarity']:.3f} {one['label']} {one['generator'] or one['source'] or ''} {one['entry_id']}")
            for one in crop["references"]
        )
        table.add_row(f"{crop['left']}, {crop['top']}", f"{crop['log_odds']:+.2f}", named)
    console = Console()
    console.print(table)
    if found["view"] == "global":
        console.print("The bank has no native crops: tiles were compared with whole pictures, a weaker hint.")
    console.print(reading_of(found["vote"]), markup=False)
    console.print(f"drawn in {out}", markup=False)


def reading_of(vote: Mapping[str, Any]) -> str:
    """
    In words, for the legend too: by what the tiles were judged; ``vote`` as ``--json`` prints it.
    """
    if vote["head"] is None:
        return f"raw vote, temperature {vote['temperature']:g}: no fitted head to weigh it"
    turned = ", direction turned" if vote["direction"] < 0 else ""
    return f"head {vote['head']} of judgement {vote['judgement'][:12]}, temperature {vote['temperature']:g}{turned}"
