"""
What the bank commands are told on the command line, and what it means; nothing is done here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from pydantic import ValidationError

from worker.errors import ConfigInvalid

if TYPE_CHECKING:
    from worker.bank.manifest import Question
    from worker.views import ViewSpec

Command = Callable[..., int]

FIT_OPTION: Final = click.option(
    "--fit/--no-fit",
    "fit",
    default=True,
    help="Fit the judgement of a bank that has one again; without, the new bank has none. Default: --fit.",
)

CALIBRATION_OPTION: Final = click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR|CSV",
    help="With --fit: labelled pictures that are not in BANK, as for `touchstone fit`. A bank does not keep them: "
    "give them again where it was calibrated on such.",
)


def source_options(command: Command) -> Command:
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


def view_options(command: Command) -> Command:
    """
    The options that say what is looked at of every picture.
    """
    options = [
        click.option(
            "--crops",
            "native_crops",
            type=click.IntRange(0, 64),
            default=4,
            show_default=True,
            help="Native-resolution crops of each picture; each costs one forward through the encoder.",
        ),
        click.option(
            "--perturbation/--no-perturbation",
            "perturbation",
            default=True,
            help="How far noise, blur and sharpening move each embedding: six forwards per picture. A worker pays them "
            "only for uploads that the cheap heads leave in doubt. Default: --perturbation.",
        ),
        click.option(
            "--realism/--no-realism",
            "realism",
            default=True,
            help="Five statistics of the pixels at 512 x 512: no forward. Default: --realism.",
        ),
        click.option(
            "--max-side",
            "max_side_px",
            type=click.IntRange(64, 16_384),
            metavar="PX",
            help="Reduce longer pictures of every label to this side first. Default: as they are.",
        ),
        click.option(
            "--reencode",
            "reencode_quality",
            type=click.IntRange(1, 100),
            metavar="QUALITY",
            help="Put every picture, whatever its format and label, through one JPEG of this quality. Default: do not.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def one_kind_options(command: Command) -> Command:
    """
    The options by which images are added that are all of one kind.
    """
    options = [
        click.option("--label", help="Every SOURCE is an image or a folder of images of this label of the bank."),
        click.option("--generator", metavar="NAME", help="With --label: what made them."),
        click.option("--source", "source", metavar="NAME", help="With --label: where they were collected."),
        click.option("--licence", metavar="NAME", help="With --label: under what they may be used."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def views(options: Mapping[str, Any]) -> "ViewSpec":
    """
    The views that the options ask for.
    """
    from worker.views import ViewSpec  # noqa: PLC0415 - numpy; --help needs none

    names = ("native_crops", "realism", "perturbation", "max_side_px", "reencode_quality")
    return ViewSpec(**{name: options[name] for name in names})


def question(labels: str | None, positive: str | None) -> "Question":
    """
    The question that ``--labels`` and ``--positive`` ask, or the shipped one. Raises ``ConfigInvalid``.
    """
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


def label_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """
    What each ``NAME=LABEL`` means. Raises ``ConfigInvalid``.
    """
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, sign, label) in zip(pairs, split, strict=True) if not (name and sign and label)]:
        raise ConfigInvalid(f"--label-map {wrong[0]}: expected NAME=LABEL, such as fakes=ai_generated")
    return {name: label for name, _, label in split}
