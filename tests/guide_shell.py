"""
What holds the lines of the guide that call other programs than ours: a shell, Docker, pip and Python.

Nothing is downloaded and no container is started: what can be run is run, and of the rest every name is looked up.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

from tests.conftest import ROOT
from tests.guide_lines import OTHERS
from worker.starter.make import make
from worker.starter.upscalers import WHEEL

COMPOSE: Final = ROOT / "docker" / "compose.yaml"
_OF_COMPOSE: Final = {"-f": True, "--file": True, "--profile": True, "-p": True}
"""Options of ``docker compose``, and whether a value follows."""
_OF_SUBCOMMANDS: Final = {
    "up": {"--build", "-d", "--detach", "--wait"},
    "down": {"-v", "--volumes"},
    "logs": {"-f", "--follow"},
}
_WEIGHTS: Final = b"weights"


def exported(line: str, folder: Path) -> None:
    """
    A shell exports just what compose demands: a bank and weights that are there, and the hash of their file.
    """
    (folder / "bank").mkdir()
    (folder / "weights").mkdir()
    (folder / "weights" / "open_clip_model.safetensors").write_bytes(_WEIGHTS)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{line}\nenv"],  # noqa: S607 - whichever bash the reader has
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(one.split("=", 1) for one in ran.stdout.splitlines() if "=" in one)
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))

    assert (0, "") == (ran.returncode, ran.stderr)
    assert demanded == set(re.findall(r"\b(\w+)=", line))
    assert (str(folder / "bank"), str(folder / "weights")) == (found["BANK"], found["WEIGHTS"])
    assert sha256(_WEIGHTS).hexdigest() == found["CHECKPOINT_SHA256"]


def composed(line: str, folder: Path) -> None:
    """
    Files, profiles, options and services of a line for Docker are there, and what it builds can be built.
    """
    del folder
    options, rest = _options_of(shlex.split(line))
    files = [ROOT / name for option, name in options if option in {"-f", "--file"}] or [COMPOSE]
    services: dict[str, Any] = {}
    for file in files:
        assert file.is_file(), f"{line}: there is no {file.name}"
        services |= yaml.safe_load(file.read_text())["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", ())}

    assert {name for option, name in options if option == "--profile"} <= profiles
    if not rest:
        return
    given = {word for word in rest[1:] if word.startswith("-")}

    assert given <= _OF_SUBCOMMANDS[rest[0]]
    assert {*rest[1:]} - given <= services.keys()
    assert "--build" not in given or any("build" in service for service in services.values())


def _options_of(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    assert ["docker", "compose"] == [*words[:2]], f"{words}: nothing holds this command of Docker"
    options, rest = [], [*words[2:]]
    while rest and rest[0].startswith("-"):
        option, sign, name = rest.pop(0).partition("=")
        assert option in _OF_COMPOSE, f"{option} is no option of docker compose"
        options.append((option, name if sign else rest.pop(0)))
    return options, rest


def installed(line: str, folder: Path) -> None:
    """
    The subcommand and its options are pip's, and what is named is what the starter is made with.
    """
    _, subcommand, *words = shlex.split(line)
    asked = [sys.executable, "-m", "pip", subcommand, "--help"]
    ran = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False)
    name, version = WHEEL.split("-")[:2]
    wanted = {"ncnn", f"{name.replace('_', '-')}=={version}"}
    # The word behind -d is a folder.
    named = [word for at, word in enumerate(words) if not word.startswith("-") and words[at - 1 : at] != ["-d"]]

    assert 0 == ran.returncode, ran.stderr
    assert {word for word in words if word.startswith("-")} <= set(re.findall(r"(?<!\S)--?[\w-]+", ran.stdout))
    assert {*named} <= wanted
    assert "import ncnn" in (ROOT / "worker" / "starter" / "upscalers.py").read_text()


def evaluated(line: str, folder: Path) -> None:
    """
    The program on the line runs, and names archives one a line, among them what the next line downloads.
    """
    words = shlex.split(line)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    first_words = {told.split()[0] for told in ran.stdout.splitlines()}

    assert 0 == ran.returncode, ran.stderr
    assert {"git", "pip", "npm"} >= first_words >= {"git"}


def starter_made(line: str, folder: Path) -> None:
    """
    The module's own command takes the line: nothing is run.
    """
    _, _, module, *words = shlex.split(line)
    for name in ("data", "archives"):
        (folder / name).mkdir()
    there = {"../shared/data": str(folder / "data"), "archives/": str(folder / "archives")}
    context = make.make_context("make", [there.get(word, word) for word in words])

    assert "worker.starter.make" == module
    assert folder / "archives" == context.params["archives"]


RULES: Final[Mapping[str, Callable[[str, Path], None]]] = {
    "export ": exported,
    "docker ": composed,
    "pip ": installed,
    "python -c ": evaluated,
    "python -m worker.starter.make ": starter_made,
}
"""By how a line begins."""


def rules_for(line: str) -> list[Callable[[str, Path], None]]:
    """
    What holds this line; one and no more, or nothing does.
    """
    return [rule for begin, rule in RULES.items() if line.startswith(begin)]


UNHELD: Final = tuple(line for line in OTHERS if len(rules_for(line)) != 1)
