"""
Laws of signed values: what was sealed for a place opens there, and nothing else opens anywhere.
"""

from hypothesis import assume, given
from hypothesis import strategies as st

from worker.adapters.value_seal import TAG_BYTES, ValueSeal

keys = st.binary(min_size=32, max_size=64)
places = st.text(max_size=40)
values = st.binary(max_size=200)


@given(key=keys, at=places, value=values)
def test_what_was_sealed_opens(key: bytes, at: str, value: bytes) -> None:
    """
    Under its own place and with its own key, a value comes back byte for byte.
    """
    seal = ValueSeal([key])

    assert value == seal.opened(at, seal.sealed(at, value))


@given(key=keys, at=places, other=places, value=values)
def test_a_moved_value_does_not_open(key: bytes, at: str, other: str, value: bytes) -> None:
    """
    Under any other place, a good value is none.
    """
    assume(at != other)
    seal = ValueSeal([key])

    assert seal.opened(other, seal.sealed(at, value)) is None


@given(key=keys, at=places, value=values, data=st.data())
def test_a_changed_value_does_not_open(key: bytes, at: str, value: bytes, data: st.DataObject) -> None:
    """
    One bit flipped anywhere, or anything cut off, and it is none.
    """
    seal = ValueSeal([key])
    sealed = bytearray(seal.sealed(at, value))
    kept = data.draw(st.integers(0, len(sealed) - 1))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    cut = bytes(sealed[:kept])
    sealed[bit // 8] ^= 1 << bit % 8

    assert seal.opened(at, bytes(sealed)) is None
    assert seal.opened(at, cut) is None


@given(key=keys, other=keys, at=places, value=values)
def test_a_forged_or_unsigned_value_does_not_open(key: bytes, other: bytes, at: str, value: bytes) -> None:
    """
    What another key signed is none, nor is what nobody signed.
    """
    assume(key != other)
    seal = ValueSeal([key])

    assert seal.opened(at, ValueSeal([other]).sealed(at, value)) is None
    assert seal.opened(at, value) is None
    assert seal.opened(at, value + bytes(TAG_BYTES)) is None


@given(old=keys, new=keys, at=places, value=values)
def test_keys_are_changed_without_a_gap(old: bytes, new: bytes, at: str, value: bytes) -> None:
    """
    While both keys are there, what either signed opens, and the first one signs; with the old one gone, its values are.
    """
    assume(old != new)
    both = ValueSeal([new, old])
    before, during = ValueSeal([old]).sealed(at, value), both.sealed(at, value)

    assert value == both.opened(at, before) == both.opened(at, during) == ValueSeal([new]).opened(at, during)
    assert ValueSeal([new]).opened(at, before) is None


@given(at=places, value=st.none() | values)
def test_without_keys_values_pass(at: str, value: bytes | None) -> None:
    """
    A cache that is not signed keeps its values as they are, and nothing stays nothing with keys, too.
    """
    assert value == ValueSeal([]).opened(at, value)
    assert ValueSeal([bytes(32)]).opened(at, None) is None


@given(key=keys, first=values, second=values)
def test_place_and_value_do_not_run_into_each_other(key: bytes, first: bytes, second: bytes) -> None:
    """
    Moving bytes from the place into the value, or back, gives another signature.
    """
    seal = ValueSeal([key])
    tags = {seal.sealed("k" * length, b"k" * (9 - length))[-TAG_BYTES:] for length in range(10)}

    assert 10 == len(tags)
    assert (first == second) == (seal.sealed("k", first) == seal.sealed("k", second))
