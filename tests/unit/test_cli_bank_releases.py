"""
The commands on releases: what they print, how they end, and what they leave in the place.
"""

from functools import partial
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.release_worlds import canary_list, small_banks
from worker.adapters.kafka_client import require_topics
from worker.errors import CannotStart


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    ``touchstone bank ...``.
    """
    return bank_command(monkeypatch, capsys, tmp_path)


@pytest.fixture
def place(touchstone: Touchstone, tmp_path: Path) -> Path:
    """
    Releases 1 and 2, both published by command.
    """
    for bank in small_banks(tmp_path):
        assert touchstone("publish", bank, "--to", tmp_path / "place").code == 0
    return tmp_path / "place"


def test_what_holds_is_signed(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    With trusted keys a change needs one of them; a pointer that was written over is shown as what it is, and mended.
    """
    public = touchstone("keygen", "key.pem", "--json").json["public_key"]
    (bank,) = small_banks(tmp_path, 1)
    touchstone("sign", bank, "--key", "key.pem")
    place, trusting = tmp_path / "place", ("--set", f'bank.trusted_keys=["{public}"]')
    touchstone("publish", bank, "--to", place, *trusting)
    without = touchstone("activate", place, "1", *trusting)
    signed = touchstone("activate", place, "1", "--key", "key.pem", "--json", *trusting)
    right = touchstone("releases", place, *trusting)
    touchstone("disable", place, "--generator", "mill")
    forged, shown = touchstone("releases", place, *trusting), touchstone("releases", place, "--json", *trusting).json
    announced = touchstone("announce", place, *trusting)
    mended = touchstone("disable", place, "--generator", "loom", "--key", "key.pem", "--json", *trusting)

    assert (2, True) == (without.code, "pass the file of such a key with --key" in without.err)
    assert [f"ed25519 {public}"] == [line.rpartition(" ")[0] for line in signed.json["signatures"]]
    assert (0, 1, 3) == (right.code, forged.code, announced.code)
    assert "no worker follows this: what says that release 1 holds is signed by nobody" in forged.out.replace("\n", " ")
    assert "is signed by nobody" in shown["problem"]
    assert ["loom"] == mended.json["disabled_generators"]
    assert "is signed by nobody" in mended.err


def publishing(place: Path, canaries: Path) -> tuple[object, ...]:
    """
    The command that publishes bank 1 again as release 3, with these canaries.
    """
    return "publish", place.parent / "bank-0", "--to", place, "--release", "3", "--canaries", canaries


def test_the_life_of_a_release(touchstone: Touchstone, place: Path) -> None:
    """
    Listed, activated, changed and rolled back; each command's object says what holds then.
    """
    before = touchstone("releases", place, "--json").json
    touchstone("activate", place, "1")
    activated = touchstone("activate", place, "2", "--reason", "the new mill", "--by", "ann", "--json").json
    disabled = touchstone("disable", place, "--generator", "mill", "--json").json
    rolled = touchstone("rollback", place, "--json").json
    after = touchstone("releases", place, "--json").json

    assert (before["active"], [one["release"] for one in before["releases"]]) == (None, ["1", "2"])
    assert (activated["release"], activated["reason"], activated["issued_by"]) == ("2", "the new mill", "ann")
    assert disabled["disabled_generators"] == ["mill"]
    assert (rolled["release"], rolled["disabled_generators"]) == ("1", ["mill"])
    assert after["active"] == rolled
    assert [one["active"] for one in after["releases"]] == [True, False]


def test_people_are_told_in_words(touchstone: Touchstone, place: Path) -> None:
    """
    What happened, what holds, and what the next command is.
    """
    published = touchstone("publish", place.parent / "bank-0", "--to", place, "--release", "again")
    activated = touchstone("activate", place, "again", "--by", "ann", "--reason", "a drill")
    touchstone("disable", place, "--generator", "mill", "--by", "ann", "--reason", "a drill")
    listed = touchstone("releases", place)

    assert f"touchstone bank activate {place} again" in published.out
    assert f"bank small: release again holds in {place}" in activated.out
    assert "by ann: a drill" in listed.out
    assert "disabled generators: mill" in listed.out


def test_canaries_are_embedded_with_the_release(touchstone: Touchstone, place: Path, tmp_path: Path) -> None:
    """
    Judged by the bank first; the list says which releases have some.
    """
    said = touchstone(*publishing(place, canary_list(tmp_path)), "--json").json
    listed = touchstone("releases", place, "--json").json["releases"]

    assert (True, True, 5, 5) == tuple(
        said[name] for name in ("published", "canaries", "canaries_right", "canaries_total")
    )
    assert {one["release"]: one["canaries"] for one in listed} == {"1": False, "2": False, "3": True}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_release_that_misses_its_canaries_is_not_published(
    touchstone: Touchstone, place: Path, tmp_path: Path, *, as_json: bool
) -> None:
    """
    No worker would use it: exit code 1, how many were right, the worst by name, and nothing in the place.
    """
    canaries = canary_list(tmp_path, wrong=2)
    ended = touchstone(*publishing(place, canaries), *(["--json"] if as_json else []))
    said = ended.json["problem"] if as_json else ended.out

    assert 1 == ended.code
    assert "3 of 5 canaries were judged as expected, bank.canary_agreement wants 100 %" in said
    assert "real/000.png (expected ai_generated" in said
    assert not (place / "3").exists()
    if as_json:
        assert (False, 3, 5) == tuple(ended.json[name] for name in ("published", "canaries_right", "canaries_total"))


@pytest.mark.parametrize("options", [("--unjudged",), ("--set", "bank.canary_agreement=0.6")])
def test_canaries_that_miss_can_be_published(
    touchstone: Touchstone, place: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """
    Unjudged, or where as many misses are agreed to.
    """
    ended = touchstone(*publishing(place, canary_list(tmp_path, wrong=2)), *options)

    assert 0 == ended.code, ended.err
    assert ("3 of 5 canaries were judged as expected" in ended.out) is (options != ("--unjudged",))
    assert (place / "3" / "canaries.json").exists()


@pytest.mark.parametrize("change", [("activate", "1"), ("rollback",), ("disable", "--generator", "mill")])
def test_nothing_changes_while_the_topic_cannot_be_reached(
    touchstone: Touchstone, place: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, ...]
) -> None:
    """
    Kafka is asked before anything is stored, so that a second rollback does not go one too far.
    """
    touchstone("activate", place, "1")
    touchstone("activate", place, "2")
    before = {path: path.read_bytes() for path in place.rglob("*.json")}
    command, *more = change
    monkeypatch.setattr("worker.adapters.kafka_client.require_topics", partial(require_topics, timeout_s=0.2))
    nowhere = 'kafka.bootstrap_servers=["127.0.0.1:1"]'
    ended = touchstone(command, place, *more, "--topic", "--set", nowhere)

    assert 3 == ended.code
    assert before == {path: path.read_bytes() for path in place.rglob("*.json")}


def test_what_was_stored_and_not_announced_is_told(
    touchstone: Touchstone, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Kafka went away in between: the message says what holds, and the command that announces it without a change.
    """
    sent: list[BankControlV1] = []

    def fail(*_: object) -> None:
        raise CannotStart("the brokers are gone")

    monkeypatch.setattr("worker.adapters.kafka_client.require_topics", lambda *_: None)
    monkeypatch.setattr("worker.adapters.kafka_control.announce", fail)
    ended = touchstone("activate", place, "2", "--topic")
    monkeypatch.setattr("worker.adapters.kafka_control.announce", lambda _, control: sent.append(control))
    steps = len(list((place / "history").iterdir()))
    announced = touchstone("announce", place)

    assert 3 == ended.code
    assert f"{place} is at release 2, not announced: the brokers are gone" in ended.err
    assert f"`touchstone bank announce {place}`" in ended.err
    assert (0, ["2"]) == (announced.code, [control.release for control in sent])
    assert "announced in topic" in announced.out
    assert steps == len(list((place / "history").iterdir())) == 1


def test_activating_mends_a_damaged_pointer(touchstone: Touchstone, place: Path) -> None:
    """
    As the message says: what was disabled is taken from the history, with a warning that does not disturb the object.
    """
    touchstone("activate", place, "1")
    touchstone("disable", place, "--generator", "mill")
    (place / "active.json").write_text('{"half":')
    (place / "history" / "000003-activate.json").write_text("")
    refused = touchstone("releases", place)
    mended = touchstone("activate", place, "2", "--json")
    listed = touchstone("releases", place, "--json").json

    assert (3, True) == (refused.code, "touchstone bank activate" in refused.err)
    assert (0, "2", ["mill"]) == (mended.code, mended.json["release"], mended.json["disabled_generators"])
    assert "warning: " in mended.err
    assert "active.json says nothing that can be followed" in mended.err
    assert mended.json == listed["active"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("activate", "PLACE", "9"), 2, "has no release '9', it has 1, 2"),
        (("rollback", "PLACE"), 2, "no release was active before"),
        (("disable", "PLACE", "--generator", "mill"), 2, "no release is active"),
        (("disable", "PLACE"), 2, "say what to leave out"),
        (("announce", "PLACE"), 2, "no release is active"),
        (("publish", "BANK", "--to", "PLACE"), 2, "has a release 1 already"),
        (("publish", "NOTHING", "--to", "PLACE"), 3, "found no directory"),
    ],
)
def test_what_cannot_be_done(
    touchstone: Touchstone, place: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """
    The message says what was found, and nothing has changed.
    """
    words = {"PLACE": str(place), "BANK": str(place.parent / "bank-0"), "NOTHING": str(place.parent / "nothing")}
    ended = touchstone(*(words.get(word, word) for word in arguments))

    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert not (place / "active.json").exists()


def test_an_active_release_that_is_gone_is_found(touchstone: Touchstone, place: Path) -> None:
    """
    Workers go on, but none could start.
    """
    touchstone("activate", place, "1")
    (place / "1").rename(place.parent / "elsewhere")
    listed = touchstone("releases", place)

    assert listed.code == 1
    assert "release 1 is active and is not there" in listed.out


def test_a_release_that_cannot_be_read_is_found(touchstone: Touchstone, place: Path) -> None:
    """
    It is listed with what is wrong.
    """
    (place / "2" / "manifest.json").write_text("{}")
    listed = touchstone("releases", place, "--json")

    assert listed.code == 1
    assert listed.json["releases"][1]["problem"].split(": ")[1:2] == ["release 2"]
    assert "manifest.json is no manifest of format 2" in listed.json["releases"][1]["problem"]
