"""
What every place of images must do alike, whatever its protocol: inline, https, s3 (moto's server) and file.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import trustme
from boto3.session import Session
from botocore.config import Config
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef, HttpsRef, ImageRef, InlineRef, S3Ref, UploadedImage
from tests.scripted_web import ScriptedWeb, answer, scripted_web, tls_for
from worker.adapters.image_store import RoutedImageStore, build_image_store
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings, S3Profile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LIMIT_BYTES = 200_000
SAMPLES = [b"\0", bytes(range(256)) * 500, b"--boundary\r\n\r\n0\r\n\r\n", b"\xff\xd8\xff\xe0 cat"]


class Place(Protocol):
    """
    Somewhere to put an image, and a store that is configured to read there.
    """

    def settings(self) -> FetchSettings:
        """
        The configuration with which the worker may read here.
        """

    def put(self, name: str, data: bytes) -> ImageRef:
        """
        The data lies here now; the reference leads to it.
        """


@dataclass
class InlinePlace:
    """
    Within the event itself.
    """

    def settings(self) -> FetchSettings:
        """
        Nothing to configure.
        """
        return FetchSettings(max_image_bytes=LIMIT_BYTES)

    def put(self, name: str, data: bytes) -> ImageRef:
        """
        The data as base64.
        """
        assert name
        return InlineRef(kind="inline", base64=base64.b64encode(data).decode())


@dataclass
class HttpsPlace:
    """
    A web server with a certificate for its address.
    """

    web: ScriptedWeb
    ca_file: Path

    def settings(self) -> FetchSettings:
        """
        The loopback is allowed, and its authority trusted.
        """
        return FetchSettings(max_image_bytes=LIMIT_BYTES, allow_private_addresses=True, ca_file=self.ca_file)

    def put(self, name: str, data: bytes) -> ImageRef:
        """
        A route of its own.
        """
        self.web.routes[f"/{name}"] = answer(200, data)
        return HttpsRef(kind="https", url=self.web.url(f"/{name}", host="127.0.0.1"))


@dataclass
class S3Place:
    """
    A bucket of moto's S3, asked over HTTP as any other.
    """

    endpoint_url: str
    bucket: str

    def settings(self) -> FetchSettings:
        """
        One profile, which is the default.
        """
        profile = S3Profile(
            endpoint_url=self.endpoint_url,
            region="us-east-1",
            access_key_id="test",
            secret_access_key=SecretStr("test"),
            buckets=(self.bucket,),
        )
        return FetchSettings(max_image_bytes=LIMIT_BYTES, s3={"moto": profile}, s3_default_profile="moto")

    def put(self, name: str, data: bytes) -> ImageRef:
        """
        An object of its own.
        """
        client = s3_client(self.endpoint_url)
        client.put_object(Bucket=self.bucket, Key=f"folder/{name} ü?#.png", Body=data)
        return S3Ref(kind="s3", bucket=self.bucket, key=f"folder/{name} ü?#.png")


@dataclass
class FilePlace:
    """
    A directory.
    """

    root: Path

    def settings(self) -> FetchSettings:
        """
        The directory is the root.
        """
        return FetchSettings(max_image_bytes=LIMIT_BYTES, file_root=self.root)

    def put(self, name: str, data: bytes) -> ImageRef:
        """
        A file of its own.
        """
        (self.root / name).write_bytes(data)
        return FileRef(kind="file", path=name)


@cache
def s3_client(endpoint_url: str) -> "S3Client":
    """
    A client with which a test puts objects.
    """
    session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")  # noqa: S106 - moto
    config = Config(s3={"addressing_style": "path"}, proxies={})
    return session.client("s3", endpoint_url=endpoint_url, config=config)


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


@pytest.fixture(scope="module")
def bucket(moto_url: str) -> str:
    """
    A bucket that keeps versions.
    """
    client = s3_client(moto_url)
    client.create_bucket(Bucket="uploads")
    client.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
    return "uploads"


@pytest.fixture
def https_place(tmp_path: Path) -> Iterator[HttpsPlace]:
    """
    A web server of this test's own.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with scripted_web(tls_for(authority, "127.0.0.1")) as web:
        yield HttpsPlace(web, tmp_path / "ca.pem")


@pytest.fixture
def s3_place(moto_url: str, bucket: str) -> S3Place:
    """
    The bucket.
    """
    return S3Place(moto_url, bucket)


@pytest.fixture
def file_place(tmp_path: Path) -> FilePlace:
    """
    A directory of this test's own.
    """
    (tmp_path / "root").mkdir()
    return FilePlace(tmp_path / "root")


@pytest.fixture(params=["inline", "https", "s3", "file"])
def place(request: pytest.FixtureRequest) -> Place:
    """
    Each kind of place in turn.
    """
    if request.param == "inline":
        return InlinePlace()
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def store(place: Place) -> Iterator[RoutedImageStore]:
    """
    The worker's image store, as configured for this place.
    """
    store = build_image_store(place.settings())
    yield store
    store.close()


def failure_of(store: RoutedImageStore, ref: ImageRef) -> UploadFailed:
    """
    How reading this reference fails.
    """
    with pytest.raises(UploadFailed) as failed:
        store.read(UploadedImage(ref=ref))
    return failed.value


@pytest.mark.parametrize("data", SAMPLES, ids=["one byte", "every byte", "like HTTP", "like JPEG"])
def test_bytes_come_back_unchanged(place: Place, store: RoutedImageStore, data: bytes) -> None:
    """
    What was put there is what is read, byte for byte.
    """
    ref = place.put("cat", data)

    assert store.read(UploadedImage(ref=ref)) == data


def test_reading_twice_reads_the_same(place: Place, store: RoutedImageStore) -> None:
    """
    Reading takes nothing away.
    """
    ref = place.put("cat", SAMPLES[1])

    assert store.read(UploadedImage(ref=ref)) == store.read(UploadedImage(ref=ref))


def test_the_limit_is_read_and_no_byte_more(place: Place, store: RoutedImageStore) -> None:
    """
    The size limit holds to the byte, wherever the image is.
    """
    fits = place.put("fits", bytes(LIMIT_BYTES))
    large = place.put("large", bytes(LIMIT_BYTES + 1))

    assert len(store.read(UploadedImage(ref=fits))) == LIMIT_BYTES
    assert failure_of(store, large).code is ErrorCode.FETCH_TOO_LARGE


def test_many_threads_read_their_own(place: Place, store: RoutedImageStore) -> None:
    """
    Threads that read at the same time get each its own image.
    """
    images = {f"image-{number}": bytes([number]) * (1000 + number) for number in range(16)}
    refs = {name: place.put(name, data) for name, data in images.items()}
    with ThreadPoolExecutor(8) as pool:
        read = dict(zip(refs, pool.map(lambda ref: store.read(UploadedImage(ref=ref)), refs.values()), strict=True))

    assert read == images


@pytest.mark.parametrize("kind", ["https", "s3", "file"])
def test_an_empty_image_reads_as_no_bytes(kind: str, request: pytest.FixtureRequest) -> None:
    """
    A store tells what is there; that nothing is no image, the fetch stage says.
    """
    place: Place = request.getfixturevalue(f"{kind}_place")
    ref = place.put("empty", b"")

    assert build_image_store(place.settings()).read(UploadedImage(ref=ref)) == b""


@pytest.mark.parametrize("kind", ["https", "s3", "file"])
def test_what_is_not_there_is_not_found(kind: str, request: pytest.FixtureRequest) -> None:
    """
    An absent image has the same code everywhere.
    """
    place: Place = request.getfixturevalue(f"{kind}_place")
    text = place.put("cat", b"cat").model_dump_json().replace("cat", "dog")
    dog = UploadedImage.model_validate_json(f'{{"ref": {text}}}').ref

    assert failure_of(build_image_store(place.settings()), dog).code is ErrorCode.FETCH_NOT_FOUND


@pytest.mark.parametrize(
    "ref",
    [
        S3Ref(kind="s3", bucket="uploads", key="cat"),
        FileRef(kind="file", path="cat"),
        HttpsRef(kind="https", url="http://93.184.216.34/cat"),
        HttpsRef(kind="https", url="https://127.0.0.1/cat"),
        HttpsRef(kind="https", url="https://localhost/cat"),
        HttpsRef(kind="https", url="https://[::1]/cat"),
        HttpsRef(kind="https", url="https://[::ffff:127.0.0.1]/cat"),
    ],
    ids=lambda ref: getattr(ref, "url", ref.kind),
)
def test_by_default_only_the_public_internet_is_asked(ref: ImageRef) -> None:
    """
    Without configuration there is no S3, no file, no plain http, and nothing on a private address.
    """
    store = build_image_store(FetchSettings())

    assert failure_of(store, ref).code is ErrorCode.REF_FORBIDDEN


def test_the_version_that_was_named_is_read(s3_place: S3Place) -> None:
    """
    A version id reads that version, also after the object was overwritten; an unknown one is not found.
    """
    client = s3_client(s3_place.endpoint_url)
    first = client.put_object(Bucket=s3_place.bucket, Key="cat", Body=b"first")["VersionId"]
    client.put_object(Bucket=s3_place.bucket, Key="cat", Body=b"second")
    store = build_image_store(s3_place.settings())
    refs = [S3Ref(kind="s3", bucket=s3_place.bucket, key="cat", version_id=version) for version in (first, None)]

    assert [store.read(UploadedImage(ref=ref)) for ref in refs] == [b"first", b"second"]
