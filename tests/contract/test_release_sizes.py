"""
What is brought of a release from a store: no more of any object than can be right, and nothing after a wrong manifest.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from tests.release_worlds import BY, canaries_of, small_banks
from worker.adapters import s3_releases
from worker.adapters.s3_releases import S3Place, _Bounded
from worker.bank import release_place
from worker.bank.files import load_bank, read_manifest
from worker.bank.manifest import CANARIES, CANARY_VECTORS, ENTRIES
from worker.bank.manifest_checks import MAX_CANARIES_BYTES, MAX_ENTRY_BYTES, most_bytes
from worker.bank.release_place import DirectoryPlace, ReleasePlace
from worker.bank.releases import Releases
from worker.errors import BankInvalid
from worker.settings.images import FetchSettings, S3Profile

LONGEST = 4_096


class Noted:
    """
    A client of boto3 that keeps what was asked for.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - boto3's clients are made as it runs
        self._client = client
        self.brought: list[str] = []

    def download_fileobj(self, bucket: str, key: str, file: Any) -> None:  # noqa: ANN401 - whatever is written to
        """
        As the client does.
        """
        self.brought.append(key.rpartition("/")[2])
        self._client.download_fileobj(bucket, key, file)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the client's own
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A small bank.
    """
    return small_banks(tmp_path_factory.mktemp("banks"), 1)[0]


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """
    The address of moto's S3 server, with one bucket.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")  # noqa: S106 - moto
    config = Config(s3={"addressing_style": "path"}, proxies={})
    session.client("s3", endpoint_url=url, config=config).create_bucket(Bucket="banks")
    yield url
    server.stop()


@pytest.fixture
def remote(moto_url: str, tmp_path: Path) -> tuple[S3Place, Noted]:
    """
    An empty place in the store, and what is asked of it.
    """
    profile = S3Profile(
        endpoint_url=moto_url,
        region="us-east-1",
        access_key_id="test",
        secret_access_key=SecretStr("test"),
        buckets=("banks",),
    )
    address, cache = f"s3://banks/{tmp_path.name}", tmp_path / "cache"
    place = S3Place(address, FetchSettings(s3={"moto": profile}), profile="moto", cache=cache)
    noted = Noted(place._client)
    place._client = noted  # type: ignore[assignment] # it does what the client does
    return place, noted


def test_an_object_that_is_too_long_is_not_brought_whole(remote: tuple[S3Place, Noted], bank: Path) -> None:
    """
    The manifest counts its entries; beyond what so many lines can take nothing is written, and no copy stays.
    """
    place, _ = remote
    releases = Releases(place)
    releases.publish(bank, "r1")
    control = releases.activate("r1", BY)
    longest = most_bytes(ENTRIES, read_manifest(bank))
    place.write(f"r1/{ENTRIES}", b" " * (longest + 1))

    assert longest == read_manifest(bank).counts.entries * MAX_ENTRY_BYTES
    with pytest.raises(BankInvalid, match=rf"r1/{ENTRIES} has more than {longest} bytes"):
        releases.verified(control)
    assert list(place._cache.iterdir()) == []
    place.write(f"r1/{ENTRIES}", (bank / ENTRIES).read_bytes())
    assert releases.stored(control).manifest == load_bank(bank).manifest


def test_nothing_is_brought_of_another_release_than_was_activated(remote: tuple[S3Place, Noted], bank: Path) -> None:
    """
    The manifest is looked at first: it says how long the others may be, and so it must be the right one.
    """
    place, noted = remote
    releases = Releases(place)
    releases.publish(bank, "r1")
    control = releases.activate("r1", BY).model_copy(update={"manifest_sha256": "0" * 64})
    with pytest.raises(BankInvalid, match=r"0{64} was activated"):
        releases.verified(control)

    assert noted.brought == []


@pytest.mark.parametrize("name", ["pickle.bin", "weights.pt"])
def test_what_is_no_file_of_a_bank_is_not_brought(remote: tuple[S3Place, Noted], bank: Path, name: str) -> None:
    """
    However small it is.
    """
    place, noted = remote
    releases = Releases(place)
    releases.publish(bank, "r1")
    place.write(f"r1/{name}", b"x")
    control = releases.activate("r1", BY)
    with pytest.raises(BankInvalid, match=rf"has '{name}', which is no file of a bank"):
        releases.verified(control)

    assert noted.brought == []


def test_a_release_without_a_manifest_is_refused(remote: tuple[S3Place, Noted], bank: Path) -> None:
    """
    It was not published to its end.
    """
    place, noted = remote
    place.write(f"r1/{ENTRIES}", (bank / ENTRIES).read_bytes())
    with pytest.raises(BankInvalid, match="it was not published whole"):
        place.folder("r1", "0" * 64)

    assert noted.brought == []


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleasePlace:
    """
    A place whose small files may have 4 096 bytes.
    """
    for module in (release_place, s3_releases):
        monkeypatch.setattr(module, "MAX_SMALL_BYTES", LONGEST)
    if request.param == "directory":
        return DirectoryPlace(tmp_path / "place")
    found: tuple[S3Place, Noted] = request.getfixturevalue("remote")
    return found[0]


def test_small_files_are_bounded(place: ReleasePlace) -> None:
    """
    A pointer of gigabytes takes no memory from a worker that looks at it every few seconds.
    """
    place.write("active.json", b" " * LONGEST)
    right = place.read("active.json")
    place.write("active.json", b" " * (LONGEST + 1))

    assert right == b" " * LONGEST
    with pytest.raises(BankInvalid, match=rf"active\.json has more than {LONGEST} bytes"):
        place.read("active.json")


def test_a_step_that_is_too_long_hides_no_other(place: ReleasePlace, bank: Path) -> None:
    """
    It is passed over like one that says nothing, and a list of releases tells which manifest is too long.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (release_place, s3_releases):
            patch.setattr(module, "MAX_SMALL_BYTES", 1 << 20)
        Releases(place).publish(bank, "r1")
        control = Releases(place).activate("r1", BY)
    place.write("history/000002-activate.json", b" " * (LONGEST + 1))
    place.write("r2/manifest.json", b" " * (LONGEST + 1))
    listed = {one.name: one.problem for one in Releases(place).releases()}

    assert list(Releases(place).states()) == [control]
    assert f"r2/manifest.json has more than {LONGEST} bytes" in (listed["r2"] or "")


def test_parts_in_any_order_are_bounded() -> None:
    """
    A transfer writes at offsets and may write again; what counts is where a part would end.
    """
    data = io.BytesIO()
    file = _Bounded(data, 10, "s3://banks/x", "r1/entries.jsonl")
    for offset, part in ((5, b"56789"), (0, b"01234"), (5, b"56789")):
        file.seek(offset)
        file.write(part)
    file.seek(6)

    assert (data.getvalue(), file.tell(), file.seekable()) == (b"0123456789", 6, True)
    with pytest.raises(BankInvalid, match="has more than 10 bytes"):
        file.write(b"56789")
    assert data.getvalue() == b"0123456789"


def test_canaries_are_bounded_as_what_they_are(bank: Path, tmp_path: Path) -> None:
    """
    Not as the largest file that a bank may have.
    """
    manifest = read_manifest(bank)

    assert {most_bytes(name, manifest) for name in (CANARIES, CANARY_VECTORS)} == {MAX_CANARIES_BYTES}
    assert all(path.stat().st_size < MAX_CANARIES_BYTES for path in canaries_of(bank, tmp_path).values())
