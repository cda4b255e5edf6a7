"""
docker/ without Docker: our command line takes what the files say, our settings their variables, and linters agree.

No image is built and nothing is run here: that these files were never run is said in the README.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.conftest import ROOT, missing
from worker.adapters.onnx_unheard import UNHEARD
from worker.cli import touchstone
from worker.settings.load import load_settings

DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
GIVEN = {"BANK": "/somewhere/bank", "WEIGHTS": "/somewhere/weights", "CHECKPOINT_SHA256": "ab" * 32}
"""What whoever runs compose must export; a variable that is not here needs a default in the file."""
STARTER = ROOT / "worker" / "shipped" / "starter"


def instructions() -> list[tuple[str, str]]:
    """
    The Dockerfile's instructions with their arguments, continuation lines joined.
    """
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def arguments_of(word: str) -> list[str]:
    """
    The arguments of every instruction of this kind.
    """
    return [rest for found, rest in instructions() if found == word]


def services() -> dict[str, Any]:
    """
    The services of the compose file, merge keys applied and variables filled in.
    """

    def filled(match: re.Match[str]) -> str:
        name, operator, rest = match["name"], match["operator"], match["rest"]
        assert name in GIVEN or operator == ":-", f"{name} has no default: {rest}"
        return GIVEN.get(name, rest)

    pattern = r"\$\{(?P<name>\w+)(?P<operator>:[-?])(?P<rest>[^}]*)\}"
    found: dict[str, Any] = yaml.safe_load(re.sub(pattern, filled, COMPOSE.read_text()))["services"]
    return found


def ours() -> dict[str, Any]:
    """
    The services that run our image.
    """
    return {name: service for name, service in services().items() if "build" in service}


def parsed(words: Sequence[str]) -> click.Context:
    """
    The command line as the CLI takes it, down to the last subcommand; nothing is run. Raises ``click.UsageError``.
    """
    command: click.Command = touchstone
    context = touchstone.make_context("touchstone", list(words))
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(found.name, rest, parent=context)
    return context


def test_parsing_would_notice_a_wrong_command() -> None:
    """
    An unknown command and an unknown option are refused.
    """
    for wrong in (["serve"], ["run", "--sett", "a=b"], ["topics", "aply"]):
        with pytest.raises(click.UsageError):
            parsed(wrong)


def test_no_library_in_the_image_tells_its_makers_anything() -> None:
    """
    Whatever runs in it: the worker keeps ONNX Runtime silent by itself, and other programs would not.
    """
    assert any(f"{UNHEARD}=1" in rest.split() for rest in arguments_of("ENV"))


def test_there_are_services_of_ours() -> None:
    """
    The checks below are about something.
    """
    assert {"topics", "worker"} == set(ours())
    assert ["run"] == json.loads(arguments_of("CMD")[0])


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_our_command_line_and_settings_take_what_compose_says(name: str) -> None:
    """
    The command parses, and its ``--set`` and the environment are settings that the shipped configuration goes with.
    """
    service = ours()[name]
    context = parsed(service["command"])
    environ = {key: str(value) for key, value in service["environment"].items()}
    loaded = load_settings(
        config=ROOT / "config" / "worker.toml", overlay=None, environ=environ, sets=context.params["sets"]
    )

    assert loaded.settings.kafka.bootstrap_servers == "kafka:9092"
    assert {f"environment {key}" for key in environ} <= set(loaded.origins.values())


def test_worker_in_compose_finds_what_is_mounted() -> None:
    """
    Bank and weights are where the settings look, read-only, and the worker has more time to stop than it needs.
    """
    service = ours()["worker"]
    mounted = [volume.split(":") for volume in service["volumes"]]
    environ = {key: str(value) for key, value in service["environment"].items()}
    sets = parsed(service["command"]).params["sets"]
    settings = load_settings(config=ROOT / "config" / "worker.toml", overlay=None, environ=environ, sets=sets).settings

    assert {str(settings.bank.path), settings.encoder.model.removeprefix("local-dir:")} == {at for _, at, _ in mounted}
    assert {"ro"} == {mode for _, _, mode in mounted}
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.flow.drain_timeout_s
    assert {service["build"]["target"] for service in ours().values()} <= {
        rest.split(" AS ")[1] for rest in arguments_of("FROM")
    }


def test_image_runs_our_command_as_nobody_special() -> None:
    """
    Entry point and default command parse, where the shipped configuration lies; the user is not root.
    """
    entry = json.loads(arguments_of("ENTRYPOINT")[0])
    workdir = arguments_of("WORKDIR")[0]
    context = parsed([*entry[3:], *json.loads(arguments_of("CMD")[0])])

    assert ["python", "-m", "worker"] == entry[:3]
    assert "run" == context.info_name
    assert f"config {workdir}/config" in arguments_of("COPY")
    assert [str(int(user)) for user in arguments_of("USER")] == arguments_of("USER")
    assert "0" not in arguments_of("USER")


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    """
    Each COPY source is in the repository and let through by .dockerignore, and no weights but the starter's.
    """
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [
        source for rest in arguments_of("COPY") if not rest.startswith("--from=") for source in shlex.split(rest)[:-1]
    ]

    assert {"schemas", "worker", "config", "requirements.lock"} == set(sources)
    assert sorted(sources) == sorted(let_through)
    for source in sources:
        assert (ROOT / source).exists()
        weights = [path for path in (ROOT / source).rglob("*.safetensors") if STARTER not in path.parents]
        assert [] == weights


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("hadolint", [str(DOCKERFILE)]), ("yamllint", ["--strict", str(COMPOSE.parent)])],
)
def test_linters_have_nothing_to_say(program: str, arguments: list[str]) -> None:
    """
    Hadolint and yamllint are clean.
    """
    linter = Path(sys.executable).parent / program
    if not linter.exists():
        missing(f"{program} beside the interpreter; install touchstone-worker[test]")
    said = subprocess.run([linter, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)

    assert ("", 0) == (said.stdout + said.stderr, said.returncode)


def requirements(lock: Path) -> Iterator[tuple[str, list[str]]]:
    """
    Each requirement of a lock file with the words that follow it.
    """
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            yield requirement.strip(), [one.strip() for one in hashes]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_pins_versions_and_hashes_and_names_no_registry(name: str) -> None:
    """
    Every requirement has one exact version and sha256 hashes, which pip demands; no line is an option or an address.
    """
    found = list(requirements(ROOT / name))
    pinned = re.compile(r"^[a-z0-9][a-z0-9._-]*==[0-9][\w.+!]*( ; [\w .'<>=!()]+)?$")

    assert len(found) > 50
    assert [] == [requirement for requirement, _ in found if not pinned.match(requirement)]
    assert [] == [
        requirement
        for requirement, hashes in found
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    ]
    assert not re.search(r"://|--(extra-)?index|--find-links| @ ", (ROOT / name).read_text())


@pytest.mark.parametrize(("name", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev", "test"))])
def test_lock_has_all_that_the_project_depends_on(name: str, extras: tuple[str, ...]) -> None:
    """
    A dependency that was added without locking anew is missing from the lock, and found here.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    names = {re.split(r"[\[<>=~! ;]", one)[0].lower().replace("_", "-") for one in wanted}
    locked = {requirement.partition("==")[0] for requirement, _ in requirements(ROOT / name)}

    assert names - locked == set()
