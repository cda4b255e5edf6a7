#!/usr/bin/env python3
"""
Known vulnerabilities of what the locks name, by pip-audit; ``audit-accepted.toml`` holds what is accepted till a day.

A service that cannot be reached is said and does no harm: 0. A vulnerability that is not accepted: 1.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
TIMEOUT_S = 120
FOUND = 1


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """
    One of one package; ``names`` are its id and its aliases.
    """

    package: str
    version: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Report:
    """
    What pip-audit found; ``unknown`` packages are those that its service did not know or would not tell of.
    """

    known: int
    unknown: int
    vulnerabilities: tuple[Vulnerability, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    A vulnerability that somebody looked at, why it does no harm here, and the day on which to look at it again.
    """

    name: str
    package: str
    reason: str
    until: date


def read_report(text: str) -> Report | None:
    """
    pip-audit's JSON; None where it gave none, as it does when its service does not answer.
    """
    try:
        dependencies = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    found = tuple(
        Vulnerability(one["name"], one["version"], frozenset([vulnerability["id"], *vulnerability.get("aliases", ())]))
        for one in dependencies
        for vulnerability in one.get("vulns", ())
    )
    unknown = sum("skip_reason" in one for one in dependencies)
    return Report(len(dependencies) - unknown, unknown, found)


def read_accepted(text: str) -> tuple[Accepted, ...]:
    """
    The list of what is accepted. Raises ``KeyError`` for an entry without a name, package, reason or date.
    """
    entries = tomllib.loads(text).get("accepted", ())
    return tuple(Accepted(one["name"], one["package"], one["reason"], one["until"]) for one in entries)


def refused(report: Report, accepted: Iterable[Accepted], *, today: date) -> Iterator[str]:
    """
    One line for each vulnerability that nobody has accepted, or no longer.
    """
    for found in report.vulnerabilities:
        fitting = [one for one in accepted if one.package == found.package and one.name in found.names]
        name = f"{found.package} {found.version}: {', '.join(sorted(found.names))}"
        if not fitting:
            yield f"{name}; raise it in the locks, or accept it in .ci/audit-accepted.toml with a reason and a date"
        elif max(one.until for one in fitting) < today:
            yield f"{name}; was accepted until {max(one.until for one in fitting)}, look at it again"


def outcome(
    reports: Mapping[str, Report | None], accepted: Sequence[Accepted], *, today: date
) -> tuple[int, list[str]]:
    """
    The exit code, and what to say.
    """
    said: list[str] = []
    bad: set[str] = set()
    for lock, report in reports.items():
        if report is None or report.known == 0:
            said.append(f"{lock}: the service of vulnerabilities did not answer; NOT audited")
            continue
        bad |= set(refused(report, accepted, today=today))
        unknown = f", {report.unknown} that the service does not know" if report.unknown else ""
        said.append(f"{lock}: {report.known} packages audited{unknown}")
    return (FOUND if bad else 0), [*said, *sorted(bad)]


def audited(lock: str) -> Report | None:
    """
    What pip-audit says of a lock; nothing is installed, and no version is resolved anew.
    """
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command, on our own files
            [*command, "--progress-spinner", "off", "--requirement", lock],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=HERE.parent,
        )
    except subprocess.TimeoutExpired:
        return None
    return read_report(done.stdout)


def main() -> int:
    """
    Audits both locks.
    """
    if find_spec("pip_audit") is None:
        print("pip-audit is not installed here; run `make setup`")  # noqa: T201 - it is a command
        return FOUND
    accepted = read_accepted((HERE / "audit-accepted.toml").read_text(encoding="utf-8"))
    code, said = outcome({lock: audited(lock) for lock in LOCKS}, accepted, today=date.today())  # noqa: DTZ011 - days
    print("\n".join(said))  # noqa: T201 - it is a command
    return code


if __name__ == "__main__":
    sys.exit(main())
