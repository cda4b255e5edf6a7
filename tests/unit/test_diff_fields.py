"""
What each field of a verdict is to a comparison.
"""

from dataclasses import fields

from pydantic import Field

from schemas.handling import ErrorV1
from schemas.verdict import ImageVerdictV1, OutcomeV1
from worker.diff.fields import ROLES, Role, unclassified
from worker.diff.seen import PATH_OF, Compared


class _NewerOutcome(OutcomeV1):
    severity: str = "low"


class _NewerVerdict(ImageVerdictV1):
    outcome: _NewerOutcome = Field(...)
    watermark: str | None = None


class _ShorterVerdict(ErrorV1):
    """
    A contract that has next to nothing.
    """


def test_every_field_of_the_contract_is_classified() -> None:
    """
    Nothing in a verdict is compared, or left out of the comparison, because nobody thought of it.
    """
    assert [] == unclassified()


def test_a_field_that_is_added_must_be_classified() -> None:
    """
    Wherever in the verdict it is added, the check names it.
    """
    assert ["outcome.severity", "watermark"] == unclassified(_NewerVerdict)


def test_a_field_that_is_gone_is_named() -> None:
    """
    The table holds no field that the contract does not have.
    """
    assert "outcome.score (no such field)" in unclassified(_ShorterVerdict)


def test_what_is_compared_is_what_the_table_says() -> None:
    """
    The fields that are taken out of a verdict are those whose role is to be compared.
    """
    compared = {path for path, role in ROLES.items() if role is Role.COMPARED}

    assert compared == set(PATH_OF.values())
    assert [field.name for field in fields(Compared)] == list(PATH_OF)


def test_volatile_fields_are_those_that_the_contract_declares() -> None:
    """
    The verdict's own list of volatile fields stays out of every comparison.
    """
    declared = ("timing", "cache", "input.attempt", "versions.worker", "versions.decoder")

    assert {Role.VOLATILE} == {ROLES[path] for path in declared}
