"""
``touchstone bank``: build, extend, inspect and verify banks of references.

Options and exit codes only. The work is done in ``worker.bank``, what is shown is made in ``worker.cli.bank_views``.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.build import BuildReport
    from worker.bank.embedding import ReferenceEmbedder
    from worker.bank.manifest import Question
    from worker.ports import Encoder, PictureDecoder


@click.group()
def bank() -> None:
    """
    Build, extend, inspect and verify banks of references.
    """


def source_options(command: Callable[..., int]) -> Callable[..., int]:
    """
    The options that building and adding share.
    """
    options = [
        click.option(
            "--label-map",
            "label_map",
            multiple=True,
            metavar="NAME=LABEL",
            help="What a folder name, or a label of the CSV file, means. May be repeated.",
        ),
        click.option(
            "--max-skipped",
            type=click.FloatRange(0, 1),
            default=0.10,
            show_default=True,
            help="Share of the references that may be unusable; beyond it nothing is written and the exit code is 1.",
        ),
        click.option("--replace", is_flag=True, help="Take the place of a bank that is there already, in one step."),
        click.option("--restart", is_flag=True, help="Drop what an unfinished run left, instead of going on with it."),
        click.option("--json", "as_json", is_flag=True, help="One object on stdout."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@bank.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bank directory to make.")
@click.option("--id", "bank_id", help="Name of the bank in every verdict. Default: the directory's name.")
@click.option("--version", "version", default="1", show_default=True, help="Version of the bank in every verdict.")
@click.option("--labels", help="Labels of a question of your own, such as spam,ham. Default: real,ai_generated.")
@click.option("--positive", "--question", "positive", help="The label that a verdict's score speaks of.")
@source_options
@settings_options
def build(source: Path, out: Path, *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Build a bank from SOURCE and put it at --out, which is never there half-made.

    SOURCE is a folder (real/..., fake/<generator>/..., or 0_real/ and 1_fake/ at any depth) or a CSV file with the
    columns path and label, and if you have them generator, source, licence and sha256; paths are relative to the file.
    A build that was stopped goes on where it was when it is run again.
    """
    from worker.bank.build import BuildPlan, build_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise

    question = _question(options["labels"], options["positive"])
    plan = BuildPlan(
        id=options["bank_id"] or out.absolute().name,
        version=options["version"],
        question=question,
        max_skipped=options["max_skipped"],
        replace=options["replace"],
        restart=options["restart"],
    )
    listing = list_source(source, question, _label_map(options["label_map"]))
    embedder = _open_embedder(loaded.settings)
    return _make(partial(build_bank, listing, out, embedder=embedder, plan=plan), as_json=as_json)


@bank.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the new version goes. Default: in place of the old."
)
@click.option("--version", "version", help="Version of the new bank. Default: the old one's last number plus one.")
@source_options
@settings_options
def add(path: Path, source: Path, *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Make a new version of BANK with the references of SOURCE added.

    A worker that runs keeps the bank it loaded; restart it to use the new one.
    """
    from worker.bank.build import AddPlan, add_to_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.files import read_manifest  # noqa: PLC0415 - likewise
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise

    plan = AddPlan(
        out=options["out"],
        version=options["version"],
        max_skipped=options["max_skipped"],
        replace=options["replace"],
        restart=options["restart"],
    )
    listing = list_source(source, read_manifest(path).question, _label_map(options["label_map"]))
    embedder = _open_embedder(loaded.settings)
    return _make(partial(add_to_bank, path, listing, embedder=embedder, plan=plan), as_json=as_json)


@bank.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def inspect(path: Path, *, as_json: bool) -> int:
    """
    Show what is in BANK: counts, encoder, formats, sizes, licences, and what may make it misleading.
    """
    from worker.bank.describe import describe  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.files import load_bank  # noqa: PLC0415 - likewise
    from worker.cli.bank_views import description_object, show_description  # noqa: PLC0415 - likewise

    description = describe(path, load_bank(path))
    if as_json:
        click.echo(json.dumps(description_object(description), indent=2))
    else:
        show_description(description)
    return EXIT_OK


@bank.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option("--no-encoder", is_flag=True, help="Leave out the probe: load no encoder.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@settings_options
def verify(path: Path, *, no_encoder: bool, as_json: bool, loaded: LoadedSettings) -> int:
    """
    Check BANK: files, repeated references, labels that contradict each other, the configured index, the encoder.

    Exit code 1 when anything is wrong, one line each; an encoder that cannot be opened is wrong without --no-encoder.
    """
    from worker.adapters.faiss_bank import FaissBank  # noqa: PLC0415 - FAISS takes its time to import; --help needs none
    from worker.bank.verify import verify_bank  # noqa: PLC0415 - likewise
    from worker.cli.bank_views import show_verification, verification_object  # noqa: PLC0415 - likewise

    def open_encoder() -> "tuple[Encoder, PictureDecoder]":
        embedder = _open_embedder(loaded.settings)
        return embedder.encoder, embedder.decoder

    with _progress(shown=not as_json) as progress:
        verification = verify_bank(
            path,
            open_bank=lambda stored: FaissBank(stored, loaded.settings.bank),
            open_encoder=None if no_encoder else open_encoder,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(verification_object(path, verification), indent=2))
    else:
        show_verification(path, verification)
    return EXIT_FOUND if verification.findings else EXIT_OK


def _make(make: "Callable[..., BuildReport]", *, as_json: bool) -> int:
    from worker.bank.build import TooManySkipped  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.cli.bank_views import (  # noqa: PLC0415 - likewise
        refusal_object,
        report_object,
        show_refusal,
        show_report,
    )

    try:
        with _progress(shown=not as_json) as progress:
            report = make(progress=progress)
    except TooManySkipped as refusal:
        if as_json:
            click.echo(json.dumps(refusal_object(str(refusal), refusal.skipped), indent=2))
        else:
            show_refusal(refusal.skipped)
        raise
    if as_json:
        click.echo(json.dumps(report_object(report), indent=2))
    else:
        show_report(report)
    return EXIT_OK


def _question(labels: str | None, positive: str | None) -> "Question":
    from worker.bank.manifest import GENERATED, Question  # noqa: PLC0415 - pydantic models; --help needs none

    if labels is None and positive is None:
        return GENERATED
    if labels is not None and positive is None:
        raise ConfigInvalid(f"--labels {labels} needs --positive: which of them does a verdict's score speak of?")
    names = GENERATED.labels if labels is None else tuple(name.strip() for name in labels.split(","))
    try:
        return Question(labels=names, positive=positive or "")
    except ValidationError as fault:
        problems = "; ".join(error["msg"] for error in fault.errors(include_url=False))
        raise ConfigInvalid(f"--labels {','.join(names)} --positive {positive}: {problems}") from fault


def _label_map(pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, sign, label) in zip(pairs, split, strict=True) if not (name and sign and label)]:
        raise ConfigInvalid(f"--label-map {wrong[0]}: expected NAME=LABEL, such as fakes=ai_generated")
    return {name: label for name, _, label in split}


def _open_embedder(settings: Settings) -> "ReferenceEmbedder":
    """
    The configured encoder and decoder; no perceptual hash, since a bank keeps none.
    """
    from worker.adapters.clip_encoder import load_encoder  # noqa: PLC0415 - torch takes seconds to import
    from worker.bank.embedding import ReferenceEmbedder  # noqa: PLC0415 - likewise
    from worker.stages.decode import DecodeLimits, PillowDecoder  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    encoder = load_encoder(settings.encoder, InMemoryRecorder())
    limits = DecodeLimits(formats=settings.decode.formats, max_pixels=settings.decode.max_pixels)
    decoder = PillowDecoder(encoder.fingerprint.preprocess, limits, None)
    return ReferenceEmbedder(encoder, decoder, settings.batch.size, settings.decode.threads)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """
    A bar per kind of work, on stderr and only on a terminal; called with what, how many, of how many.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report
