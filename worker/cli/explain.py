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
    from worker.stages.whole_picture import Ground
    from worker.views import DecodedPicture


@dataclass(frozen=True, slots=True)
class _Opened:
    encoder: "Encoder"
    decoder: "PictureDecoder"
    bank: "StoredBank"
    judgement: "FittedJudgement | None" = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """
    What is drawn: the review of a frame on a ground. ``decides``: of several looks it is the one that decides.
    """

    review: "Review"
    facts: ImageFacts
    frame: int
    ground: "Ground"
    decides: bool


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--bank", "bank", type=click.Path(path_type=Path), help="Bank to compare with. Default: bank.path.")
@click.option("--out", "out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--frame", type=click.IntRange(min=0), help="Frame to draw. Default: the one that decides the verdict.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout: every tile, and the order of the crops.")
@settings_options
def explain(
    image: Path, *, bank: Path | None, out: Path, frame: int | None, as_json: bool, loaded: LoadedSettings
) -> int:
    """
    Draw which places of IMAGE look like generated references, the most suspicious first, with those references.

    For people who review; no part of any verdict. Of an animation, the frame that decides its verdict under the
    configured policy. Exit code 1 when IMAGE cannot be read as an image.
    """
    from worker.cli.explain_picture import review_png  # noqa: PLC0415 - matplotlib; --help needs none

    configure_logging(loaded.settings.log.model_copy(update={"level": "error"}))
    data = _read(image, out)
    opened = _open(loaded.settings, bank)
    try:
        shown = _reviewed(data, opened, loaded.settings, frame=frame)
    except UploadFailed as failure:
        click.echo(f"touchstone: {plain(str(image))}: {plain(str(failure))}", err=True)
        return EXIT_FOUND
    found = _report(shown, opened)
    title = f"{plain(image.name).plain}{_place_of(shown)}"
    try:
        out.write_bytes(review_png(shown.review, found, title=title, reading=reading_of(found["vote"])))
    except OSError as fault:
        raise ConfigInvalid(
            f"--out {out} cannot be written ({fault.strerror}); name a file in a folder that exists"
        ) from fault
    if as_json:
        click.echo(json.dumps({"image": str(image), "out": str(out), **found}))
    else:
        _show(found, out, _place_of(shown))
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
    from worker.bank.fit import check_fit  # noqa: PLC0415 - numpy and PIL; --help needs neither
    from worker.decoders import open_decoder  # noqa: PLC0415 - likewise
    from worker.encoders import load_encoder  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise
    from worker.whole_banks import configured_bank, read_bank  # noqa: PLC0415 - likewise

    whole = configured_bank(settings) if bank is None else read_bank(bank, settings.bank.trusted_keys)
    stored = whole.stored
    encoder = load_encoder(settings.encoder, recorder=InMemoryRecorder())
    decoder = open_decoder(settings, encoder, stored.views)
    check_fit(stored, encoder, decoder)
    return _Opened(encoder, decoder, stored, whole.judgement)


def _reviewed(data: bytes, opened: _Opened, settings: Settings, *, frame: int | None) -> _Shown:
    from worker.heads.reference_bank import ExactBank  # noqa: PLC0415 - numpy; --help needs none
    from worker.stages.review_picture import review_of  # noqa: PLC0415 - likewise
    from worker.stages.whole_picture import whole_picture  # noqa: PLC0415 - likewise

    decoded = opened.decoder.decode(data, ContentHash(hashlib.sha256(data).hexdigest()))
    facts = decoded.facts
    if frame is not None and frame not in facts.frames_scored:
        numbers = ", ".join(str(number) for number in sorted(set(facts.frames_scored)))
        raise ConfigInvalid(f"--frame {frame}: the frames that are looked at are {numbers}; name one of these, or none")
    ground: Ground = "white"
    decides = frame is None and len(decoded.looks) > 1
    if decides:
        frame, ground = _deciding(decoded, opened, settings)
    number = frame or 0
    picture = whole_picture(data, facts, opened.bank.views, frame=number, ground=ground)
    review = review_of(picture, opened.encoder, ExactBank(opened.bank.references()), opened.judgement)
    return _Shown(review, facts, number, ground, decides)


def _deciding(decoded: "DecodedPicture", opened: _Opened, settings: Settings) -> tuple[int, "Ground"]:
    """
    The frame and the ground of the look that decides under the configured policy. Raises ``ConfigInvalid``.
    """
    from worker.instruments import Beside, open_beside, policy_path, trial_judge  # noqa: PLC0415 - FAISS
    from worker.operation.one_picture import judged_picture  # noqa: PLC0415 - numpy; --help needs none
    from worker.policy import load_policy  # noqa: PLC0415 - pydantic models
    from worker.whole_banks import WholeBank  # noqa: PLC0415 - likewise

    views = opened.bank.views
    beside = Beside(opened.encoder, opened.decoder, load_policy(policy_path(settings.policy)), views)
    judge = trial_judge(open_beside(beside, settings, whole=WholeBank(opened.bank, opened.judgement)))
    found = judged_picture(decoded, judge, opened.encoder, views=views, batch_size=settings.batch.size)
    return found.evidence.frame or 0, found.evidence.ground or "white"


def _place_of(shown: _Shown) -> str:
    """
    Which look is drawn, to be put behind a name; nothing where there is but one.
    """
    if len(shown.facts.frames_scored) == 1:
        return ""
    deciding = ", which decides" if shown.decides else ""
    return f", frame {shown.frame} on {shown.ground}{deciding}"


def _report(shown: _Shown, opened: _Opened) -> dict[str, Any]:
    """
    What ``--json`` prints, but for the names of files.
    """
    review, facts = shown.review, shown.facts
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
        "frame": shown.frame,
        "ground": shown.ground,
        "frames_looked_at": sorted(set(facts.frames_scored)),
        "positive": manifest.question.positive,
        "bank": {
            "id": manifest.id,
            "version": manifest.version,
            "manifest_sha256": opened.bank.manifest_sha256,
            "without": opened.bank.without,
        },
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


def _show(found: dict[str, Any], out: Path, place: str) -> None:
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
    console.print(f"drawn in {out}{place}", markup=False)


def reading_of(vote: Mapping[str, Any]) -> str:
    """
    In words, for the legend too: by what the tiles were judged; ``vote`` as ``--json`` prints it.
    """
    if vote["head"] is None:
        return f"raw vote, temperature {vote['temperature']:g}: no fitted head to weigh it"
    turned = ", direction turned" if vote["direction"] < 0 else ""
    return f"head {vote['head']} of judgement {vote['judgement'][:12]}, temperature {vote['temperature']:g}{turned}"
