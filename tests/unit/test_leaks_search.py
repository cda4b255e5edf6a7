"""
The search for leaks finds what it looks for: else its silence would mean nothing.
"""

import base64
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from tests.leaks import found_in, without_original

SECRET = "Sign+ature/of=an address"  # noqa: S105 - a needle to search for


@given(before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_a_secret_is_found_in_every_coding(before: bytes, after: bytes) -> None:
    """
    In the clear, quoted, in hex and in both kinds of base64, whatever stands around it.
    """
    whole = before + SECRET.encode() + after
    seen = [
        whole.decode("latin-1"),
        quote(whole),
        whole.hex(),
        base64.b64encode(whole).decode(),
        base64.urlsafe_b64encode(whole).decode(),
    ]

    assert [["it"]] * 5 == [found_in(text, {"it": SECRET, "not it": "Another+signature"}) for text in seen]


def test_nothing_is_found_where_nothing_is() -> None:
    """
    A text without it, and a letter of which only the original record holds it.
    """
    held = base64.b64encode(SECRET.encode()).decode()
    letter = {
        "error": {"detail": "no"},
        "original": {"topic": "t", "key_base64": held, "value_base64": held, "headers": [{"value_base64": held}]},
    }

    assert ["it"] == found_in(str(letter), {"it": SECRET})
    assert [] == found_in(str(without_original(letter)), {"it": SECRET})
    assert "topic" in without_original(letter)["original"]
