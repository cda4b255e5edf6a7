"""
How `make promtool` gets promtool, with an apt-get and a dpkg-deb that do as each test says; no network is asked.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT

SCRIPT: Final = Path("docker", "prometheus", "fetch_promtool.sh")
NEEDED: Final = ("bash", "dirname", "mkdir", "rm", "mv", "mktemp", "touch", "cat", "chmod")
NO_NETWORK: Final = "echo cannot reach mirror.example >&2; exit 100"
DOWNLOADS: Final = "echo a package > prometheus_1_all.deb"
ONLY_OWN_LISTS: Final = f'case "$*" in *Dir::State=*) {DOWNLOADS};; *) exit 100;; esac'
UNPACKS: Final = (
    'mkdir -p "$3/usr/bin"; printf "#!/bin/sh\\necho promtool, version 1\\n" > "$3/usr/bin/promtool"; '
    'chmod +x "$3/usr/bin/promtool"'
)


class Machine:
    """
    A checkout with nothing but the script, and a machine that has no other programs than those given to it.
    """

    def __init__(self, folder: Path) -> None:
        self.checkout, self.programs = folder / "checkout", folder / "programs"
        (self.checkout / SCRIPT).parent.mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(ROOT / SCRIPT, self.checkout / SCRIPT)
        for name in NEEDED:
            program = shutil.which(name)
            assert program is not None
            (self.programs / name).symlink_to(program)

    def has(self, name: str, does: str) -> None:
        """
        Put a program on PATH that does so.
        """
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def run(self) -> str:
        """
        What the script says; it must end well.
        """
        ran = subprocess.run(
            [self.programs / "bash", self.checkout / SCRIPT],
            env={"PATH": str(self.programs), "TMPDIR": str(self.programs.parent)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    @property
    def why_not(self) -> str | None:
        """
        The reason that was left for the tests.
        """
        reason = self.checkout / ".tools" / "no-promtool"
        return reason.read_text() if reason.exists() else None

    @property
    def promtool(self) -> Path:
        """
        Where promtool is left.
        """
        return self.checkout / ".tools" / "promtool"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """
    A machine with `timeout`, and with neither apt-get nor dpkg-deb.
    """
    made = Machine(tmp_path)
    made.has("timeout", 'shift; exec "$@"')
    return made


def test_a_machine_without_apt_leaves_the_reason(machine: Machine) -> None:
    """
    As on any system that is not Debian's: nothing fails, and the tests are told why.
    """
    said = machine.run()

    assert "this machine has no apt-get\n" == machine.why_not
    assert "this machine has no apt-get" in said
    assert not machine.promtool.exists()


def test_a_machine_without_network_leaves_the_reason(machine: Machine) -> None:
    """
    What apt says of its servers is not passed on.
    """
    machine.has("apt-get", NO_NETWORK)
    machine.has("dpkg-deb", UNPACKS)
    said = machine.run()

    assert machine.why_not is not None
    assert "apt-get cannot download the package prometheus" in machine.why_not
    assert "mirror.example" not in said + machine.why_not
    assert not machine.promtool.exists()


@pytest.mark.parametrize("apt", [DOWNLOADS, ONLY_OWN_LISTS], ids=["lists-of-the-machine", "lists-of-our-own"])
def test_promtool_is_taken_out_of_the_package(machine: Machine, apt: str) -> None:
    """
    Also where the machine has no lists of packages; a reason from before is gone, and so is what was downloaded.
    """
    machine.run()
    machine.has("apt-get", apt)
    machine.has("dpkg-deb", UNPACKS)
    machine.run()
    left = sorted(path.name for path in machine.programs.parent.iterdir())

    assert machine.why_not is None
    assert os.access(machine.promtool, os.X_OK)
    assert ["checkout", "programs"] == left


def test_a_package_that_does_not_unpack_leaves_the_reason(machine: Machine) -> None:
    """
    A damaged download is no failure of the checkout.
    """
    machine.has("apt-get", DOWNLOADS)
    machine.has("dpkg-deb", "exit 2")
    machine.run()

    assert machine.why_not is not None
    assert "does not run on this machine" in machine.why_not


@pytest.mark.parametrize("where", ["tools", "path"])
def test_one_that_is_there_is_left_alone(machine: Machine, where: str) -> None:
    """
    Nothing is downloaded where promtool is there already.
    """
    machine.has("apt-get", "touch asked; exit 100")
    machine.has("dpkg-deb", UNPACKS)
    if where == "path":
        machine.has("promtool", "exit 0")
    else:
        machine.promtool.parent.mkdir()
        machine.promtool.write_text("#!/bin/sh\n")
        machine.promtool.chmod(0o755)

    assert "" == machine.run()
    assert machine.why_not is None
    assert not (machine.checkout / "asked").exists()
