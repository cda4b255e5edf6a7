"""
Laws of what may be said: no secret of a URL survives, and whatever is logged is one line of JSON.
"""

import json
import string
import time

from hypothesis import given
from hypothesis import strategies as st

from worker.telemetry.redaction import one_line, plain, redact_text, redact_url

MARK = "zq9-secret"
in_query = st.text(st.sampled_from(string.ascii_letters + string.digits + "%&=+-_.~/:?@!$'\"()*,;[]"), max_size=30)
host = st.from_regex(r"[a-z][a-z0-9]{0,9}(\.[a-z]{2,5}){0,2}(:[0-9]{1,5})?", fullmatch=True)
any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.frozensets(st.text())
    ),
)


@given(host=host, before=in_query, after=in_query, part=st.sampled_from(["?", "#"]))
def test_no_query_survives(host: str, before: str, after: str, part: str) -> None:
    """
    Whatever stands around it, a secret in the query or fragment is gone, in a URL and in a text that holds one.
    """
    url = f"https://{host}/image.jpg{part}{before}{MARK}{after}"

    assert redact_url(url) == f"https://{host}/image.jpg"
    assert redact_text(f"could not fetch {url} in time") == f"could not fetch https://{host}/image.jpg in time"


@given(host=host, user=st.text(st.sampled_from(string.ascii_letters + "%.:@-"), max_size=10))
def test_no_userinfo_survives(host: str, user: str) -> None:
    """
    A name or password before the host is gone, even one that holds an ``@``.
    """
    url = f"https://{user}{MARK}@{host}/image.jpg"

    assert redact_url(url) == f"https://{host}/image.jpg"
    assert MARK not in redact_text(f"({url})")


@given(value=any_value)
def test_any_value_becomes_one_line_of_json(value: object) -> None:
    """
    A value becomes JSON of RFC 8259, without NaN, that is read back as it was written.
    """
    text = json.dumps(plain(value), allow_nan=False)

    assert json.loads(text) == plain(value)
    assert len(text.splitlines()) == 1


@given(text=st.text())
def test_one_line_is_one_line(text: str) -> None:
    """
    No reader that splits lines, and no terminal, sees more than one.
    """
    assert len(one_line(text).splitlines()) <= 1
    assert "\x1b" not in one_line(text)


@given(letter=st.sampled_from("a1+/.:@?"))
def test_a_long_text_costs_no_more_than_its_length(letter: str) -> None:
    """
    A megabyte of anything, beside a URL, is redacted within a second or two: nobody can stall the log.
    """
    begin_s = time.perf_counter()
    redact_text(letter * 1_000_000 + " https://h/p?q")

    assert time.perf_counter() - begin_s < 2
