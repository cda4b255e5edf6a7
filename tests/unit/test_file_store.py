"""
Reading files below one root, and nothing else.
"""

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef
from worker.adapters.file_store import FileStore
from worker.errors import CannotStart, UploadFailed

LIMIT_BYTES = 2048


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """
    A root with one image, beside a file that is nobody's business.
    """
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "rooted").mkdir()  # its name begins like the root's
    (tmp_path / "rooted" / "other.png").write_bytes(b"other")
    root = tmp_path / "root"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "cat.png").write_bytes(b"cat")
    return root


def read(root: Path, path: str) -> bytes:
    """
    What a store at this root reads there.
    """
    return FileStore(root, max_image_bytes=LIMIT_BYTES).read(FileRef(kind="file", path=path))


def code_of(root: Path, path: str) -> ErrorCode:
    """
    The code with which reading there fails.
    """
    with pytest.raises(UploadFailed) as failed:
        read(root, path)
    return failed.value.code


@pytest.mark.parametrize("path", ["deep/cat.png", "./deep//cat.png", "deep/er/../cat.png"])
def test_paths_below_the_root_are_read(root: Path, path: str) -> None:
    """
    However a path is written, what counts is where it leads.
    """
    assert read(root, path) == b"cat"


def test_an_absolute_path_below_the_root_is_read(root: Path) -> None:
    """
    A path may be absolute, as long as it is below the root.
    """
    assert read(root, str(root / "deep" / "cat.png")) == b"cat"


def test_a_root_reached_through_a_link_is_still_the_root(root: Path, tmp_path: Path) -> None:
    """
    The configured root may itself be a link, as a mounted volume often is.
    """
    (tmp_path / "link").symlink_to(root)

    assert read(tmp_path / "link", "deep/cat.png") == b"cat"


def test_links_within_the_root_are_followed(root: Path) -> None:
    """
    A link from one place below the root to another is no escape.
    """
    (root / "cat-link.png").symlink_to("deep/cat.png")
    (root / "folder-link").symlink_to("deep")

    assert [read(root, path) for path in ("cat-link.png", "folder-link/cat.png")] == [b"cat", b"cat"]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "deep/../../outside.txt",
        "../rooted/other.png",
        "/etc/passwd",
        "../does-not-exist",
        "..",
        ".",
        "deep/..",
        "cat\0.png",
    ],
)
def test_paths_out_of_the_root_are_refused(root: Path, path: str) -> None:
    """
    What lies outside is refused alike, whether it exists or not.
    """
    assert code_of(root, path) is ErrorCode.REF_FORBIDDEN


def test_links_out_of_the_root_are_refused(root: Path) -> None:
    """
    Neither a link to a file outside nor one to a folder outside leads there, nor a loop of links anywhere.
    """
    (root / "file-link").symlink_to("../outside.txt")
    (root / "folder-link").symlink_to("..")
    (root / "absolute-link").symlink_to("/etc/passwd")
    (root / "loop").symlink_to("loop")
    paths = ["file-link", "folder-link/outside.txt", "absolute-link", "loop"]

    assert [code_of(root, path) for path in paths] == [ErrorCode.REF_FORBIDDEN] * 4


def test_a_link_that_appears_after_the_check_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When a folder is exchanged for a link between check and opening, the file behind the link is not read.
    """
    resolve = os.path.realpath
    store = FileStore(root, max_image_bytes=LIMIT_BYTES)

    def exchange_after(path: str) -> str:
        real = resolve(path)
        (root / "deep").rename(root / "moved")
        (root / "deep").symlink_to(root.parent / "rooted")
        return real

    monkeypatch.setattr(os.path, "realpath", exchange_after)
    with pytest.raises(UploadFailed) as failed:
        store.read(FileRef(kind="file", path="deep/other.png"))

    assert failed.value.code in {ErrorCode.REF_FORBIDDEN, ErrorCode.FETCH_NOT_FOUND}


@pytest.mark.parametrize("path", ["deep/none.png", "none/cat.png", "deep/cat.png/more", "x" * 300])
def test_absent_files_are_not_found(root: Path, path: str) -> None:
    """
    Below the root, what is not there is not found.
    """
    assert code_of(root, path) is ErrorCode.FETCH_NOT_FOUND


def test_only_regular_files_are_read(root: Path) -> None:
    """
    A folder, a FIFO and a socket are refused at once; nobody waits for the FIFO's writer.
    """
    os.mkfifo(root / "pipe")
    (root / "pipe-link").symlink_to("pipe")
    started_s = time.monotonic()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        codes = [code_of(root, name) for name in ("deep", "pipe", "pipe-link", "socket")]

    assert codes == [ErrorCode.REF_FORBIDDEN] * 4
    assert time.monotonic() - started_s < 30


def test_devices_are_refused() -> None:
    """
    A device below the root is no image, however many bytes it gives.
    """
    assert code_of(Path("/dev"), "zero") is ErrorCode.REF_FORBIDDEN


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, ErrorCode.FETCH_UNAUTHORIZED), (errno.EIO, ErrorCode.FETCH_UPSTREAM)]
)
def test_a_file_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: ErrorCode) -> None:
    """
    Missing permission and a broken disk are told apart from a missing file; root, as whom tests may run, sees neither.
    """

    def refuse(*_args: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)

    assert code_of(root, "deep/cat.png") is code


@pytest.mark.parametrize("state", ["gone", "empty", "a file"])
def test_a_root_that_is_not_mounted_is_our_failure(root: Path, state: str) -> None:
    """
    While nothing lies at the root, what an event names is not missing: time may bring it back.
    """
    store = FileStore(root, max_image_bytes=LIMIT_BYTES)
    root.rename(root.parent / "elsewhere")
    if state == "empty":
        root.mkdir()
    elif state == "a file":
        root.write_bytes(b"")
    with pytest.raises(UploadFailed, match="mounted") as failed:
        store.read(FileRef(kind="file", path="deep/cat.png"))

    assert failed.value.code is ErrorCode.FETCH_UPSTREAM


def test_size_is_limited(root: Path) -> None:
    """
    The limit itself is read; one byte more is refused, as is a sparse giant.
    """
    (root / "fits").write_bytes(bytes(LIMIT_BYTES))
    (root / "large").write_bytes(bytes(LIMIT_BYTES + 1))
    with (root / "giant").open("wb") as file:
        file.truncate(2**40)

    assert len(read(root, "fits")) == LIMIT_BYTES
    assert [code_of(root, name) for name in ("large", "giant")] == [ErrorCode.FETCH_TOO_LARGE] * 2


def test_a_file_that_does_not_tell_its_size_is_limited_too() -> None:
    """
    What says it has 0 bytes, as files of /proc do, is counted as it is read.
    """
    store = FileStore(Path("/proc/self"), max_image_bytes=10)
    with pytest.raises(UploadFailed) as failed:
        store.read(FileRef(kind="file", path="status"))

    assert failed.value.code is ErrorCode.FETCH_TOO_LARGE


def test_a_root_that_is_no_directory_stops_the_start(root: Path) -> None:
    """
    A root that is missing, or a file, is named in the error.
    """
    for wrong in (root / "none", root / "deep" / "cat.png"):
        with pytest.raises(CannotStart, match=r"fetch\.file_root"):
            FileStore(wrong, max_image_bytes=LIMIT_BYTES)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What its size was a moment ago does not cut it off.
    """
    (root / "growing.png").write_bytes(b"first part")
    status = os.fstat

    def grown_after(file: int) -> os.stat_result:
        found = status(file)
        with (root / "growing.png").open("ab") as stream:
            stream.write(b", and the second")
        return found

    monkeypatch.setattr(os, "fstat", grown_after)

    assert read(root, "growing.png") == b"first part, and the second"


def test_a_file_that_comes_in_parts_is_read_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file system may give less than it is asked for, as those over a network do.
    """
    whole = os.read
    monkeypatch.setattr(os, "read", lambda file, count: whole(file, min(count, 2)))

    assert read(root, "deep/cat.png") == b"cat"
