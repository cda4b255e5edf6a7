"""
A bank into which somebody brought a cluster of mislabelled references: no worker changes over to it.
"""

from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small, write_pictures
from tests.release_worlds import BY, WatchedPlace, canaries_of
from worker.bank.describe import describe
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Releases
from worker.errors import BankInvalid


def poisoned(folder: Path) -> Path:
    """
    A bank in which the pictures of a generator are called real; every checksum and every count of it is right.
    """
    source = folder / "poisoned"
    write_pictures(source, *(f"real/{number:03d}.png" for number in range(6)))
    write_pictures(source, *(f"real/of-mill-{number:03d}.png" for number in range(4)), first_seed=1000)
    write_pictures(source, *(f"fake/loom/{number:03d}.png" for number in range(3)), first_seed=2000)
    return build_small(source, folder / "bank-poisoned", version="9").path


def test_a_mislabelled_cluster_is_not_activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The canaries tell it: the worker stays with the bank it has, and names those that went wrong.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    bank = poisoned(tmp_path)
    place.releases.publish(bank, "9", canaries=canaries_of(bank, tmp_path))
    watch = place.watch()
    watch.follow(place.releases.activate("9", BY))
    status = watch.status()

    assert "1" == status.release
    assert "3 of 5 canaries were judged as expected" in (status.last_refusal or "")
    assert "fake/mill/000.png (expected ai_generated, real" in (status.last_refusal or "")


def test_without_canaries_nobody_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The poison is real: the same release without canaries is changed over to, so that the test above can fail.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    place.releases.publish(poisoned(tmp_path), "9")
    watch = place.watch()
    watch.follow(place.releases.activate("9", BY))

    assert "9" == watch.status().release


def test_one_picture_under_two_labels_is_refused_when_it_is_built(tmp_path: Path) -> None:
    """
    The same bytes cannot be both; nothing is put in place.
    """
    write_pictures(tmp_path / "source", "real/a.png", first_seed=1)
    write_pictures(tmp_path / "source", "fake/mill/a.png", first_seed=1)
    with pytest.raises(BankInvalid, match="the same bytes have two labels"):
        build_small(tmp_path / "source", tmp_path / "bank")

    assert not (tmp_path / "bank").exists()
    assert not Releases(DirectoryPlace(tmp_path)).releases()


@pytest.mark.parametrize(("elsewhere", "warned"), [(0, 1), (1, 0)])
def test_a_label_of_one_source_is_told(elsewhere: int, warned: int, tmp_path: Path) -> None:
    """
    More than nine in ten of a label from one source: `bank inspect` says so, and which.
    """
    source = a_source(tmp_path / "source", reals=4, fakes=4)
    rows = [f"real/{at:03d}.png,real,{'crawl' if at >= elsewhere else 'archive'}" for at in range(4)]
    rows += [f"fake/mill/{at:03d}.png,ai_generated,mill-{at % 2}" for at in range(4)]
    (source / "list.csv").write_text("path,label,source\n" + "\n".join(rows) + "\n")
    made = build_small(source / "list.csv", tmp_path / "bank")
    told = [one for one in describe(made.path, made.bank).warnings if "come from one source" in one]

    assert warned == len(told)
    assert all("100% of real come from one source, 'crawl'" in one for one in told)
