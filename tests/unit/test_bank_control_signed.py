"""
With trusted keys whoever can write the place of releases or the control topic decides nothing of what holds.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.release_worlds import BY, SignedPlace, WatchedPlace, canaries_of
from worker.bank.files import load_bank
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.bank.signing_key import make_key, read_key
from worker.errors import BankInvalid, CannotStart, ConfigInvalid
from worker.operation.active_release import active_release
from worker.operation.bank_watch import BankWatch
from worker.operation.gauges import release_readings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SignedPlace:
    """
    Releases 1 and 2, signed; 1 is active, signed too.
    """
    return SignedPlace(tmp_path, monkeypatch)


def blinding(bank: Path) -> list[str]:
    """
    The ids of all generated references but one: without them hardly any generated picture is found.
    """
    return [entry.id for entry in load_bank(bank).entries if entry.label == "ai_generated"][1:]


def refusal(watch: BankWatch) -> tuple[str, int, float]:
    """
    Why, how many references are disabled, and the gauge.
    """
    status = watch.status()
    (reading,) = release_readings(status, group="live")
    return status.last_refusal or "", status.disabled_entries, reading.value


def test_a_forged_record_blinds_nobody(place: SignedPlace, tmp_path: Path) -> None:
    """
    Written over the pointer: the worker keeps what it has, with every reference, and says why, once.
    """
    place.releases.publish(place.banks[1], "c", canaries=canaries_of(place.banks[1], tmp_path))
    place.releases.activate("c", place.by)
    watch = place.watch()
    forged = place.forge(disabled_entries=blinding(place.banks[1]))
    for _ in range(3):
        watch.follow(forged)
    why, disabled, gauge = refusal(watch)

    assert "is signed by nobody, expected key" in why
    assert (0, 1.0, 1.0) == (disabled, gauge, place.counted("refused"))
    assert watch._first is not None
    assert "flat" == watch._first.bank.identity.index


def test_a_forged_record_of_another_release_leaves_nothing_out(place: SignedPlace) -> None:
    """
    Though disabled references otherwise go before the release is looked at.
    """
    watch = place.watch()
    stored = place.releases.stored(place.releases.activate("2", place.by))
    sha256 = stored.manifest_sha256
    watch.follow(place.forge(release="2", manifest_sha256=sha256, disabled_generators=["mill"], canaries_sha256=None))

    assert ("1", 0, 0) == (watch.status().release, watch.status().disabled_generators, watch.status().swaps)


def test_a_forged_record_holds_up_no_disabling(place: SignedPlace) -> None:
    """
    What it said to leave out is not remembered as refused: the operator may say the same of a release that is bad.
    """
    watch = place.watch()
    watch.follow(place.forge(disabled_generators=["loom"]))
    (place.root / "active.json").write_text(place.releases.activate("1", place.by).model_dump_json())
    watch.follow(place.announced())
    with (place.root / "2" / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")
    place.releases.activate("2", place.by)
    control = place.releases.disable(place.by, generators=frozenset({"loom"}))
    watch.follow(control)

    assert ("1", 1) == (watch.status().release, watch.status().disabled_generators)


def test_a_forged_record_that_comes_back_is_looked_at_again(
    place: SignedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Behind a signed one that failed in passing: it enables nothing, and what is done of the signed one stays.
    """
    signed = place.releases.disable(place.by, generators=frozenset({"mill"}))
    watch = place.watch()
    control = place.releases.activate("2", place.by)
    forged = place.forge(disabled_generators=[], disabled_entries=blinding(place.banks[1])[:1])
    told = []
    for announced in (forged, control, forged, forged):
        with monkeypatch.context() as away:
            away.setattr("worker.operation.bank_watch.read_release", _away)
            watch.follow(announced)
        told.append(refusal(watch)[:2])
    watch.follow(signed)
    watch.follow(control)

    assert ["is signed by nobody" in why for why, _ in told] == [True, False, True, True]
    assert "the store answered 503" in told[1][0]
    assert [disabled for _, disabled in told] == [0, 0, 0, 0]
    assert ("2", 1, None) == (watch.status().release, watch.status().disabled_generators, watch.status().last_refusal)


def test_a_refused_release_is_told_of_again_behind_a_forged_record(place: SignedPlace, tmp_path: Path) -> None:
    """
    It is not loaded again, and what is disabled with it stays left out.
    """
    place.releases.publish(place.banks[1], "c", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    watch = place.watch()
    place.releases.activate("c", place.by)
    control = place.releases.disable(place.by, generators=frozenset({"loom"}))
    watch.follow(control)
    before = watch.status()
    watch.follow(place.forge(disabled_generators=[]))
    between = refusal(watch)[0]
    watch.follow(control)

    assert "is signed by nobody" in between
    assert "canaries were judged as expected" in (before.last_refusal or "")
    assert (before, 2) == (watch.status(), place.counted("refused"))
    assert ("1", 1) == (before.release, before.disabled_generators)


def test_what_is_signed_is_followed_and_ends_the_refusal(place: SignedPlace) -> None:
    """
    The operator's next command mends what was forged, and starts from what was signed, not from what was forged.
    """
    watch = place.watch()
    watch.follow(place.forge(disabled_generators=["loom"]))
    control = place.releases.disable(place.by, generators=frozenset({"mill"}))
    watch.follow(control)

    assert ("mill",) == control.disabled_generators
    assert ("", 0, 0.0) == refusal(watch)
    assert 1 == watch.status().disabled_generators


def test_a_changed_record_is_refused_by_whoever_trusts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A signature that is there must be right, as a bank's must.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    watch = place.watch()
    make_key(tmp_path / "key.pem")
    signed = place.releases.disable(
        Issuer("a test", key=read_key(tmp_path / "key.pem")), generators=frozenset({"mill"})
    )
    watch.follow(signed.model_copy(update={"disabled_generators": ()}))

    assert "a signature of key" in refusal(watch)[0]
    watch.follow(signed)
    assert 1 == watch.status().disabled_generators


def test_an_old_record_is_not_played_again(place: SignedPlace) -> None:
    """
    What was signed before a reference was disabled brings it back in no worker that runs.
    """
    old = place.releases.active()
    assert old is not None
    disabled = place.releases.disable(place.by, generators=frozenset({"mill"}))
    watch = place.watch()
    watch.follow(old)
    replayed = refusal(watch)[0]
    watch.follow(disabled)

    assert "an older record was put back" in replayed
    assert ("", 0, 0.0) == refusal(watch)
    assert 1 == watch.status().disabled_generators


def test_commands_do_not_start_from_an_old_record(place: SignedPlace) -> None:
    """
    Put back over the pointer, it must not bring back what was disabled under a new signature.
    """
    old = (place.root / "active.json").read_bytes()
    place.releases.disable(place.by, generators=frozenset({"mill"}))
    (place.root / "active.json").write_bytes(old)
    control = place.releases.activate("2", place.by)

    assert ("mill",) == control.disabled_generators


def test_a_start_takes_what_was_signed_last(place: SignedPlace) -> None:
    """
    A forged pointer is refused, and so is what it disables; forged steps of the history are passed over.
    """
    place.releases.disable(place.by, generators=frozenset({"mill"}))
    forged = place.forge(disabled_entries=blinding(place.banks[0]), disabled_generators=[])
    (place.root / "history" / "000099-activate.json").write_text(forged.model_dump_json())
    watch = place.watch()
    why, disabled, gauge = refusal(watch)

    assert ("1", 1, 0, 1.0) == (watch.status().release, watch.status().disabled_generators, disabled, gauge)
    assert "the pointer: BankInvalid: " in why
    with pytest.raises(BankInvalid, match="is signed by nobody"):
        active_release(place.settings)


def test_a_start_without_any_signed_record_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As when keys are trusted for the first time: what holds has to be signed before.
    """
    place = SignedPlace(tmp_path, monkeypatch)
    for step in (place.root / "history").iterdir():
        step.unlink()
    place.forge()

    with pytest.raises(CannotStart, match="with `--key KEYFILE`"):
        place.watch()


def test_the_first_signed_record_takes_over_what_is_disabled(place: SignedPlace) -> None:
    """
    Where nothing was signed yet there is nothing else to start from, and the command tells of it.
    """
    for step in (place.root / "history").iterdir():
        step.unlink()
    place.forge(disabled_generators=["mill"])
    damage = place.releases.damage()
    control = place.releases.activate("1", place.by)

    assert damage is not None
    assert "is signed by nobody" in damage
    assert ("mill",) == control.disabled_generators
    assert place.releases.damage() is None


@pytest.mark.parametrize("change", ["activate", "rollback", "disable"])
def test_changes_need_a_trusted_key(place: SignedPlace, tmp_path: Path, change: str) -> None:
    """
    A record that no worker would follow is not written.
    """
    changes: dict[str, Callable[[Issuer], BankControlV1]] = {
        "activate": lambda issuer: place.releases.activate("2", issuer),
        "rollback": place.releases.rollback,
        "disable": lambda issuer: place.releases.disable(issuer, generators=frozenset({"mill"})),
    }
    make_key(tmp_path / "other.pem")
    before = (place.root / "active.json").read_bytes()
    for issuer in (BY, Issuer("a test", key=read_key(tmp_path / "other.pem"))):
        with pytest.raises(ConfigInvalid, match="pass the file of such a key with --key"):
            changes[change](issuer)

    assert before == (place.root / "active.json").read_bytes()


def test_rollback_passes_over_forged_steps(place: SignedPlace) -> None:
    """
    Nobody without a key says which release was there before.
    """
    place.releases.activate("2", place.by)
    forged = place.forge(release="9")
    (place.root / "history" / "000099-activate.json").write_text(forged.model_dump_json())

    assert "1" == place.releases.rollback(place.by).release


def test_a_clock_that_is_behind_hides_no_change(place: SignedPlace) -> None:
    """
    Each signed record is later than the one before it, whatever the operator's clock says.
    """
    watch = place.watch()
    ahead = datetime.now(UTC) + timedelta(hours=1)
    watch.follow(place.releases.activate("2", Issuer("ahead", at=ahead, key=place.key)))
    watch.follow(place.releases.rollback(place.by))

    assert ("1", None) == (watch.status().release, watch.status().last_refusal)


def test_nobody_else_pushes_the_time_forward(place: SignedPlace) -> None:
    """
    Neither a forged pointer nor one without signature says what time it is.
    """
    place.forge(issued_at="9999-12-31T23:59:59.999999Z")
    control = place.releases.activate("2", place.by)
    free = Releases(DirectoryPlace(place.root))
    place.forge(issued_at="9999-12-31T23:59:59.999999Z")

    assert control.issued_at.year < 9999
    assert free.activate("1", place.by).issued_at.year < 9999


def test_a_record_of_another_bank_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With keys or without: another bank answers another question.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    watch = place.watch()
    watch.follow(place.announced(bank="other"))

    assert "is of bank 'other'" in refusal(watch)[0]


def _away(*_: object) -> None:
    raise CannotStart("the store answered 503")
