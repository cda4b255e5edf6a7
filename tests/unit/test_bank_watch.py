"""
A worker follows its place of releases, and whatever is wrong with a new one, the old one stays.
"""

import gc
import shutil
import weakref
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from schemas.bank_control import BankControlV1
from tests.bank_builders import a_source, build_small
from tests.fake_encoder import FakeEncoder, fake_embedder
from tests.release_worlds import BY, WatchedPlace, canaries_of
from worker.bank.files import load_bank
from worker.bank.releases import Issuer
from worker.errors import CannotStart, ConfigInvalid
from worker.flow.bank_judge import BankJudge
from worker.operation.bank_watch import BankWatch
from worker.views import ViewSpec


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    Releases 1 and 2; 1 is active.
    """
    return WatchedPlace(tmp_path, monkeypatch)


def in_use(watch: BankWatch) -> BankJudge:
    """
    The judge that a batch would be judged by now.
    """
    assert watch._judge is not None
    judge = watch._judge._held.judge
    assert isinstance(judge, BankJudge)
    return judge


def require_kept(place: WatchedPlace, watch: BankWatch, *words: str, result: str = "refused") -> None:
    """
    Release 1 is in use, and the status says why with these words.
    """
    status = watch.status()

    assert status.release == "1"
    assert in_use(watch).versions.bank.version == "1"
    assert place.counted(result) == 1
    assert status.last_refusal is not None
    assert [word for word in words if word not in status.last_refusal] == []


def activate_unusable(place: WatchedPlace, folder: Path, how: str) -> BankControlV1:
    """
    Release 3 becomes active, which no worker may use: its canaries miss, or a file of it is damaged.
    """
    wrong = 2 if how == "canaries" else 0
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], folder, wrong=wrong))
    control = place.releases.activate("3", BY)
    if how == "damage":
        with (place.root / "3" / "vectors.safetensors").open("r+b") as file:
            file.write(b"\xff\xff")
    return control


def test_the_active_release_is_opened_at_the_start(place: WatchedPlace) -> None:
    """
    The worker begins with the bank that the pointer names.
    """
    place.releases.activate("2", BY)

    assert place.open().bank.identity.version == "2"


def test_no_start_without_an_active_release(place: WatchedPlace) -> None:
    """
    Where nothing was activated the refusal says which commands to run.
    """
    (place.root / "active.json").unlink()

    with pytest.raises(CannotStart, match="names no active release; run `touchstone bank publish"):
        place.open()


def test_a_new_release_is_swapped_in(place: WatchedPlace) -> None:
    """
    Bank, versions and status change together.
    """
    watch = place.watch()
    watch.follow(place.releases.activate("2", BY))
    judge, status = in_use(watch), watch.status()

    assert (status.release, status.swaps, status.last_refusal) == ("2", 1, None)
    assert (judge.bank.identity.version, judge.versions.bank) == ("2", judge.bank.identity)
    assert place.counted("swapped") == 1


def test_the_same_announced_again_changes_nothing(place: WatchedPlace) -> None:
    """
    Who issued it and when is for people: no bank is loaded for that.
    """
    watch = place.watch()
    before = in_use(watch)
    watch.follow(place.releases.activate("1", Issuer("somebody else", "to be sure")))

    assert in_use(watch) is before
    assert watch.status().swaps == 0


def test_a_corrupt_release_is_refused_once(place: WatchedPlace) -> None:
    """
    The file is named; the same record is not tried again, and a rollback mends the state.
    """
    watch = place.watch()
    with (place.root / "2" / "vectors.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    control = place.releases.activate("2", BY)
    watch.follow(control)
    watch.follow(control)
    require_kept(place, watch, "vectors.safetensors", "damaged")
    watch.follow(place.releases.rollback(BY))

    assert watch.status().last_refusal is None
    assert watch.status().swaps == 0


def test_another_manifest_is_refused(place: WatchedPlace) -> None:
    """
    A release that was replaced by hand is not what the operator meant.
    """
    watch = place.watch()
    watch.follow(place.announced(release="2"))

    require_kept(place, watch, "was activated")


def test_another_encoder_is_refused(place: WatchedPlace, tmp_path: Path) -> None:
    """
    Vectors of another space are not searched.
    """
    watch = place.watch()
    build_small(a_source(tmp_path / "other"), tmp_path / "bank", fake_embedder(FakeEncoder(weights=7)), version="9")
    place.releases.publish(tmp_path / "bank")
    watch.follow(place.releases.activate("9", BY))

    require_kept(place, watch, "was built by another encoder")


def test_other_views_need_a_restart(place: WatchedPlace, tmp_path: Path) -> None:
    """
    What is measured of an upload cannot change while it is on its way; the refusal says what to do.
    """
    watch = place.watch()
    embedder = fake_embedder(views=ViewSpec(native_crops=2))
    build_small(a_source(tmp_path / "other"), tmp_path / "bank", embedder, version="9")
    place.releases.publish(tmp_path / "bank")
    watch.follow(place.releases.activate("9", BY))

    require_kept(place, watch, "restart the workers")


def test_a_place_out_of_reach_is_told_once_and_tried_again(place: WatchedPlace) -> None:
    """
    An outage costs nothing but a line in the log; when it is over the worker follows again.
    """
    watch = place.watch()
    control = place.releases.activate("2", BY)
    place.root.rename(place.root.with_name("away"))
    for _ in range(3):
        watch._look(place.releases.active)
    require_kept(place, watch, "cannot be used", result="unreachable")
    place.root.with_name("away").rename(place.root)
    watch._look(place.releases.active)

    assert watch.status().release == control.release
    assert watch.status().last_refusal is None


def test_what_nobody_thought_of_keeps_the_old_bank(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A fault of ours: the worker judges on.
    """

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    watch = place.watch()
    monkeypatch.setattr("worker.operation.bank_watch.read_release", fail)
    watch.follow(place.releases.activate("2", BY))

    require_kept(place, watch, "RuntimeError", "a fault of ours")


def test_canaries_are_judged_before_a_release_is_used(place: WatchedPlace, tmp_path: Path) -> None:
    """
    All as expected: the release is used.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path))
    watch = place.watch()
    watch.follow(place.releases.activate("3", BY))

    assert watch.status().release == "3"


def test_failing_canaries_keep_the_old_bank(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The refusal says how many, and names the worst.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    watch = place.watch()
    watch.follow(place.releases.activate("3", BY))

    require_kept(place, watch, "3 of 5 canaries", "real/000.png (expected ai_generated, real")


def test_fewer_canaries_may_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    bank.canary_agreement is the share that must agree.
    """
    place = WatchedPlace(tmp_path, monkeypatch, canary_agreement=0.6)
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    watch = place.watch()
    watch.follow(place.releases.activate("3", BY))

    assert watch.status().release == "3"


def test_canaries_that_were_changed_are_refused(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The pointer covers them: nobody can make a bank pass by editing what is expected.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    watch = place.watch()
    control = place.releases.activate("3", BY)
    file = place.root / "3" / "canaries.json"
    file.write_text(file.read_text().replace('"ai_generated"', '"real"'))
    watch.follow(control)

    require_kept(place, watch, "canaries.json has sha256")


def test_canaries_do_not_hold_up_disabling(place: WatchedPlace, tmp_path: Path) -> None:
    """
    What is taken out of a release that passed goes at once, though canaries leaned on it, and a new worker starts.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path))
    place.releases.activate("3", BY)
    watch = place.watch()
    entries = sorted(entry.id for entry in load_bank(place.banks[1]).entries if entry.label == "real")
    few = frozenset(entries[1:])
    watch.follow(place.releases.disable(BY, entries=few, generators=frozenset()))
    anew = place.watch()

    assert watch.status().disabled_entries == len(few) > 0
    assert in_use(watch).versions.bank == in_use(anew).versions.bank


def test_disabling_reads_nothing_again(place: WatchedPlace) -> None:
    """
    The files may even be gone; the versions of later verdicts say that something is left out.
    """
    watch = place.watch()
    whole = in_use(watch).bank.identity
    control = place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"}))
    shutil.rmtree(place.root)
    watch.follow(control)
    left = in_use(watch).versions.bank

    assert left.entries == whole.entries - 4
    assert left.manifest_sha256 == whole.manifest_sha256
    assert left.index.startswith("flat without ")
    assert watch.status().disabled_generators == 1


def test_disabling_and_enabling_comes_back_to_the_same_versions(place: WatchedPlace) -> None:
    """
    A verdict's versions depend on what was left out, not on the way there.
    """
    watch = place.watch()
    before = in_use(watch).versions
    watch.follow(place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"})))
    between = in_use(watch).versions
    everything = {"entries": frozenset(), "generators": frozenset({"mill"})}
    watch.follow(place.releases.disable(BY, **everything, enable=True))

    assert between.decision_versions() != before.decision_versions()
    assert in_use(watch).versions == before


def test_disabling_a_whole_label_is_refused(place: WatchedPlace) -> None:
    """
    Without a reference of a label nothing can be judged.
    """
    watch = place.watch()
    watch.follow(place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill", "loom"})))

    require_kept(place, watch, "leaves no reference of label ai_generated")


@pytest.mark.parametrize("how", ["canaries", "damage"])
def test_disabling_reaches_the_old_bank_while_a_release_is_refused(
    place: WatchedPlace, tmp_path: Path, how: str
) -> None:
    """
    The record names a release that is not in use; what it leaves out goes all the same, and comes back so too.
    """
    watch = place.watch()
    whole = in_use(watch).versions.bank.entries
    watch.follow(activate_unusable(place, tmp_path, how))
    disabled = place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"}))
    watch.follow(disabled)
    watch.follow(disabled)
    left, status = in_use(watch).versions.bank, watch.status()
    watch.follow(place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"}), enable=True))

    assert ("3", "1", "1", whole - 4) == (disabled.release, status.release, left.version, left.entries)
    assert (1, 1) == (status.disabled_generators, status.swaps)
    assert status.last_refusal is not None
    assert status.last_refusal.startswith("release 3: ")
    assert whole == in_use(watch).versions.bank.entries


def test_what_only_the_old_bank_has_can_be_disabled(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The refused release was built without the bad generator already, and the bank in use still has it.
    """
    watch = place.watch()
    build_small(a_source(tmp_path / "other"), tmp_path / "bank", version="9")
    place.releases.publish(tmp_path / "bank", "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    watch.follow(place.releases.activate("3", BY))
    watch.follow(place.releases.disable(BY, entries=frozenset(), generators=frozenset({"loom"})))

    assert "1" == watch.status().release
    assert 1 == watch.status().disabled_generators
    with pytest.raises(ConfigInvalid, match="'flux' is not in release 3, nor in one before it"):
        place.releases.disable(BY, entries=frozenset(), generators=frozenset({"loom", "flux"}))


def test_what_cannot_be_left_out_of_the_old_bank_is_told(place: WatchedPlace, tmp_path: Path) -> None:
    """
    Without a label nothing could be judged: the bank stays whole, the refusal stays too, and no look fails.
    """
    watch = place.watch()
    whole = in_use(watch)
    watch.follow(activate_unusable(place, tmp_path, "damage"))
    with capture_logs() as lines:
        watch.follow(place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill", "loom"})))

    assert whole is in_use(watch)
    assert ["bank.not_left_out", "bank.refused"] == [line["event"] for line in lines]
    assert "leaves no reference of label ai_generated" in lines[0]["why"]


def test_a_new_start_leaves_out_what_is_disabled(place: WatchedPlace) -> None:
    """
    A restart is no way for a disabled reference to come back.
    """
    place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"}))
    watch = place.watch()

    assert " without " in place.open().bank.identity.index
    watch.follow(place.announced(disabled_generators=[]))
    assert " without " not in in_use(watch).bank.identity.index


def test_the_old_bank_is_freed_at_once(place: WatchedPlace) -> None:
    """
    Without waiting for the garbage collector, which passes over what a worker has frozen.
    """
    live = place.open()
    watch = place.watch(live)
    gc.disable()
    try:
        first = weakref.ref(live.bank)
        del live
        watch.follow(place.releases.activate("2", BY))
        second = weakref.ref(in_use(watch).bank)
        watch.follow(place.releases.rollback(BY))

        assert (first(), second()) == (None, None)
    finally:
        gc.enable()
