#!/usr/bin/env python3
"""
Known vulnerabilities of what the locks name, by pip-audit; ``audit-accepted.toml`` holds what is accepted till a day.

A service that cannot be reached is said and does no harm: 0. A vulnerability that is not accepted, and a pip-audit that
ended in any other way than with a report: 1.
"""

import json
import re
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
ENDS_WITH_A_REPORT = (0, 1)
"""1 where there are vulnerabilities, and 1 as well for most of what goes wrong with pip-audit itself."""

LAST_WORDS = 3
UNREACHED = re.compile(
    # What pip-audit itself says of its service, and what it lets through of its HTTP library. Not SSLError, which is
    # one of requests' connection errors: there somebody did answer.
    r"^(?:ERROR:pip_audit\.\S+:(?:Could not connect to|PyPI is not redirecting properly)"
    r"|requests\.exceptions\.(?:ConnectionError|ProxyError|ConnectTimeout|ReadTimeout|Timeout|ChunkedEncodingError)\b)",
    re.MULTILINE,
)
UNKNOWN = "Dependency not found on PyPI"


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
class NoReport:
    """
    Why there is none: the service could not be ``reached``, or pip-audit broke down, in its own last words.
    """

    reached: bool
    words: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    A vulnerability that somebody looked at, why it does no harm here, and the day on which to look at it again.
    """

    name: str
    package: str
    reason: str
    until: date


def read_report(code: int, text: str, said: str) -> Report | NoReport:
    """
    pip-audit's JSON, from its exit code and both its streams; or why it gave none.
    """
    try:
        dependencies = json.loads(text if code in ENDS_WITH_A_REPORT else "")["dependencies"]
        report = Report(
            sum("skip_reason" not in one for one in dependencies),
            sum(one.get("skip_reason", "").startswith(UNKNOWN) for one in dependencies),
            tuple(
                Vulnerability(one["name"], one["version"], frozenset([found["id"], *found.get("aliases", ())]))
                for one in dependencies
                for found in one.get("vulns", ())
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        last = " / ".join(line.strip() for line in said.splitlines()[-LAST_WORDS:] if line.strip())
        return NoReport(not UNREACHED.search(said), f"exit code {code}; {last or 'it said nothing'}")
    if not dependencies or report.known + report.unknown < len(dependencies):
        return NoReport(reached=True, words=f"{len(dependencies)} packages, of which some were skipped unasked")
    return report


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
    reports: Mapping[str, Report | NoReport], accepted: Sequence[Accepted], *, today: date
) -> tuple[int, list[str]]:
    """
    The exit code, and what to say.
    """
    said: list[str] = []
    bad: set[str] = set()
    for lock, report in reports.items():
        if isinstance(report, NoReport):
            if report.reached:
                bad.add(f"{lock}: pip-audit gave no report; NOT audited: {report.words}")
            else:
                said.append(f"{lock}: the service of vulnerabilities did not answer; NOT audited")
            continue
        if report.known == 0:
            # As a mirror answers that has the packages and not their vulnerabilities.
            said.append(f"{lock}: the service of vulnerabilities knows none of {report.unknown} packages; NOT audited")
            continue
        bad |= set(refused(report, accepted, today=today))
        unknown = f", {report.unknown} that the service does not know" if report.unknown else ""
        said.append(f"{lock}: {report.known} packages audited{unknown}")
    return (FOUND if bad else 0), [*said, *sorted(bad)]


def audited(lock: str) -> Report | NoReport:
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
        return NoReport(reached=False, words=f"no end within {TIMEOUT_S} s")
    return read_report(done.returncode, done.stdout, done.stderr)


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
