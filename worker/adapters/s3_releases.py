"""
A place of bank releases in an S3-compatible store, and the copies that are brought to this machine.

Endpoint and credentials are those of a profile of ``fetch.s3``, whose ``buckets`` are obeyed. Image bytes are read in
``s3_store.py``.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from worker.adapters.s3_store import ABSENT, made_client
from worker.bank.manifest import MANIFEST, MANIFEST_SUM, BankManifest
from worker.bank.manifest import manifest_sha256 as sha256_of_manifest
from worker.bank.manifest_checks import known_files, most_bytes, parsed_manifest
from worker.bank.release_place import MAX_SMALL_BYTES, too_long
from worker.errors import BankInvalid, CannotStart, ConfigInvalid
from worker.settings.images import FetchSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COPIES_KEPT: Final = 3
"""Releases that stay on this machine: the present one, the one before, and one that is on its way."""

MAX_FILES: Final = 32
"""More than a release has; a folder of more is no release, and is not brought here."""

_HASH_DIGITS: Final = 16
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEME: Final = "s3://"


class S3Place:
    """
    Implements ``worker.bank.release_place.ReleasePlace`` below s3://BUCKET/PREFIX.

    Copies are kept below ``cache``. Raises ``ConfigInvalid`` for an address, profile or bucket that may not be used.
    """

    def __init__(self, address: str, settings: FetchSettings, *, profile: str | None, cache: Path) -> None:
        self._bucket, _, prefix = address.removeprefix(_SCHEME).partition("/")
        self._prefix = prefix.strip("/")
        self._name = address
        self._cache = cache
        name = profile or settings.s3_default_profile
        if not self._bucket or not address.startswith(_SCHEME):
            raise ConfigInvalid(f"{address!r} is no place of releases; expected s3://BUCKET/PREFIX")
        if name is None or name not in settings.s3:
            raise ConfigInvalid(
                f"{address} needs a profile of fetch.s3; set bank.s3_profile (configured are {sorted(settings.s3)})"
            )
        if settings.s3[name].buckets and self._bucket not in settings.s3[name].buckets:
            raise ConfigInvalid(f"bucket {self._bucket!r} is not among fetch.s3.{name}.buckets; add it, or use another")
        self._client: S3Client = made_client(settings.s3[name], settings)

    @property
    def name(self) -> str:
        """
        The address.
        """
        return self._name

    def read(self, name: str) -> bytes | None:
        """
        An object's bytes.
        """
        with self._reaching():
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code", "") in ABSENT - {"NoSuchBucket"}:
                    return None
                raise
            # Whatever length the store names: so much is read and no more.
            with closing(body):
                data = body.read(MAX_SMALL_BYTES + 1)
        if len(data) > MAX_SMALL_BYTES:
            raise too_long(self._name, name, MAX_SMALL_BYTES)
        return data

    def write(self, name: str, data: bytes) -> None:
        """
        One request: S3 shows an object whole or not at all.
        """
        with self._reaching():
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    def listed(self, folder: str = "") -> list[str]:
        """
        Objects and common prefixes.
        """
        prefix = self._key(f"{folder}/" if folder else "")
        found = set()
        with self._reaching():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                found |= {one["Key"] for one in page.get("Contents", [])}
                found |= {one["Prefix"].rstrip("/") for one in page.get("CommonPrefixes", [])}
        return sorted(name for key in found if (name := key.removeprefix(prefix)))

    def put(self, release: str, files: Mapping[str, Path]) -> None:
        """
        One object after the other, in the order of ``files``.
        """
        with self._reaching():
            for name, path in files.items():
                self._client.upload_file(str(path), self._bucket, self._key(f"{release}/{name}"))

    def folder(self, release: str, manifest_sha256: str) -> Path:
        """
        A copy of the release, brought here unless it is here already.
        """
        target = self._copy(release, manifest_sha256)
        if target.is_dir():
            target.touch()
            return target
        # A store may hold an object whose key is the folder's own; its name below the folder is empty.
        names = [name for name in self.listed(release) if name]
        if len(names) > MAX_FILES or not all(_FILE.fullmatch(name) for name in names):
            strange = next((name for name in names if not _FILE.fullmatch(name)), f"{len(names)} files")
            raise BankInvalid(
                f"{self._name}: release {release!r} has {strange[:80]!r}, expected at most {MAX_FILES} files, named "
                "with letters, digits, dots, dashes and underscores; remove what does not belong there"
            )
        if not names:
            raise BankInvalid(f"{self._name} has no release {release!r}; publish it, or activate another one")
        manifest = self._manifest(release, manifest_sha256)
        if strangers := sorted(set(names) - known_files(manifest)):
            raise BankInvalid(
                f"{self._name}: release {release!r} has {strangers[0]!r}, which is no file of a bank; remove what does "
                "not belong there"
            )
        with self._reaching():
            self._cache.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=".release-", dir=self._cache))
            try:
                for name in names:
                    self._bring(f"{release}/{name}", fresh / name, most_bytes(name, manifest))
                _rename(fresh, target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        self._prune()
        return target

    def forget_copy(self, release: str, manifest_sha256: str) -> None:
        """
        Remove the copy.
        """
        shutil.rmtree(self._copy(release, manifest_sha256), ignore_errors=True)

    def _manifest(self, release: str, manifest_sha256: str) -> BankManifest:
        # It says how long every other file can be, so nothing else is brought before it is known for the right one.
        name = f"{release}/{MANIFEST}"
        data = self.read(name)
        if data is None:
            raise BankInvalid(f"{self._name} has no {name}: it was not published whole; publish the bank again")
        manifest = parsed_manifest(f"{self._name}: release {release}", data, self.read(f"{release}/{MANIFEST_SUM}"))
        if (found := sha256_of_manifest(manifest)) != manifest_sha256:
            raise BankInvalid(
                f"{self._name}: release {release} has a {MANIFEST} with sha256 {found}, {manifest_sha256} was "
                "activated: it is another bank than the operator meant; activate the release again if it is right"
            )
        return manifest

    def _bring(self, name: str, target: Path, longest: int) -> None:
        with target.open("wb") as file:
            # A transfer seeks, tells and writes, and asks for nothing else of a file.
            bounded = cast("BinaryIO", _Bounded(file, longest, self._name, name))
            self._client.download_fileobj(self._bucket, self._key(name), bounded)

    def _copy(self, release: str, manifest_sha256: str) -> Path:
        return self._cache / f"{release}-{manifest_sha256[:_HASH_DIGITS]}"

    def _prune(self) -> None:
        copies = [path for path in self._cache.iterdir() if path.is_dir() and not path.name.startswith(".")]
        for old in sorted(copies, key=lambda path: path.stat().st_mtime, reverse=True)[COPIES_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            raise CannotStart(
                f"the place of releases {self._name} answered {status} {code[:64]}; check bucket and permissions"
            ) from error
        except (BotoCoreError, OSError) as error:
            raise CannotStart(
                f"the place of releases {self._name} cannot be reached ({type(error).__name__}); check the endpoint of "
                "its profile in fetch.s3"
            ) from error
        except Exception as error:
            # boto3's transfers raise errors of their own, which share nothing but this module's reason to know them.
            if type(error).__module__.partition(".")[0] in {"boto3", "s3transfer", "botocore"}:
                raise CannotStart(f"the place of releases {self._name} failed ({type(error).__name__})") from error
            raise


class _Bounded:
    """
    A file for a transfer that writes its parts in any order; it refuses those beyond its longest.
    """

    def __init__(self, file: BinaryIO, longest: int, place: str, name: str) -> None:
        self._file = file
        self._longest = longest
        self._refusal = too_long(place, name, longest)

    def seekable(self) -> bool:
        """
        A part that is asked for again is written over what came of it before.
        """
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """
        Where the next part goes.
        """
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """
        Where the next part goes.
        """
        return self._file.tell()

    def write(self, data: bytes) -> int:
        """
        A part. Raises ``BankInvalid`` where it would end beyond the longest.
        """
        if self._file.tell() + len(data) > self._longest:
            raise self._refusal
        return self._file.write(data)


def _rename(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:
        # Another worker of this machine was quicker; the names are by hash, so what it brought is the same.
        if not target.is_dir():
            raise
