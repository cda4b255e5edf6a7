"""
Which hosts a pattern of the settings names, and what the settings of fetching refuse.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.settings.host_patterns import covers, covers_at, overlap, overlap_at
from worker.settings.images import FetchSettings, HttpProfile

LABELS = st.sampled_from(["a", "b", "cdn", "example", "x-1"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(NAMES, NAMES.map("*.{}".format))
SECRET = "s3cr3t-token"  # noqa: S105 - a needle to search for


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("cdn.example", "cdn.example", True),
        ("cdn.example", "CDN.Example", True),
        ("cdn.example", "cdn.example.", True),
        ("cdn.example", "a.cdn.example", False),
        ("cdn.example", "cdn.example.evil.test", False),
        ("cdn.example", "evilcdn.example", False),
        ("*.cdn.example", "a.cdn.example", True),
        ("*.cdn.example", "a.b.cdn.example", True),
        ("*.cdn.example", "cdn.example", False),
        ("*.cdn.example", ".cdn.example", False),
        ("*.cdn.example", "evilcdn.example", False),
        ("*.cdn.example", "a.cdn.example.evil.test", False),
        ("93.184.216.34", "93.184.216.34", True),
    ],
)
def test_a_pattern_names_its_hosts(pattern: str, host: str, expected: bool) -> None:
    """
    Exactly, or everything below; a name that only looks alike is another.
    """
    found = covers(pattern, host)

    assert expected is found


@given(PATTERNS, PATTERNS, NAMES)
def test_patterns_overlap_where_a_host_is_named_by_both(one: str, other: str, host: str) -> None:
    """
    No host of two patterns escapes ``overlap``, which does not care for their order.
    """
    both = covers(one, host) and covers(other, host)

    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, other) or not both


@pytest.mark.parametrize(
    ("pattern", "host", "port", "expected"),
    [
        ("cdn.example", "cdn.example", 443, True),
        ("cdn.example", "cdn.example", 4444, False),
        ("cdn.example:443", "cdn.example", 443, True),
        ("cdn.example:4444", "CDN.example.", 4444, True),
        ("cdn.example:4444", "cdn.example", 443, False),
        ("cdn.example:4444", "cdn.example", 444, False),
        ("*.cdn.example:4444", "a.cdn.example", 4444, True),
        ("*.cdn.example:4444", "cdn.example", 4444, False),
    ],
)
def test_a_pattern_with_a_port_names_that_port(pattern: str, host: str, port: int, expected: bool) -> None:
    """
    And one without names 443 alone.
    """
    found = covers_at(pattern, host, port)

    assert expected is found


@given(PATTERNS, PATTERNS, st.sampled_from(["", ":443", ":8443"]), st.sampled_from(["", ":443", ":8443"]))
def test_patterns_with_ports_overlap_where_hosts_and_ports_do(one: str, other: str, port: str, other_port: str) -> None:
    """
    The same hosts at different ports are different, and no port is port 443.
    """
    same_port = (port or ":443") == (other_port or ":443")

    assert overlap_at(one + port, other + other_port) == (overlap(one, other) and same_port)


@pytest.mark.parametrize("pattern", ["a.test:", "a.test:0", "a.test:65536", "a.test:99999", "a.test:x", "a.test:1:2"])
def test_what_is_no_port_is_refused(pattern: str) -> None:
    """
    It is found as the settings are read.
    """
    with pytest.raises(ValidationError, match="hosts"):
        HttpProfile.model_validate({"hosts": [pattern], "bearer_token": SECRET})


@pytest.mark.parametrize(
    "pattern", ["", "*", "*.", "https://a.example", "a.example/path", "a.example:443", "a b", "*a.b"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """
    An address, a port or a star somewhere else is a mistake, and told as one.
    """
    with pytest.raises(ValidationError, match="allowed_hosts"):
        FetchSettings.model_validate({"allowed_hosts": [pattern]})


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"hosts": ["a.test"]}, "nothing to send"),
        ({"hosts": [], "bearer_token": SECRET}, "hosts"),
        ({"hosts": ["a.test"], "header": "X-Key"}, "header and value go together"),
        ({"hosts": ["a.test"], "value": SECRET}, "header and value go together"),
        ({"hosts": ["a.test"], "header": "Host", "value": SECRET}, "the worker's own"),
        ({"hosts": ["a.test"], "header": "X Key", "value": SECRET}, "header"),
        ({"hosts": ["a.test"], "header": "authorization", "value": SECRET, "bearer_token": SECRET}, "same header"),
        ({"hosts": ["a.test"], "bearer_token": f"{SECRET}\r\nX-Other: 1"}, "printable ASCII"),
        ({"hosts": ["a.test"], "bearer_token": f"{SECRET}\n"}, "printable ASCII"),
        ({"hosts": ["a.test"], "bearer_token": f"{SECRET}\u00e4"}, "printable ASCII"),
        ({"hosts": ["a.test"], "header": "X-Key", "value": ""}, "printable ASCII"),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(profile: dict[str, object], expected: str) -> None:
    """
    It is told what is wrong with it, and never what the secret is.
    """
    with pytest.raises(ValidationError, match=expected) as refused:
        HttpProfile.model_validate(profile)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(("one", "other"), [("a.test", "A.test"), ("*.test", "a.b.test"), ("*.a.test", "*.test")])
def test_one_host_has_one_profile(one: str, other: str) -> None:
    """
    Two profiles that name the same host would leave open which secret it gets.
    """
    profiles = {name: {"hosts": [host], "bearer_token": SECRET} for name, host in (("x", one), ("y", other))}
    with pytest.raises(ValidationError, match=r"http\.x and http\.y both name hosts"):
        FetchSettings.model_validate({"http": profiles})
