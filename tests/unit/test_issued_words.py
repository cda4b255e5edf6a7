"""
Who changes what holds, why, and what is named: what no record or list can have is told as a wrong option.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bank_control import BankControlV1
from tests.bank_builders import NOON, a_source, build_small, write_pictures
from tests.release_worlds import BY
from worker.bank.files import load_bank
from worker.bank.issued_words import MAX_BY, MAX_REASON, made_control
from worker.bank.leaving_out import Without
from worker.bank.quarantine import Quarantine, read_quarantine, write_quarantine
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.errors import ConfigInvalid

ODD = "lo\x01om"
"""A generator as somebody else's bank may have it: its lines are not as strict as a list."""


@pytest.mark.parametrize(
    ("by", "reason", "said"),
    [
        ("a" * (MAX_BY + 1), None, "--by has 129 characters, expected at most 128"),
        ("a\tb", None, r"--by is 'a\\tb', which has a control character; expected 1 to 128"),
        ("", None, "--by is empty; expected 1 to 128"),
        ("ann", "r" * (MAX_REASON + 1), "--reason has 513 characters, expected at most 512"),
        ("ann", "\udcff", r"--reason is '\\udcff', which is no UTF-8"),
    ],
)
def test_what_no_record_can_have_is_refused(by: str, reason: str | None, said: str) -> None:
    """
    With what was found and what was expected, before anything is read or written.
    """
    with pytest.raises(ConfigInvalid, match=said):
        Issuer(by, reason)


@given(by=st.none() | st.text(max_size=MAX_BY + 2), reason=st.none() | st.text(max_size=MAX_REASON + 2))
def test_whatever_an_issuer_may_be_called_is_written(by: str | None, reason: str | None) -> None:
    """
    Into a record and into a list; nothing else than a wrong option comes of the rest.
    """
    try:
        issuer = Issuer(by, reason, at=NOON)
    except ConfigInvalid:
        return
    said = {"bank": "b", "release": "1", "manifest_sha256": "0" * 64}
    listed = Quarantine(bank="b").with_more(Without(frozenset({"e1"})), issuer).quarantined[0]

    control = made_control({**said, **issuer.stamp()})

    assert (by, reason) == (listed.by, listed.reason)
    assert (by, reason) == (control.issued_by, control.reason)


@pytest.fixture
def odd_bank(tmp_path: Path) -> Path:
    """
    Six reals, four fakes of mill, and three of a generator with a control character in its name.
    """
    source = a_source(tmp_path / "source")
    write_pictures(source, *(f"fake/{ODD}/{at:03d}.png" for at in range(3)), first_seed=2000)
    return build_small(source, tmp_path / "bank").path


def test_a_generator_that_no_record_can_name_is_left_out_by_its_references(odd_bank: Path, tmp_path: Path) -> None:
    """
    The refusal says how, of releases and of a list; nothing is written by it.
    """
    releases, path = Releases(DirectoryPlace(tmp_path / "place")), tmp_path / "list.json"
    releases.publish(odd_bank)
    active, listed = releases.activate("1", BY), Quarantine(bank="small")
    whole, by_sha256 = (
        Without(generators=frozenset({ODD})),
        frozenset(entry.sha256 for entry in load_bank(odd_bank).entries if entry.generator == ODD),
    )
    with pytest.raises(ConfigInvalid, match=r"generator 'lo\\x01om' has a control character.*`--entry` with the id or"):
        releases.disable(BY, generators=whole.generators)
    with pytest.raises(ConfigInvalid, match=r"generator 'lo\\x01om' has a control character.*`--entry` with the id or"):
        listed.with_more(whole, BY)
    kept = releases.active()
    write_quarantine(path, listed.with_more(Without(by_sha256), BY))

    assert active == kept
    assert 3 == len(by_sha256) == len(releases.disable(BY, entries=by_sha256).disabled_entries)
    assert by_sha256 == read_quarantine(path).without().entries


@pytest.mark.parametrize("name", ["", "g" * 257])
def test_a_name_that_no_reference_has_is_refused(name: str) -> None:
    """
    With its length.
    """
    with pytest.raises(ConfigInvalid, match=f"has {len(name)} characters, expected 1 to 256"):
        Quarantine(bank="small").with_more(Without(generators=frozenset({name})), BY)


def test_more_names_than_a_record_can_have_are_refused() -> None:
    """
    With the number, and what to do instead.
    """
    said = {"bank": "b", "release": "1", "manifest_sha256": "0" * 64, **BY.stamp()}
    full = tuple(f"g{at}" for at in range(1_001))
    with pytest.raises(ConfigInvalid, match=r"disabled_generators: .* at most 1000 items.* not 1001; where too much"):
        made_control({**said, "disabled_generators": full})

    assert isinstance(made_control({**said, "disabled_generators": full[1:]}), BankControlV1)
