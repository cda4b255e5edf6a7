"""
What CI does with the locks: bills of materials that name every package, and an audit that fails for what is known.
"""

import importlib.util
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 22)
ACCEPTED = """
[[accepted]]
name = "CVE-2026-1"
package = "example"
reason = "we do not call it"
until = {until}
"""


def program(name: str) -> Any:  # noqa: ANN401 - a program of CI is no package
    """
    A program of ``.ci``, imported.
    """
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


AUDIT = program("audit")


def locked(lock: str) -> set[tuple[str, str, frozenset[str]]]:
    """
    Name, version and hashes of every package of a lock.
    """
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(.*)$", text, re.MULTILINE)
    return {(one[1], one[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", one[3]))) for one in found}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_bills_name_every_locked_package(tmp_path: Path) -> None:
    """
    By name, version and every hash, and nothing else.
    """
    sbom = program("sbom")
    for lock, name in sbom.LOCKS.items():
        sbom.write(lock, tmp_path / name)
        bill = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        named = {
            (
                one["name"],
                one["version"],
                frozenset(digest["content"] for at in one["externalReferences"] for digest in at.get("hashes", ())),
            )
            for one in bill["components"]
        }

        assert len(named) > 90
        assert locked(lock) == named
        assert "CycloneDX" == bill["bomFormat"]


def report(*vulnerabilities: dict[str, Any], known: int = 2, skipped: int = 0) -> str:
    """
    What pip-audit prints.
    """
    packages: list[dict[str, Any]] = [
        {"name": f"fine-{number}", "version": "1", "vulns": []} for number in range(known)
    ]
    packages += [
        {"name": f"skipped-{number}", "skip_reason": f"{AUDIT.UNKNOWN} and could not be audited"}
        for number in range(skipped)
    ]
    packages += [{"name": "example", "version": "2", "vulns": [one]} for one in vulnerabilities]
    return json.dumps({"dependencies": packages, "fixes": []})


def outcome(text: str, accepted: str = "", *, ended: int = 0, words: str = "") -> tuple[int, str]:
    """
    Exit code and words for one lock, of which pip-audit ended like this.
    """
    reports = {"a.lock": AUDIT.read_report(ended, text, words)}
    code, said = AUDIT.outcome(reports, AUDIT.read_accepted(accepted), today=TODAY)
    return code, "\n".join(said)


KNOWN = {"id": "PYSEC-2026-9", "aliases": ["CVE-2026-1"], "fix_versions": ["3"]}


def test_a_known_vulnerability_fails() -> None:
    """
    It is named with its package, and what to do.
    """
    code, said = outcome(report(KNOWN))

    assert 1 == code
    assert "example 2: CVE-2026-1, PYSEC-2026-9; raise it in the locks" in said


def test_an_accepted_one_passes_until_its_day() -> None:
    """
    By its id or an alias, for its package only, and not a day longer.
    """
    assert 0 == outcome(report(KNOWN), ACCEPTED.format(until="2026-11-22"))[0]
    assert 1 == outcome(report(KNOWN), ACCEPTED.format(until="2026-11-21"))[0]
    assert "look at it again" in outcome(report(KNOWN), ACCEPTED.format(until="2026-11-21"))[1]
    assert 1 == outcome(report(KNOWN), ACCEPTED.format(until="2026-11-22").replace('"example"', '"other"'))[0]


@pytest.mark.parametrize(
    "words",
    [
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\nERROR:pip_audit._cli:Tip: …",
        "ERROR:pip_audit._cli:PyPI is not redirecting properly",
        "    raise ProxyError(e)\nrequests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org')",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='pypi.org', port=443): Read timed out.",
    ],
)
def test_a_service_that_does_not_answer_fails_nothing_and_is_said(words: str) -> None:
    """
    No network is no vulnerability, and no clean bill either.
    """
    code, said = outcome("", ended=1, words=words)

    assert (0, "a.lock: the service of vulnerabilities did not answer; NOT audited") == (code, said)


def test_a_service_that_knows_nothing_is_told_apart() -> None:
    """
    A mirror without a feed of vulnerabilities answers for every package that it does not know it.
    """
    code, said = outcome(report(known=0, skipped=3))

    assert (0, "a.lock: the service of vulnerabilities knows none of 3 packages; NOT audited") == (code, said)


@pytest.mark.parametrize(
    ("ended", "text", "words"),
    [
        (2, "", "pip-audit: error: unrecognized arguments: --no-such-option"),
        (1, "", "ERROR:pip_audit._cli:invalid requirements input: a.lock"),
        (1, "", "requests.exceptions.SSLError: certificate verify failed: Hostname mismatch"),
        (1, "", "pip_audit._service.interface.ServiceError"),
        (1, "", ""),
        (0, "{}", ""),
        (0, '{"dependencies": []}', ""),
        (0, '{"dependencies": [{"name": "a", "skip_reason": "it is editable"}]}', ""),
        (2, report(), "a report, and yet not one of its ends"),
    ],
)
def test_a_pip_audit_that_breaks_down_fails(ended: int, text: str, words: str) -> None:
    """
    Only a service out of reach is forgiven; an option that went, a lock that is missing, half an answer are not.
    """
    code, said = outcome(text, ended=ended, words=words)

    assert 1 == code
    assert said.startswith("a.lock: pip-audit gave no report; NOT audited: ")


@pytest.mark.slow
def test_a_call_of_pip_audit_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The real program, called with an option that it does not have, as an older or newer one might be.
    """
    run = subprocess.run
    monkeypatch.setattr(AUDIT.subprocess, "run", lambda command, **how: run([*command, "--no-such-option"], **how))
    (lock, *_) = AUDIT.LOCKS
    code, said = AUDIT.outcome({lock: AUDIT.audited(lock)}, (), today=TODAY)

    assert 1 == code
    assert "unrecognized arguments: --no-such-option" in said[0]


def test_what_the_service_does_not_know_is_counted() -> None:
    """
    A package that only we have, or a mirror, is told beside those that were audited.
    """
    assert (0, "a.lock: 2 packages audited, 1 that the service does not know") == outcome(report(skipped=1))


def test_acceptances_say_why_and_until_when() -> None:
    """
    One without a reason or a date is refused; those that are committed can be read.
    """
    with pytest.raises(KeyError):
        AUDIT.read_accepted('[[accepted]]\nname = "x"\npackage = "y"\n')
    committed = AUDIT.read_accepted((ROOT / ".ci" / "audit-accepted.toml").read_text(encoding="utf-8"))
    assert all(one.reason and one.until for one in committed)
