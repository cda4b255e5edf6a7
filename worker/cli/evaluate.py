"""
``touchstone evaluate``: how good the judgement is on pictures that it was not fitted on.

Options and exit codes only; what is measured is ``worker.evaluation``.
"""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from worker.cli.embedders import embedder_opener
from worker.cli.options import settings_options, sha256_text
from worker.cli.progress_bars import Report, progress_bars
from worker.errors import EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.embedding import ReferenceEmbedder
    from worker.evaluation.as_it_is import BankAsItIs
    from worker.evaluation.fitted import FitFold
    from worker.evaluation.run import EvaluationPlan
    from worker.heads.probe import LegacyProbe
    from worker.views import ViewSpec

_TERMINAL_COLUMNS = 200
_OF_BANK = {"split", "heldout_tier", "reencode", "max_side", "crops", "originals", "robustness", "robustness_limit"}
_OF_BANK |= {"teaching", "taught", "draws", "seed", "peers", "out"}
_OF_UFD = {"also"}
_OF_FITTING = {"split", "reencode", "max_side", "crops", "originals", "teaching", "taught", "legacy_probe"}
"""What a bank that is measured as it is has decided already."""


def evaluation_options(command: Callable[..., int]) -> Callable[..., int]:
    """
    What is measured, and on which footing.
    """
    options = [
        click.option(
            "--split",
            type=click.Choice(["source", "generator"]),
            default="source",
            show_default=True,
            help="What is held out at a time: a source that has both labels, or a generator with a share of the reals.",
        ),
        click.option("--heldout-tier", help="Hold out only sources of this tier (the CSV file's column tier)."),
        click.option(
            "--reencode",
            type=click.IntRange(0, 100),
            default=90,
            show_default=True,
            help="JPEG quality that every picture goes through; 0: the files as they are, formats and all.",
        ),
        click.option(
            "--max-side",
            type=click.IntRange(min=0),
            default=1024,
            show_default=True,
            help="Longer pictures are reduced to it before; 0: no limit.",
        ),
        click.option(
            "--crops", type=click.IntRange(0, 16), default=2, show_default=True, help="Native-resolution crops."
        ),
        click.option("--originals/--no-originals", default=True, help="Measure the plain files beside. Default: on."),
        click.option("--robustness/--no-robustness", default=True, help="The sweep of perturbations. Default: on."),
        click.option(
            "--robustness-limit",
            type=click.IntRange(min=2),
            default=200,
            show_default=True,
            help="Held-out pictures in the sweep, drawn at random.",
        ),
        click.option("--teaching/--no-teaching", default=True, help="The curve of a taught generator. Default: on."),
        click.option(
            "--teach",
            "taught",
            metavar="NAME",
            multiple=True,
            help="The generator to teach; may be repeated. Default: the two with most pictures.",
        ),
        click.option(
            "--bootstrap", "draws", type=click.IntRange(10), default=1000, show_default=True, help="Bootstrap draws."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@click.command()
@click.argument("source", metavar="DIR|CSV", type=click.Path(path_type=Path))
@evaluation_options
@click.option(
    "--layout",
    type=click.Choice(["bank", "ufd"]),
    default="bank",
    show_default=True,
    help="ufd: DIR holds the test sets of UniversalFakeDetect, and so may every --also; --bank is asked by the paper's "
    "rule.",
)
@click.option(
    "--also",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A further folder of test sets, for --layout ufd. May be repeated.",
)
@click.option(
    "--bank",
    "bank_path",
    type=click.Path(path_type=Path),
    help="Measure this bank as it is, with its own judgement and views; nothing is fitted, and pictures that it holds "
    "are left out. `starter` is the one that ships. With --layout ufd: the bank to ask by the paper's rule.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Weights of a Tiny-LaDeDa to measure beside, on the same pictures. May be repeated.",
)
@click.option(
    "--legacy-probe",
    type=click.Path(path_type=Path),
    help="The authors' fc_weights.pth, measured beside as probe_ufd and one of the fused heads.",
)
@click.option(
    "--weights-sha256",
    multiple=True,
    type=sha256_text,
    metavar="HEX",
    help="What a file of --peer or --legacy-probe must have; another file is refused. May be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write a self-contained HTML report here.")
@click.option("--work", type=click.Path(path_type=Path), help="Where embeddings are kept. Default: the user's cache.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@settings_options
def evaluate(source: Path, *, loaded: LoadedSettings, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Measure every head and the fused judgement on labelled pictures, each judged by a fit that saw none of its kind.

    DIR or CSV are as for `bank build`; a CSV file may have a column tier. Pictures are embedded once and found again
    by the next run. Each fold fits a judgement on the rest, with the policy of the settings; nothing is put anywhere
    but in --work and --out.
    """
    _refuse_idle_options(options["layout"], as_it_is=options["bank_path"] is not None)
    work = options["work"] or _cache_folder()
    with progress_bars(shown=not as_json) as progress:
        if options["layout"] == "ufd":
            return _ufd(source, loaded.settings, options, work=work, as_json=as_json, progress=progress)
        return _evaluate(source, loaded.settings, options, work=work, as_json=as_json, progress=progress)


def _evaluate(
    source: Path, settings: Settings, options: dict[str, Any], *, work: Path, as_json: bool, progress: Report
) -> int:
    from worker.adapters.tiny_ladeda import TinyLadeda  # noqa: PLC0415 - torch takes seconds to import
    from worker.evaluation.dataset import load_dataset  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.evaluation.fitted import FitFold  # noqa: PLC0415 - scikit-learn takes its time to import
    from worker.evaluation.json_view import evaluation_object  # noqa: PLC0415 - likewise
    from worker.evaluation.run import Tools  # noqa: PLC0415 - likewise
    from worker.evaluation.run import evaluate as run  # noqa: PLC0415 - likewise
    from worker.evaluation.tables import show_evaluation  # noqa: PLC0415 - likewise
    from worker.fitting.fit import FitPlan  # noqa: PLC0415 - likewise
    from worker.instruments import policy_path  # noqa: PLC0415 - likewise
    from worker.policy import load_policy  # noqa: PLC0415 - likewise

    out: Path | None = options["out"]
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigInvalid(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    policy = load_policy(policy_path(settings.policy))
    open_embedder = embedder_opener(settings)
    ready = _ready(options, open_embedder)
    peers = [TinyLadeda(path, expected=options["weights_sha256"]) for path in options["peers"]]
    loaded = {head.name: head.sha256 for head in ready} | {peer.name: peer.sha256 for peer in peers}
    fit = FitFold(policy.rule, policy.for_surface(None)[1], FitPlan(seed=options["seed"], ready=ready))
    plan, bank = _plan(options), None
    if options["bank_path"] is not None:
        plan, bank = _as_it_is(options["bank_path"], plan, fit, open_embedder)
    tools = Tools(
        open_embedder=open_embedder,
        fit=fit,
        bank=bank,
        alpha=policy.rule.alpha,
        guarantee=policy.rule.guarantee,
        work=work,
        peers=tuple(peers),
        progress=progress,
    )
    found = run(load_dataset(source, progress), plan, tools)
    if out is not None:
        from worker.evaluation.report import write_report  # noqa: PLC0415 - matplotlib takes seconds to import

        write_report(found, out)
    if as_json:
        click.echo(json.dumps({**evaluation_object(found), "weights": loaded}, indent=2, allow_nan=False))
    else:
        show_evaluation(found, _console())
        for name, sha256 in loaded.items():
            click.echo(f"weights of {name}: sha256 {sha256}")
        if out is not None:
            click.echo(f"report: {out}")
    return EXIT_OK


def _ufd(
    source: Path, settings: Settings, options: dict[str, Any], *, work: Path, as_json: bool, progress: Report
) -> int:
    from dataclasses import replace  # noqa: PLC0415 - with the rest

    from worker.bank.files import load_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.fit import check_fit  # noqa: PLC0415 - likewise
    from worker.evaluation.embedding import Embedder  # noqa: PLC0415 - likewise
    from worker.evaluation.json_view import ufd_object  # noqa: PLC0415 - likewise
    from worker.evaluation.tables import ufd_table  # noqa: PLC0415 - likewise
    from worker.evaluation.ufd import evaluate_ufd  # noqa: PLC0415 - likewise

    if options["bank_path"] is None:
        raise ConfigInvalid("--layout ufd asks a bank by the paper's rule: name it with --bank DIR")
    bank = load_bank(options["bank_path"])
    open_embedder = embedder_opener(settings)
    probing = open_embedder(bank.views)
    check_fit(bank, probing.encoder, probing.decoder)
    # Of the bank's views only the middle crop is asked; size limit and re-encoding must be the bank's.
    views = replace(bank.views, native_crops=1, realism=False, perturbation=False)
    probe = next(iter(_ready(options, open_embedder)), None)
    embed = Embedder(open_embedder(views), work, progress)
    table = evaluate_ufd((source, *options["also"]), bank, embed, probe=probe, progress=progress)
    if as_json:
        click.echo(json.dumps(ufd_object(table), indent=2, allow_nan=False))
    else:
        console = _console()
        console.print(ufd_table(table))
        for name, reason in table.absent.items():
            console.print(f"not there, and not in the mean: {name} ({reason})", soft_wrap=True, markup=False)
    return EXIT_OK


def _as_it_is(
    path: Path, plan: "EvaluationPlan", terms: "FitFold", open_embedder: "Callable[[ViewSpec], ReferenceEmbedder]"
) -> "tuple[EvaluationPlan, BankAsItIs]":
    """
    The bank with its judgement, and the plan with its views. Raises ``ConfigInvalid`` for one that was never fitted.
    """
    from dataclasses import replace  # noqa: PLC0415 - with the rest

    from worker.bank.files import load_bank  # noqa: PLC0415 - numpy and pydantic models; --help needs none
    from worker.bank.fit import check_fit  # noqa: PLC0415 - likewise
    from worker.evaluation.as_it_is import BankAsItIs  # noqa: PLC0415 - scikit-learn takes its time to import
    from worker.shipped import STARTER, STARTER_BANK  # noqa: PLC0415 - with the rest
    from worker.whole_banks import judgement_of  # noqa: PLC0415 - likewise

    if str(path) == STARTER and not path.exists():
        path = STARTER_BANK
    stored = load_bank(path)
    probing = open_embedder(stored.views)
    check_fit(stored, probing.encoder, probing.decoder)
    judgement = judgement_of(stored, path)
    if judgement is None:
        raise ConfigInvalid(f"bank {path} carries no fitted judgement to measure: run `touchstone fit {path}` first")
    views = stored.views
    plan = replace(
        plan,
        crops=views.native_crops,
        max_side_px=views.max_side_px,
        reencode_quality=views.reencode_quality,
        originals=False,
    )
    return plan, BankAsItIs(judgement, stored.references(), terms)


def _refuse_idle_options(layout: str, *, as_it_is: bool) -> None:
    """
    An option that the layout would pass over in silence is refused.
    """
    context = click.get_current_context()
    given = [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    other = _OF_BANK if layout == "ufd" else _OF_UFD
    if layout == "bank" and as_it_is:
        other = other | _OF_FITTING
    idle = [parameter.opts[0] for parameter in given if parameter.name in other]
    if idle:
        measured = f"--layout {layout}" + (" and --bank" if as_it_is else "")
        raise ConfigInvalid(f"{', '.join(idle)} does nothing with {measured}; leave it out")


def _ready(
    options: dict[str, Any], open_embedder: "Callable[[ViewSpec], ReferenceEmbedder]"
) -> "tuple[LegacyProbe, ...]":
    path, expected = options["legacy_probe"], options["weights_sha256"]
    if path is None:
        return ()
    from worker.adapters.probe_file import read_probe_file  # noqa: PLC0415 - torch takes seconds to import
    from worker.views import ViewSpec  # noqa: PLC0415 - with the rest

    dim = open_embedder(ViewSpec()).encoder.fingerprint.dim
    return (read_probe_file(path, dim=dim, expected=expected),)


def _plan(options: dict[str, Any]) -> "EvaluationPlan":
    from worker.evaluation.run import EvaluationPlan  # noqa: PLC0415 - scikit-learn takes its time to import

    return EvaluationPlan(
        split=options["split"],
        heldout_tier=options["heldout_tier"],
        crops=options["crops"],
        max_side_px=options["max_side"] or None,
        reencode_quality=options["reencode"] or None,
        originals=options["originals"],
        robustness=options["robustness"],
        robustness_limit=options["robustness_limit"],
        teaching=options["teaching"],
        taught=options["taught"],
        draws=options["draws"],
        seed=options["seed"],
    )


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "touchstone" / "evaluation"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_TERMINAL_COLUMNS)
