"""
What every place of releases must do alike: a directory, and S3 (moto's server); and the life of releases in each.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3.session import Session
from botocore.config import Config
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from tests.bank_builders import a_source, build_small
from tests.release_worlds import BY, canaries_of, small_banks
from worker.adapters.s3_releases import COPIES_KEPT, S3Place
from worker.bank.files import load_bank
from worker.bank.release_place import DirectoryPlace, ReleasePlace
from worker.bank.releases import Issuer, Releases
from worker.errors import BankInvalid, CannotStart, ConfigInvalid
from worker.operation.active_release import open_releases
from worker.settings.images import FetchSettings, S3Profile
from worker.settings.tree import Settings

NONE: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """
    Versions 1, 2 and 3 of a bank.
    """
    return small_banks(tmp_path_factory.mktemp("banks"), 3)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """
    The address of moto's S3 server.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def s3_settings(url: str) -> FetchSettings:
    """
    One profile, for one bucket.
    """
    profile = S3Profile(
        endpoint_url=url,
        region="us-east-1",
        access_key_id="test",
        secret_access_key=SecretStr("test"),
        buckets=("banks",),
    )
    return FetchSettings(s3={"moto": profile})


def make_bucket(url: str) -> None:
    """
    The profile's bucket, also where it is there already.
    """
    session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")  # noqa: S106 - moto
    session.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}, proxies={})).create_bucket(
        Bucket="banks"
    )


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> ReleasePlace:
    """
    An empty place.
    """
    if request.param == "directory":
        return DirectoryPlace(tmp_path / "place")
    url: str = request.getfixturevalue("moto_url")
    make_bucket(url)
    return S3Place(f"s3://banks/{tmp_path.name}/", s3_settings(url), profile="moto", cache=tmp_path / "cache")


@pytest.fixture
def releases(place: ReleasePlace, banks: list[Path]) -> Releases:
    """
    Releases 1, 2 and 3; none is active.
    """
    place.write("unrelated.txt", b"a note")
    found = Releases(place)
    for bank in banks:
        found.publish(bank)
    return found


def test_small_files_are_replaced_whole(place: ReleasePlace) -> None:
    """
    What is read is what was written last; what was never written is not there.
    """
    place.write("folder/one.json", b"1")
    place.write("folder/one.json", b"22")

    assert place.read("folder/one.json") == b"22"
    assert place.read("folder/two.json") is None
    assert place.read("folder/one.json/below") is None
    assert (place.listed(), place.listed("folder"), place.listed("other")) == (["folder"], ["one.json"], [])


def test_a_published_release_is_the_bank(releases: Releases, banks: list[Path]) -> None:
    """
    Every file came whole, and nothing is active by being published.
    """
    assert [one.name for one in releases.releases()] == ["1", "2", "3"]
    assert (releases.bank_id(), releases.active()) == ("small", None)
    control = releases.activate("2", BY)
    assert releases.stored(control).manifest == load_bank(banks[1]).manifest


def test_releases_never_change(releases: Releases, banks: list[Path]) -> None:
    """
    A name that is taken is refused, whatever the bank.
    """
    with pytest.raises(ConfigInvalid, match="has a release 1 already"):
        releases.publish(banks[1], "1")


@pytest.mark.parametrize("name", ["../up", "active.json", "history", "a/b", ".hidden"])
def test_a_release_has_a_name_of_its_own(releases: Releases, banks: list[Path], name: str) -> None:
    """
    No name leads out of the place, or hides what the place keeps itself.
    """
    with pytest.raises(ConfigInvalid, match="the release is named"):
        releases.publish(banks[0], name)


def test_activating_and_rolling_back(releases: Releases) -> None:
    """
    Each rollback goes one activation further back, and an activation goes on from there.
    """
    for name in ("1", "2", "3"):
        releases.activate(name, BY)
    went = [releases.rollback(BY).release, releases.rollback(BY).release]
    with pytest.raises(ConfigInvalid, match="no release was active before"):
        releases.rollback(BY)
    releases.activate("3", Issuer("somebody", "the mill is out"))
    active = releases.active()

    assert went == ["2", "1"]
    assert active is not None
    assert (active.release, active.issued_by, active.reason) == ("3", "somebody", "the mill is out")
    assert releases.rollback(BY).release == "1"
    assert [step for step, _ in releases.history()] == [*["activate"] * 3, *["rollback"] * 2, "activate", "rollback"]


def test_what_is_disabled_stays_so_through_activation_and_rollback(releases: Releases) -> None:
    """
    Until it is enabled again, by name.
    """
    releases.activate("1", BY)
    entry = releases.stored(releases.activate("2", BY)).entries.entry(0).id
    releases.disable(BY, entries=frozenset({entry}), generators=frozenset({"mill"}))
    after = [releases.activate("3", BY), releases.rollback(BY), releases.rollback(BY)]
    enabled = releases.disable(BY, entries=NONE, generators=frozenset({"mill"}), enable=True)

    assert [one.release for one in after] == ["3", "2", "1"]
    assert {(one.disabled_entries, one.disabled_generators) for one in after} == {((entry,), ("mill",))}
    assert (enabled.disabled_entries, enabled.disabled_generators) == ((entry,), ())


def test_disabling_what_is_not_there_is_refused(releases: Releases) -> None:
    """
    A name that was mistyped would disable nothing, and nobody would notice.
    """
    with pytest.raises(ConfigInvalid, match="no release is active"):
        releases.disable(BY, entries=NONE, generators=frozenset({"mill"}))
    releases.activate("1", BY)
    with pytest.raises(ConfigInvalid, match="'mil' is not in release 1"):
        releases.disable(BY, entries=NONE, generators=frozenset({"mil"}))
    with pytest.raises(ConfigInvalid, match="'mill' is not disabled"):
        releases.disable(BY, entries=NONE, generators=frozenset({"mill"}), enable=True)


def test_another_release_than_was_activated_is_refused(releases: Releases) -> None:
    """
    The manifest's hash is what was activated, not the name; and no copy of it stays.
    """
    control = releases.activate("1", BY).model_copy(update={"release": "2"})
    for _ in range(2):
        with pytest.raises(BankInvalid, match="was activated"):
            releases.verified(control)


def test_a_file_that_was_damaged_is_refused_and_fetched_again(releases: Releases, banks: list[Path]) -> None:
    """
    Once it has been mended in the place, the very same record can be followed.
    """
    control = releases.activate("1", BY)
    entries = (banks[0] / "entries.jsonl").read_bytes()
    releases.place.write("1/entries.jsonl", entries[:-5])
    with pytest.raises(BankInvalid, match=r"entries\.jsonl has sha256"):
        releases.verified(control)
    releases.place.write("1/entries.jsonl", entries)

    assert load_bank(releases.verified(control)).manifest.version == "1"


def test_canaries_are_covered_by_the_pointer(releases: Releases, banks: list[Path], tmp_path: Path) -> None:
    """
    They go with the release; without them it is not the one that was activated.
    """
    releases.publish(banks[0], "watched", canaries=canaries_of(banks[0], tmp_path))
    control = releases.activate("watched", BY)
    folder = releases.verified(control)

    assert control.canaries_sha256 is not None
    assert (folder / "canaries.safetensors").is_file()
    releases.place.write("watched/canaries.json", b"{}")
    releases.place.forget_copy("watched", control.manifest_sha256)
    with pytest.raises(BankInvalid, match=r"canaries\.json has sha256"):
        releases.verified(control)


def test_a_pointer_that_says_nothing_is_refused(releases: Releases) -> None:
    """
    It is told where, and what mends it.
    """
    releases.place.write("active.json", b'{"bank": "small"}')

    with pytest.raises(BankInvalid, match="activate a release again"):
        releases.active()


def test_only_a_few_copies_are_kept(moto_url: str, banks: list[Path], tmp_path: Path) -> None:
    """
    A machine does not fill up with the releases of a year.
    """
    make_bucket(moto_url)
    cache = tmp_path / "cache"
    releases = Releases(S3Place(f"s3://banks/{tmp_path.name}", s3_settings(moto_url), profile="moto", cache=cache))
    for number in range(COPIES_KEPT + 2):
        releases.publish(banks[0], f"r{number}")
        releases.verified(releases.activate(f"r{number}", BY))

    assert len(list(cache.iterdir())) == COPIES_KEPT


def test_a_strange_object_in_a_release_is_refused(moto_url: str, banks: list[Path], tmp_path: Path) -> None:
    """
    A key of a store may be any text; only what can be a file of a release becomes one here.
    """
    make_bucket(moto_url)
    cache = tmp_path / "cache"
    releases = Releases(S3Place(f"s3://banks/{tmp_path.name}", s3_settings(moto_url), profile="moto", cache=cache))
    releases.publish(banks[0], "r1")
    releases.place.write("r1/..;strange", b"")
    control = releases.activate("r1", BY)

    with pytest.raises(BankInvalid, match=r"'\.\.;strange', expected at most .* remove what does not belong there"):
        releases.verified(control)
    assert not cache.exists()


def test_a_place_is_opened_by_its_address(moto_url: str, banks: list[Path], tmp_path: Path) -> None:
    """
    s3:// through the configured profile, its copies in the user's cache; anything else is a directory.
    """
    fetch = s3_settings(moto_url).model_dump() | {"s3_default_profile": "moto"}
    settings = Settings.model_validate({"fetch": fetch})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        remote = open_releases(f"s3://banks/{tmp_path.name}-opened", settings)
        remote.publish(banks[0])
        folder = remote.verified(remote.activate("1", BY))
    local = open_releases(str(tmp_path / "place"), settings)

    assert folder.is_relative_to(tmp_path / "cache" / "touchstone" / "releases")
    assert isinstance(local.place, DirectoryPlace)


def test_an_unreachable_store_is_told(tmp_path: Path) -> None:
    """
    With the place's name, and what to check.
    """
    place = S3Place("s3://banks/x", s3_settings("http://127.0.0.1:9"), profile="moto", cache=tmp_path)

    with pytest.raises(CannotStart, match=r"s3://banks/x cannot be reached"):
        Releases(place).active()


@pytest.mark.parametrize(
    ("address", "profile", "said"),
    [
        ("s3://", "moto", "expected s3://BUCKET/PREFIX"),
        ("s3://banks/x", None, "needs a profile"),
        ("s3://other/x", "moto", "is not among fetch.s3.moto.buckets"),
    ],
)
def test_an_address_that_may_not_be_used(address: str, profile: str | None, said: str, tmp_path: Path) -> None:
    """
    It is refused before anything is asked.
    """
    with pytest.raises(ConfigInvalid, match=said):
        S3Place(address, s3_settings("http://127.0.0.1:9"), profile=profile, cache=tmp_path)


def test_a_bank_of_another_id_is_refused(releases: Releases, banks: list[Path], tmp_path: Path) -> None:
    """
    A place is of one bank: its workers answer one question.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", id="other")

    with pytest.raises(BankInvalid, match="holds releases of bank 'small'"):
        releases.publish(tmp_path / "bank", "other")
    assert len(banks) == len(releases.releases())
