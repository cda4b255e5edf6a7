"""
A signature over a control record holds for that record alone, however it was written and read since.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.bank_control import BankControlV1
from worker.bank.control_signature import is_vouched, require_vouched, sign_control, signed_bytes
from worker.bank.release_checks import control_bytes, read_control
from worker.bank.signature import public_key
from worker.errors import BankInvalid

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8), max_size=3).map(tuple)
HASHES = st.integers(0, 15).map(lambda digit: f"{digit:x}" * 64)
YEARS = [datetime(year, 1, 1) for year in (2000, 2100)]  # noqa: DTZ001 - Hypothesis adds the zone
ZONES = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@st.composite
def controls(draw: st.DrawFn) -> BankControlV1:
    """
    Records as operators issue them.
    """
    return BankControlV1(
        bank=draw(st.sampled_from(["a", "b"])),
        release=draw(st.sampled_from(["1", "2"])),
        manifest_sha256=draw(HASHES),
        canaries_sha256=draw(st.none() | HASHES),
        disabled_entries=draw(NAMES),
        disabled_generators=draw(NAMES),
        disabled_sources=draw(NAMES),
        issued_at=draw(st.datetimes(YEARS[0], YEARS[1], timezones=ZONES)),
        reason=draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    )


@given(controls())
def test_it_holds_after_every_way_there(control: BankControlV1) -> None:
    """
    Through a place of releases, which adds a checksum, and through the topic.
    """
    signed = sign_control(control, KEY)
    read = [
        read_control("place", control_bytes(signed)),
        BankControlV1.model_validate_json(signed.model_dump_json()),
    ]
    for one in read:
        require_vouched("it", one, [public_key(KEY)])

    assert [signed, signed] == read


@given(controls(), controls())
def test_it_holds_for_no_other_record(one: BankControlV1, other: BankControlV1) -> None:
    """
    Two records that differ in anything, the bank and the time included, have different signatures.
    """
    moved = other.model_copy(update={"signatures": sign_control(one, KEY).signatures})
    same = one.model_copy(update={"issued_at": one.issued_at.astimezone(UTC)}) == other.model_copy(
        update={"issued_at": other.issued_at.astimezone(UTC)}
    )

    assert same == is_vouched(moved, [public_key(KEY)])


@given(controls())
def test_nobody_is_believed_who_is_not_trusted(control: BankControlV1) -> None:
    """
    A right signature of a stranger is worth no more than none.
    """
    stranger = public_key(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
    for record in (control, sign_control(control, KEY)):
        with pytest.raises(BankInvalid, match=r"expected key .*bank\.trusted_keys"):
            require_vouched("it", record, [stranger])

    assert is_vouched(control, [])


@given(controls(), st.timedeltas(timedelta(0), timedelta(days=900)))
def test_signed_records_are_in_order(control: BankControlV1, ahead: timedelta) -> None:
    """
    Later than the one before, though the clock was behind.
    """
    after = control.issued_at + ahead
    signed = sign_control(control, KEY, after=after)

    assert signed.issued_at > after
    assert is_vouched(signed, [public_key(KEY)])


def test_a_manifests_signature_is_none_over_a_record() -> None:
    """
    What is signed of a record begins with words that no manifest begins with.
    """
    control = BankControlV1(bank="a", release="1", manifest_sha256="0" * 64, issued_at=datetime(2026, 1, 1, tzinfo=UTC))

    assert signed_bytes(control).startswith(b"touchstone bank.control.v1\n{")
