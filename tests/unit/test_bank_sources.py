"""
Which references a folder or a CSV listing holds, and under which labels.
"""

from pathlib import Path

import pytest

from tests.bank_builders import GENERATED, REAL, write_pictures
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.manifest import Question
from worker.bank.sources import Listing, Reference, list_source
from worker.domain import Label
from worker.errors import BankInvalid

Row = tuple[str, str, str | None, str | None]


def rows(listing: Listing) -> list[Row]:
    """
    Name, label, generator and source of each reference.
    """
    return [(one.name, one.label, one.generator, one.source) for one in listing.references]


@pytest.mark.parametrize(
    ("path", "label", "generator", "source"),
    [
        ("real/a.png", REAL, None, None),
        ("real/coco/2017/a.png", REAL, None, "coco"),
        ("fake/a.png", GENERATED, None, None),
        ("fake/flux/a.png", GENERATED, "flux", None),
        ("fake/flux/v1/real/a.png", GENERATED, "flux", None),
        ("study/fake/flux/a.png", GENERATED, "flux", "study"),
        ("study/real/a.png", REAL, None, "study"),
        ("ai_generated/flux/a.png", GENERATED, "flux", None),
        ("0_real/a.png", REAL, None, None),
        ("1_fake/a.png", GENERATED, None, None),
        ("progan/0_real/a.png", REAL, None, "progan"),
        ("progan/1_fake/a.png", GENERATED, "progan", None),
        ("progan/airplane/1_fake/a.png", GENERATED, "progan", None),
    ],
)
def test_folders_say_the_label(
    tmp_path: Path, path: str, label: Label, generator: str | None, source: str | None
) -> None:
    """
    Our layout, UniversalFakeDetect's at any depth, and folders around either.
    """
    write_pictures(tmp_path, path)

    assert rows(list_source(tmp_path, SHIPPED_QUESTION)) == [(path, label, generator, source)]


def test_a_question_of_ones_own(tmp_path: Path) -> None:
    """
    Folder names are its labels; the shipped names mean nothing there.
    """
    write_pictures(tmp_path, "cat/a.png", "dog/b.png", "dog/puppy/c.png")
    question = Question(labels=("cat", "dog"), positive="dog")

    assert [(one.name, one.label) for one in list_source(tmp_path, question).references] == [
        ("cat/a.png", "cat"),
        ("dog/b.png", "dog"),
        ("dog/puppy/c.png", "dog"),
    ]
    write_pictures(tmp_path, "fake/d.png")
    with pytest.raises(BankInvalid, match="no folder that names a label"):
        list_source(tmp_path, question)


def test_a_label_map_names_other_folders(tmp_path: Path) -> None:
    """
    And wins over what a folder would mean by itself.
    """
    write_pictures(tmp_path, "photos/a.png", "synth/b.png")
    found = list_source(tmp_path, SHIPPED_QUESTION, {"photos": "real", "synth": "ai_generated"})

    assert [one.label for one in found.references] == [REAL, GENERATED]
    with pytest.raises(BankInvalid, match="label map names cats"):
        list_source(tmp_path, SHIPPED_QUESTION, {"photos": "cats"})


def test_images_without_a_label_are_not_left_out_in_silence(tmp_path: Path) -> None:
    """
    They are named, with how to say what they are.
    """
    write_pictures(tmp_path, "real/a.png", "misc/b.png", "c.png")

    with pytest.raises(BankInvalid, match=r"2 files .*misc/b\.png.*--label-map"):
        list_source(tmp_path, SHIPPED_QUESTION)


def test_files_beside_the_images_are_counted_and_left(tmp_path: Path) -> None:
    """
    Text files and hidden ones are no images; anything else is for the decoder to judge.
    """
    write_pictures(tmp_path, "real/a.png")
    for name in ("real/notes.txt", "README.md", "real/.DS_Store", "real/b.heic"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_source(tmp_path, SHIPPED_QUESTION)

    assert [one.name for one in listing.references] == ["real/a.png", "real/b.heic"]
    assert listing.ignored == 2


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    """
    A data set may be linked in; a loop of links ends.
    """
    write_pictures(tmp_path / "elsewhere", "a.png")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "real").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "source", target_is_directory=True)

    assert [one.name for one in list_source(tmp_path / "source", SHIPPED_QUESTION).references] == ["real/a.png"]


def test_the_order_is_fixed(tmp_path: Path) -> None:
    """
    By path, so that two builds of one folder are one bank.
    """
    write_pictures(tmp_path, "real/b.png", "fake/z/a.png", "real/a.png", "fake/a/z.png")

    assert [one.name for one in list_source(tmp_path, SHIPPED_QUESTION).references] == [
        "fake/a/z.png",
        "fake/z/a.png",
        "real/a.png",
        "real/b.png",
    ]


def test_a_csv_listing(tmp_path: Path) -> None:
    """
    All columns that we know are taken, others ignored; paths are relative to the file.
    """
    (tmp_path / "list.csv").write_text(
        "path,label,generator,tier,source,licence,sha256\n"
        f"x/a.png,ai_generated,flux,matched,study,CC0-1.0,{'AB' * 32}\n"
        'x/"b",real,,matched,,,\n'
    )
    listing = list_source(tmp_path / "list.csv", SHIPPED_QUESTION)

    assert listing.kind == "csv"
    assert listing.references == (
        Reference(tmp_path / "x/a.png", "x/a.png", GENERATED, "flux", "study", "CC0-1.0", "ab" * 32),
        Reference(tmp_path / 'x/"b"', 'x/"b"', REAL),
    )


def test_a_csv_of_two_columns_is_enough(tmp_path: Path) -> None:
    """
    With a byte order mark, as spreadsheets write it, or not.
    """
    (tmp_path / "list.csv").write_text("path,label\na.png,real\n", encoding="utf-8-sig")

    assert rows(list_source(tmp_path / "list.csv", SHIPPED_QUESTION)) == [("a.png", REAL, None, None)]


def test_paths_in_the_folder_of_the_same_name(tmp_path: Path) -> None:
    """
    As published sets have it: ``images.csv`` beside ``images/``.
    """
    write_pictures(tmp_path / "images", "a.png")
    (tmp_path / "images.csv").write_text("path,label\na.png,real\nmissing.png,real\n")
    listing = list_source(tmp_path / "images.csv", SHIPPED_QUESTION)

    assert [one.path for one in listing.references] == [tmp_path / "images/a.png", tmp_path / "images/missing.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na,real\n", "no column path; found file, label"),
        ("", "no column label and path"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,cat\nb.png\n", "labels , cat, expected .*--label-map"),
        ("path,label,generator\na.png,real," + "x" * 300 + "\n", "generator is longer than 256"),
    ],
)
def test_a_listing_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """
    With what was found and what was expected.
    """
    (tmp_path / "list.csv").write_text(content)

    with pytest.raises(BankInvalid, match=message):
        list_source(tmp_path / "list.csv", SHIPPED_QUESTION)


def test_labels_of_a_listing_can_be_mapped(tmp_path: Path) -> None:
    """
    Theirs to ours.
    """
    (tmp_path / "list.csv").write_text("path,label\na.png,1\nb.png,0\n")
    found = list_source(tmp_path / "list.csv", SHIPPED_QUESTION, {"1": "ai_generated", "0": "real"})

    assert [one.label for one in found.references] == [GENERATED, REAL]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """
    A picture given for a listing, say.
    """
    write_pictures(tmp_path, "a.png")

    with pytest.raises(BankInvalid, match="no CSV file in UTF-8"):
        list_source(tmp_path / "a.png", SHIPPED_QUESTION)


def test_a_source_must_be_there(tmp_path: Path) -> None:
    """
    Neither folder nor file.
    """
    with pytest.raises(BankInvalid, match="neither a folder nor a CSV file"):
        list_source(tmp_path / "nowhere", SHIPPED_QUESTION)


@pytest.mark.shared_data
def test_the_field_data_is_listed_both_ways(shared_data: Path) -> None:
    """
    1,160 images by their CSV; by their folders the same labels.
    """
    by_csv = list_source(shared_data / "images.csv", SHIPPED_QUESTION)
    by_folder = list_source(shared_data / "images", SHIPPED_QUESTION)

    assert len(by_csv.references) == 1160
    assert all(one.path.is_file() for one in by_csv.references)
    assert {one.name: one.label for one in by_folder.references} == {one.name: one.label for one in by_csv.references}
