"""
Files as a source of events, and lines as an outbox: what ``touchstone scan`` has in place of Kafka.
"""

import os
from pathlib import Path

import pytest

from schemas.uploaded import FileRef
from tests.builders import MAX_EVENT_BYTES
from tests.fake_outcomes import NOON, ManualClock
from worker.adapters.file_source import FileSource, event_of_file, list_files
from worker.adapters.line_outbox import LineOutbox
from worker.domain import Partition, RawEvent, Upload
from worker.errors import ConfigInvalid, PublishFailed
from worker.outcomes import Message, Release
from worker.ports import GroupMembership
from worker.stages.intake import read_event

FILES = Partition("files", 0)


def touch(root: Path, *names: str) -> list[Path]:
    """
    Files with something in them.
    """
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return [root / name for name in names]


def the_event(path: Path, surface: str | None = None) -> RawEvent:
    """
    The event of a file, at some position.
    """
    return event_of_file(path, (FILES, 3), surface=surface, now_s=NOON.timestamp())


def the_upload(path: Path, surface: str | None = None) -> Upload:
    """
    What the first stage makes of it.
    """
    return read_event(the_event(path, surface), max_event_bytes=MAX_EVENT_BYTES)


def test_folders_are_listed_in_order_and_without_what_is_hidden(tmp_path: Path) -> None:
    """
    All files below a folder come sorted, hidden ones are passed over; a file that is named is taken even if hidden.
    """
    touch(tmp_path, "b/2.png", "b/1.png", "a.jpg", ".hidden.png", "b/.thumbs/3.png")
    (hidden,) = touch(tmp_path / "else", ".mine.png")

    assert [tmp_path / "a.jpg", tmp_path / "b/1.png", tmp_path / "b/2.png"] == list_files([tmp_path])[:3]
    assert [hidden, tmp_path / "b/1.png"] == list_files([hidden, tmp_path / "b/1.png"])
    assert tmp_path / ".hidden.png" not in list_files([tmp_path])


def test_what_is_there_but_no_file_is_listed_to_fail(tmp_path: Path) -> None:
    """
    Linked folders are followed, each once; a broken link and a pipe get their line like every other file.
    """
    root = tmp_path / "root"
    touch(root, "a.png")
    touch(tmp_path, "elsewhere/b.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "broken.png").symlink_to("nowhere")
    os.mkfifo(root / "pipe.png")

    found = [file.relative_to(root).as_posix() for file in list_files([root])]
    assert sorted(found) == ["a.png", "broken.png", "linked/b.png", "pipe.png"]
    assert list_files([root / "broken.png"]) == [root / "broken.png"]


def test_a_folder_below_a_hidden_one_is_not_hidden_itself(tmp_path: Path) -> None:
    """
    What is hidden is judged from the folder that was named, not from the root of the disk.
    """
    (file,) = touch(tmp_path / ".cache" / "pictures", "1.png")

    assert [file] == list_files([file.parent])


def test_a_path_that_does_not_exist_is_an_error_of_the_command_line(tmp_path: Path) -> None:
    """
    A typing mistake is not an empty result.
    """
    with pytest.raises(ConfigInvalid, match=r"nothing\.png: no such file or folder"):
        list_files([tmp_path, tmp_path / "nothing.png"])


def test_the_event_of_a_file_is_one_that_the_worker_reads(tmp_path: Path) -> None:
    """
    Content id is the path as it was typed, the reference the path resolved, the surface what was asked for.
    """
    (file,) = touch(tmp_path, "sub/cat.png")
    typed = file.parent / ".." / "sub" / "cat.png"
    upload = the_upload(typed, "avatar")

    assert str(typed) == upload.data.content_id
    assert FileRef(kind="file", path=str(file.resolve())) == upload.data.image.ref
    assert upload.data.context is not None
    assert "avatar" == upload.data.context.surface
    assert "touchstone/scan" == upload.identity.source
    assert (FILES, 3) == (upload.raw.partition, upload.raw.offset)


def test_without_a_surface_the_policy_chooses(tmp_path: Path) -> None:
    """
    No surface is asked for unless one is given.
    """
    upload = the_upload(touch(tmp_path, "cat.png")[0])

    assert upload.data.context is not None
    assert upload.data.context.surface is None


def test_the_same_file_is_the_same_event_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So that its verdict has the same id in every scan; another file is another event.
    """
    one, other = touch(tmp_path, "one.png", "other.png")
    monkeypatch.chdir(tmp_path)

    assert the_upload(one).identity.id == the_upload(Path("one.png")).identity.id
    assert the_upload(one).identity.id != the_upload(other).identity.id


def test_a_very_long_path_is_shortened_from_the_left(tmp_path: Path) -> None:
    """
    A content id has at most 256 characters: the end of a path says more than its beginning.
    """
    (file,) = touch(tmp_path, f"{'a' * 200}/{'b' * 200}.png")
    content_id = the_upload(file).data.content_id

    assert 256 == len(content_id)
    assert content_id.startswith("…")
    assert str(file).endswith(content_id[1:])


@pytest.mark.parametrize("name", ["ünïcode 🐈.png", "quote\"'.png", "percent%20.png", "back\\slash.png"])
def test_odd_names_are_read_like_any_other(tmp_path: Path, name: str) -> None:
    """
    Names are data: they pass through JSON and back.
    """
    upload = the_upload(touch(tmp_path, name)[0])

    assert isinstance(upload.data.image.ref, FileRef)
    assert Path(upload.data.image.ref.path).name == name


def test_a_name_with_control_characters_is_read_and_shown_without_them(tmp_path: Path) -> None:
    """
    A file is judged whatever its name; a content id must be one line of text.
    """
    (file,) = touch(tmp_path, "new\nline\t.png")
    upload = the_upload(file)

    assert isinstance(upload.data.image.ref, FileRef)
    assert str(file.resolve()) == upload.data.image.ref.path
    assert upload.data.content_id.endswith("/new\ufffdline\ufffd.png")


def test_a_name_that_is_not_utf_8_is_still_an_upload(tmp_path: Path) -> None:
    """
    It ends as a verdict, if only a failed one, and not as a dead letter; two such names are two events.
    """
    one, other = touch(tmp_path, os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png"))

    assert the_upload(one).data.content_id.endswith("/\ufffd.png")
    assert the_upload(one).identity.id != the_upload(other).identity.id


def test_files_come_in_order_as_far_as_there_is_room(tmp_path: Path) -> None:
    """
    Positions count up in one partition; the source is exhausted when the last file is out, and never before.
    """
    files = touch(tmp_path, *(f"{number}.png" for number in range(5)))
    source = FileSource(files, surface=None, clock=ManualClock())
    rooms, polls = (2, 0, 2, 9, 9), []
    for room in rooms:
        polled = source.poll(room=room, wait_s=0.0)
        polls.append(([event.offset for event in polled.events], source.exhausted))
        assert frozenset() == polled.revoked

    assert [([0, 1], False), ([], False), ([2, 3], False), ([4], True), ([], True)] == polls


def test_no_files_are_an_exhausted_source() -> None:
    """
    A scan of an empty folder ends at once.
    """
    assert FileSource([], surface=None, clock=ManualClock()).exhausted


def test_events_are_received_when_they_are_polled(tmp_path: Path) -> None:
    """
    Time in the verdict counts from when the worker took the file, not from when it listed it.
    """
    clock = ManualClock()
    source = FileSource(touch(tmp_path, "1.png", "2.png"), surface=None, clock=clock)
    source.poll(room=1, wait_s=0.0)
    clock.now_s = 7.0
    (event,) = source.poll(room=1, wait_s=0.0).events

    assert NOON.timestamp() + 7.0 == event.received_at_s


def test_a_commit_is_always_taken(tmp_path: Path) -> None:
    """
    A scan is repeated, not resumed: there is nothing to store and nothing to refuse.
    """
    source = FileSource([], surface=None, clock=ManualClock())

    assert source.commit({FILES: 3})
    source.close()


def a_release(offset: int) -> Release:
    """
    A line to write.
    """
    return Release(FILES, offset, Message("verdicts", None, b"%d" % offset, (), 0))


def test_lines_are_written_in_order_and_then_acknowledged() -> None:
    """
    Each acknowledgement is told once.
    """
    written: list[bytes] = []
    outbox = LineOutbox(lambda message: written.append(message.value))
    outbox.publish([a_release(0), a_release(1)])
    outbox.publish([a_release(2)])
    outbox.flush(0.0)

    assert [b"0", b"1", b"2"] == written
    assert [(FILES, 0), (FILES, 1), (FILES, 2)] == outbox.take_acknowledged()
    assert [] == outbox.take_acknowledged()
    outbox.close()


def test_a_line_that_cannot_be_written_is_not_acknowledged() -> None:
    """
    A full disk or a closed pipe ends the scan where it stands.
    """

    def write(message: Message) -> None:
        if message.value == b"1":
            raise BrokenPipeError("head has seen enough")

    outbox = LineOutbox(write)

    with pytest.raises(BrokenPipeError):
        outbox.publish([a_release(0), a_release(1), a_release(2)])
    assert [(FILES, 0)] == outbox.take_acknowledged()


def test_lines_know_no_transactions() -> None:
    """
    The wrong promise is refused in words.
    """
    outbox = LineOutbox(lambda message: None)

    with pytest.raises(PublishFailed, match="use delivery at_least_once"):
        outbox.transact([a_release(0)], {FILES: 1}, GroupMembership(None))
