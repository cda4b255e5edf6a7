"""
``touchstone bank``: build, extend, inspect and verify banks of references.

Options and exit codes only. The work is done in ``worker.bank``, what is shown is made in ``worker.cli.bank_views``;
the commands on releases are in ``worker.cli.bank_releases``.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.bank_engine import chosen_engine, engine_options
from worker.cli.bank_index import index
from worker.cli.bank_options import (
    CALIBRATION_OPTION,
    FIT_OPTION,
    label_map,
    one_kind_options,
    question,
    source_options,
    view_options,
    views,
)
from worker.cli.bank_releases import activate, announce, disable, publish, releases, rollback
from worker.cli.bank_signing import keygen, sign
from worker.cli.embedders import open_embedder
from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.bank.assemble import BuildReport
    from worker.bank.embedding import ReferenceEmbedder
    from worker.bank.manifest import Question
    from worker.bank.sources import Listing
    from worker.fitting.bank_fit import Teacher
    from worker.ports import Encoder, PictureDecoder
    from worker.views import ViewSpec


@click.group()
def bank() -> None:
    """
    Build, extend, inspect and verify banks of references.
    """


@bank.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bank directory to make.")
@click.option("--id", "bank_id", help="Name of the bank in every verdict. Default: the directory's name.")
@click.option("--version", "version", default="1", show_default=True, help="Version of the bank in every verdict.")
@click.option("--labels", help="Labels of a question of your own, such as spam,ham. Default: real,ai_generated.")
@click.option("--positive", "--question", "positive", help="The label that a verdict's score speaks of.")
@view_options
@source_options
@engine_options
@settings_options
def build(source: Path, out: Path, *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Build a bank from SOURCE and put it at --out, which is never there half-made.

    SOURCE is a folder (real/..., fake/<generator>/..., or 0_real/ and 1_fake/ at any depth) or a CSV file with the
    columns path and label, and if you have them generator, source, licence and sha256; paths are relative to the file.
    A build that was stopped goes on where it was when it is run again. Whoever asks the bank later looks at pictures as
    it was built: each further view of an upload costs a worker the same forwards.
    """
    from worker.bank.build import BuildPlan, build_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise

    asked = question(options["labels"], options["positive"])
    plan = BuildPlan(
        id=options["bank_id"] or out.absolute().name,
        version=options["version"],
        question=asked,
        max_skipped=options["max_skipped"],
        replace=options["replace"],
        restart=options["restart"],
    )
    listing = list_source(source, asked, label_map(options["label_map"]))
    spec = views(options)
    engine = chosen_engine(options, loaded.settings, spec)
    embedder = replace(open_embedder(loaded.settings, spec), engine=engine)
    return _make(partial(build_bank, listing, out, embedder=embedder, plan=plan), as_json=as_json)


@bank.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the new version goes. Default: in place of the old."
)
@click.option("--version", "version", help="Version of the new bank. Default: the old one's last number plus one.")
@one_kind_options
@FIT_OPTION
@CALIBRATION_OPTION
@source_options
@engine_options
@settings_options
def add(path: Path, sources: tuple[Path, ...], *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Make a new version of BANK with more references, seen as the bank's own were.

    With --label (and --generator), each SOURCE is an image file or a folder of images, all of that one kind: this is
    how a new generator is taught. Without, SOURCE is one labelled folder or CSV file, as for `bank build`.
    Where the bank has a fitted judgement it is fitted again, as it was asked for then, and both are put in place in one
    step.
    A worker that runs keeps the bank it loaded; restart it to use the new one, or publish and activate it as a release.
    """
    from worker.bank.build import AddPlan, add_to_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.files import read_manifest  # noqa: PLC0415 - likewise

    plan = AddPlan(
        out=options["out"],
        version=options["version"],
        max_skipped=options["max_skipped"],
        replace=options["replace"],
        restart=options["restart"],
    )
    manifest = read_manifest(path)
    listing = _listing(sources, manifest.question, options)
    spec = manifest.views.spec()
    engine = chosen_engine(options, loaded.settings, spec)
    embedder = replace(open_embedder(loaded.settings, spec), engine=engine)
    calibration = options["calibration"]
    refits = options["fit"] and manifest.judgement is not None
    if calibration is not None and not refits:
        raise ConfigInvalid(
            "--calibration is for fitting again, and "
            + (f"bank {path} has no judgement; run `touchstone fit`" if options["fit"] else "--no-fit was given")
        )
    teacher = _teacher(path, calibration, embedder) if refits else None
    make = partial(add_to_bank, path, listing, embedder=embedder, plan=plan, refit=teacher)
    return _make(make, as_json=as_json, teacher=teacher)


for _command in (activate, announce, disable, index, keygen, publish, releases, rollback, sign):
    bank.add_command(_command)


def _listing(sources: tuple[Path, ...], asked: "Question", options: dict[str, Any]) -> "Listing":
    from worker.bank.sources import OneKind, list_files, list_source  # noqa: PLC0415 - pydantic models; --help needs none

    kind = {name: options[name] for name in ("generator", "source", "licence")}
    if options["label"] is not None:
        if options["label_map"]:
            raise ConfigInvalid("--label says what all images are, --label-map what folders mean: give one of them")
        return list_files(sources, asked, OneKind(options["label"], **kind))
    if given := [f"--{name}" for name, word in kind.items() if word is not None]:
        raise ConfigInvalid(f"{given[0]} says more of images of one kind; it needs --label LABEL too")
    if len(sources) > 1:
        raise ConfigInvalid(
            f"{len(sources)} sources were given without --label; give one labelled folder or CSV file, or say with "
            "--label what all these images are"
        )
    return list_source(sources[0], asked, label_map(options["label_map"]))


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
    Check BANK: files, repeated references, contradicting labels, the configured index of each view, the encoder.

    Exit code 1 when anything is wrong, one line each; an encoder that cannot be opened is wrong without --no-encoder.
    """
    from worker.adapters.faiss_bank import FaissBank  # noqa: PLC0415 - FAISS takes its time to import; --help needs none
    from worker.adapters.faiss_references import FaissReferences  # noqa: PLC0415 - likewise
    from worker.bank.verify import verify_bank  # noqa: PLC0415 - likewise
    from worker.cli.bank_views import show_verification, verification_object  # noqa: PLC0415 - likewise

    def open_encoder(spec: "ViewSpec") -> "tuple[Encoder, PictureDecoder]":
        embedder = open_embedder(loaded.settings, spec)
        return embedder.encoder, embedder.decoder

    with progress_bars(shown=not as_json) as progress:
        verification = verify_bank(
            path,
            open_bank=lambda stored: FaissBank(stored, loaded.settings.bank),
            open_references=FaissReferences,
            open_encoder=None if no_encoder else open_encoder,
            progress=progress,
            trusted=loaded.settings.bank.trusted_keys,
        )
    if as_json:
        click.echo(json.dumps(verification_object(path, verification), indent=2))
    else:
        show_verification(path, verification)
    return EXIT_FOUND if verification.findings else EXIT_OK


def _make(make: "Callable[..., BuildReport]", *, as_json: bool, teacher: "Teacher | None" = None) -> int:
    from worker.bank.assemble import TooManySkipped  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.describe import describe  # noqa: PLC0415 - likewise
    from worker.cli.bank_views import (  # noqa: PLC0415 - likewise
        refusal_object,
        report_object,
        show_refusal,
        show_report,
    )

    try:
        with progress_bars(shown=not as_json) as progress:
            report = make(progress=progress)
    except TooManySkipped as refusal:
        if as_json:
            click.echo(json.dumps(refusal_object(str(refusal), refusal.skipped), indent=2))
        else:
            show_refusal(refusal.skipped)
        raise
    description = describe(report.path, report.bank)
    taught, unusable = (None, ()) if teacher is None else (teacher.report, teacher.skipped)
    if as_json:
        changed = {
            "teaching": None if taught is None else taught.values(),
            "calibration_skipped": [{"name": one.name, "code": one.code, "detail": one.detail} for one in unusable],
        }
        click.echo(json.dumps({**report_object(report, description), **changed}, indent=2, allow_nan=False))
    else:
        lost = [f"calibration, left out: {one.name}: {one.code}: {one.detail}" for one in unusable]
        show_report(report, description, (*lost, *(() if taught is None else taught.lines())))
    return EXIT_OK


def _teacher(path: Path, calibration: Path | None, embedder: "ReferenceEmbedder") -> "Teacher":
    from worker.bank.files import read_manifest  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise
    from worker.fitting.bank_fit import CalibrationSet, Teacher  # noqa: PLC0415 - scikit-learn takes its time to import

    if calibration is None:
        return Teacher(path)
    listing = list_source(calibration, read_manifest(path).question)
    return Teacher(path, calibration=CalibrationSet(listing, embedder))
