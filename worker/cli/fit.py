"""
``touchstone fit``: train all heads of a bank, weigh and calibrate them, and release the bank with the outcome.

Options, exit codes and what is shown; the work is ``worker.fitting``.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from worker.cli.embedders import open_embedder
from worker.cli.options import settings_options, sha256_text
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.fitting.bank_fit import BankFit, CalibrationSet
    from worker.fitting.fit import FitPlan
    from worker.fitting.head_rows import Row
    from worker.heads.head import Head

_PROBABILITY = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR|CSV",
    help="Labelled pictures that are not in BANK, laid out as for `bank build`; "
    "they alone then carry the false-positive bound.",
)
@click.option(
    "--alpha", type=_PROBABILITY, help="The false-positive rate that must be supported; else nothing is done."
)
@click.option("--pac-delta", type=_PROBABILITY, help="With --alpha: in all but this share of calibrations.")
@click.option("--head", "heads", multiple=True, metavar="NAME", help="Include this head alone; may be repeated.")
@click.option(
    "--legacy-probe",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="fc_weights.pth of UniversalFakeDetect, for its own encoder: included as head probe_ufd.",
)
@click.option(
    "--weights-sha256",
    multiple=True,
    type=sha256_text,
    metavar="HEX",
    help="What the file of --legacy-probe must have; another file is refused. May be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--version", help="Version of the fitted bank. Default: the old one's last number plus one.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the fitted bank goes. Default: in place of BANK.")
@click.option("--replace", is_flag=True, help="Take the place of a bank that is at --out already, in one step.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@settings_options
def fit(path: Path, *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Fit the heads of BANK, what each weighs and what their sum means, and release BANK with them as its next version.

    Without --calibration the bank's own references say what a score means, each judged by heads that had not seen its
    generator or source; no encoder is needed then. A worker that runs keeps the bank it loaded; restart it to use the
    new one. What --out leaves may first judge beside the live heads, over the live bank: name it with
    shadow.judgement_path.
    """
    from worker.fitting.bank_fit import Release, fit_bank  # noqa: PLC0415 - scikit-learn takes its time to import
    from worker.fitting.fit import FitPlan  # noqa: PLC0415 - likewise

    if options["pac_delta"] is not None and options["alpha"] is None:
        raise ConfigInvalid("--pac-delta says how sure --alpha must be; give --alpha too")
    plan = FitPlan(
        seed=options["seed"],
        heads=options["heads"] or None,
        alpha=options["alpha"],
        delta=options["pac_delta"],
        ready=_legacy_probe(path, options["legacy_probe"], options["weights_sha256"]),
    )
    release = Release(out=options["out"], version=options["version"], replace=options["replace"])
    calibration = calibration_set(path, options["calibration"], loaded)
    with progress_bars(shown=not as_json) as progress:
        done = fit_bank(path, plan=plan, calibration=calibration, release=release, progress=progress)
    if as_json:
        click.echo(json.dumps(fit_object(done, options["out"] or path), indent=2, allow_nan=False))
    else:
        show_fit(done, options["out"] or path, plan)
    return EXIT_OK


def _legacy_probe(path: Path, probe: Path | None, expected: tuple[str, ...]) -> "tuple[Head, ...]":
    if probe is None:
        return ()
    from worker.adapters.probe_file import read_probe_file  # noqa: PLC0415 - torch takes seconds to import
    from worker.bank.files import read_manifest  # noqa: PLC0415 - pydantic models; --help needs none

    return (read_probe_file(probe, dim=read_manifest(path).encoder.dim, expected=expected),)


def calibration_set(path: Path, source: Path | None, loaded: LoadedSettings) -> "CalibrationSet | None":
    """
    The labelled pictures of a folder or CSV file, and the configured encoder for them; None where no source is given.
    """
    if source is None:
        return None
    from worker.bank.files import read_manifest  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise
    from worker.fitting.bank_fit import CalibrationSet, check_question  # noqa: PLC0415 - scikit-learn

    manifest = read_manifest(path)
    check_question(manifest)
    listing = list_source(source, manifest.question)
    return CalibrationSet(listing, open_embedder(loaded.settings, manifest.views.spec()))


def fit_object(done: "BankFit", path: Path) -> dict[str, Any]:
    """
    What ``fit --json`` prints.
    """
    manifest, judgement = done.bank.manifest, done.report.judgement
    return {
        "path": str(path),
        "id": manifest.id,
        "version": manifest.version,
        "manifest_sha256": done.bank.manifest_sha256,
        "judgement": {"id": judgement.id, "version": judgement.version},
        "calibrated_on": judgement.calibrated_on,
        "calibration_reals": len(judgement.reals.bucket),
        "smallest_alpha": judgement.smallest_alpha,
        "views": list(judgement.views),
        "heads": {row.name: _row_object(row) for row in done.report.table if row.name != "fused"},
        "fused": _row_object(done.report.table[-1]),
        "notes": list(done.report.notes),
        "skipped": [{"name": one.name, "code": one.code, "detail": one.detail} for one in done.skipped],
    }


def show_fit(done: "BankFit", path: Path, plan: "FitPlan") -> None:
    """
    The outcome of a fit for people.
    """
    from worker.heads.probe import LegacyProbe  # noqa: PLC0415 - numpy; --help needs none

    manifest, judgement = done.bank.manifest, done.report.judgement
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(_table(done))
    reals = len(judgement.reals.bucket)
    supported = f"smallest false-positive rate that can be asked for: {judgement.smallest_alpha:.2g}"
    lines = [
        f"bank {manifest.id} {manifest.version} at {path}",
        f"judgement {judgement.id}",
        f"calibrated on {reals} real pictures ({judgement.calibrated_on.replace('_', ' ')}); {supported}",
    ]
    if plan.alpha is not None:
        threshold = judgement.flag_threshold(plan.alpha, plan.delta, "all")
        sure = "" if plan.delta is None else f" with confidence {1 - plan.delta:.4g}"
        lines.append(
            f"a false-positive rate of {plan.alpha:g}{sure} is kept by flagging p-values up to {threshold:.4g}"
        )
    lines += [f"weights of {one.name}: sha256 {one.sha256}" for one in plan.ready if isinstance(one, LegacyProbe)]
    lines += [f"note: {note}" for note in done.report.notes]
    lines += [f"{one.name}: {one.code}: {one.detail}" for one in done.skipped]
    for line in lines:
        console.print("".join(character if character.isprintable() else "\ufffd" for character in line))


def _table(done: "BankFit") -> Table:
    divided = len(done.report.folds.notes)
    but = f", but for {divided} too large or too few that were divided by content (see the notes)" if divided else ""
    title = f"on references judged without their fold: whole generators and whole sources of reals{but}"
    table = Table(title=title, title_justify="left")
    for name in ("head", "AP", "AUROC", "balanced accuracy", "direction", "weight", "could not say"):
        table.add_column(name, justify="left" if name == "head" else "right")
    for row in done.report.table:
        direction = "" if row.direction is None else "turned" if row.direction < 0 else "as given"
        weight = "" if row.weight is None else f"{row.weight:.3f}"
        numbers = tuple("" if math.isnan(x) else f"{x:.3f}" for x in (row.ap, row.auroc, row.balanced_accuracy))
        table.add_row(row.name, *numbers, direction, weight, f"{row.missing:.0%}")
    return table


def _row_object(row: "Row") -> dict[str, Any]:
    return {
        "ap": _finite(row.ap),
        "auroc": _finite(row.auroc),
        "balanced_accuracy": _finite(row.balanced_accuracy),
        "missing": row.missing,
        **({} if row.weight is None else {"direction": row.direction, "weight": row.weight}),
    }


def _finite(value: float) -> float | None:
    """
    None for a number that JSON does not have.
    """
    return value if math.isfinite(value) else None
