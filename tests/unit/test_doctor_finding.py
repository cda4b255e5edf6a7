"""
How the checks of ``touchstone doctor`` are run, and what they share.
"""

import threading

import pytest

from tests.doctor_parts import check_of, raises, some_parts
from worker.doctor import machine, model, servers
from worker.doctor.finding import Finding, Unanswerable, examine, ok
from worker.doctor.parts import Part, Parts, parts_of
from worker.errors import BankInvalid, CannotStart
from worker.settings.tree import KafkaSettings, Settings


def test_checks_do_not_spoil_each_other() -> None:
    """
    One that is refused, one that crashes and one that hangs are reported, and the last one is made all the same.
    """
    forever = threading.Event()

    def hang() -> Finding:
        forever.wait(60)
        return ok("at last")

    checks = [
        check_of(raises(BankInvalid("the bank is damaged"))),
        check_of(raises(ZeroDivisionError("by zero"))),
        check_of(hang, timeout_s=0.05),
        check_of(raises(Unanswerable("needs kafka, which failed"))),
        check_of(lambda: ok("fine")),
    ]
    found = [checked.finding for checked in examine(checks)]
    forever.set()

    assert ["failed", "failed", "failed", "skipped", "ok"] == [one.status for one in found]
    assert ("the bank is damaged", "do this") == (found[0].text, found[0].advice)
    assert "the check itself broke: ZeroDivisionError: by zero" == found[1].text
    assert "no answer within 0.05 s" == found[2].text
    assert ("needs kafka, which failed", "") == (found[3].text, found[3].advice)


def test_a_part_is_opened_once_and_its_fault_is_told_once() -> None:
    """
    The check that answers for a part raises what was wrong; the others say whose finding to read.
    """
    opened: list[int] = []

    def fail() -> int:
        opened.append(1)
        raise CannotStart("nobody there")

    part = Part("kafka", fail)
    with pytest.raises(Unanswerable, match="needs kafka, which failed"):
        part.borrowed()
    with pytest.raises(CannotStart, match="nobody there"):
        part.own()

    assert [1] == opened


def test_nothing_is_opened_before_it_is_asked_for() -> None:
    """
    Parts of settings that name nothing reachable can be made.
    """
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="nowhere.invalid:1"))

    assert isinstance(parts_of(settings), Parts)


def test_each_check_has_advice_for_what_it_raises() -> None:
    """
    No check leaves an operator without something to do.
    """
    settings = Settings()
    parts = some_parts()
    checks = [
        *servers.server_checks(settings, parts),
        *model.model_checks(settings, parts),
        *machine.machine_checks(settings),
    ]

    assert len(checks) == len({check.name for check in checks})
    assert all(check.advice for check in checks)
