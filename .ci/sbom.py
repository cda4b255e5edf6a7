#!/usr/bin/env python3
"""
Bills of materials (CycloneDX 1.6, JSON) of what the locks name, written by cyclonedx-py to ``dist/``. No network.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {"requirements.lock": "sbom.cdx.json", "requirements-dev.lock": "sbom-dev.cdx.json"}


def write(lock: str, bill: Path) -> None:
    """
    The bill of one lock. Raises ``CalledProcessError``.
    """
    bill.parent.mkdir(parents=True, exist_ok=True)
    tool = [sys.executable, "-m", "cyclonedx_py", "requirements", lock]
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--spec-version", "1.6", "--of", "JSON"]
    subprocess.run([*tool, *options, "--output-file", str(bill)], cwd=ROOT, check=True)  # noqa: S603 - our own command


def main() -> int:
    """
    Writes both, to ``dist/`` or to the folder that is given.
    """
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    for lock, name in LOCKS.items():
        write(lock, folder / name)
        print(f"{lock}: {folder / name}")  # noqa: T201 - it is a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
