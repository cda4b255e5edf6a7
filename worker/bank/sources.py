"""
Where references come from: a folder, a CSV listing, or files of one kind. Names and labels only; no image is opened.
"""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.bank.entries import MAX_WORDS
from worker.bank.manifest import Question
from worker.domain import Label
from worker.errors import BankInvalid, ConfigInvalid

SIDECARS: Final = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".pdf", ".pth", ".py", ".toml"}
    | {".txt", ".xml", ".yaml", ".yml", ".zip", ".tar", ".gz"}
)
"""Endings of files that lie beside images in published data sets; everything else is taken for an image and decoded."""

BESIDE_REALS: Final = {"0_real": "real", "1_fake": "ai_generated"}
"""UniversalFakeDetect's layout, in which the folder around the pair names the generator."""

FOLDERS: Final = {"real": "real", "fake": "ai_generated", **BESIDE_REALS}
"""Folder names that say a label of the shipped question without further words."""

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """
    One image to be added: ``name`` is its path within the source; ``sha256`` is what the source claims, if anything.
    """

    path: Path
    name: str
    label: Label
    generator: str | None = None
    source: str | None = None
    licence: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("generator", "source", "licence"):
            if len(getattr(self, name) or "") > MAX_WORDS:
                raise BankInvalid(f"{self.name}: its {name} is longer than {MAX_WORDS} characters; shorten it")


@dataclass(frozen=True, slots=True)
class Listing:
    """
    The references of one source, in a fixed order; ``ignored`` counts files that are no images by their ending.
    """

    kind: Literal["folder", "csv", "files"]
    name: str
    references: tuple[Reference, ...]
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class OneKind:
    """
    What is said of files that are all of one kind: their label, and if known by what and from where they are.
    """

    label: Label
    generator: str | None = None
    source: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        for name in ("generator", "source", "licence"):
            word: str | None = getattr(self, name)
            if word is not None and not (word == word.strip() and word.isprintable() and 0 < len(word) <= MAX_WORDS):
                raise ConfigInvalid(
                    f"the {name} is {word!r}; expected 1 to {MAX_WORDS} printable characters, no space at either end"
                )


def list_files(paths: Sequence[Path], question: Question, kind: OneKind) -> Listing:
    """
    The image files of these paths, all of one kind; of a folder everything below that may be an image by its ending.

    Raises ``ConfigInvalid`` for a label that the question does not have, ``BankInvalid`` when a path is not there or
    there is nothing.
    """
    if kind.label not in question.labels:
        raise ConfigInvalid(f"the label is {kind.label!r}, expected one of {', '.join(question.labels)}")
    named: list[tuple[Path, str]] = []
    ignored = 0
    for given in paths:
        if given.is_dir():
            for path in _files(given):
                if path.suffix.lower() in SIDECARS:
                    ignored += 1
                else:
                    named.append((path, (Path(given.name) / path.relative_to(given)).as_posix()))
        elif given.exists():
            named.append((given, str(given)))
        else:
            raise BankInvalid(f"{given} is not there; expected an image file or a folder of them")
    title = paths[0].resolve().name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") if paths else ""
    if not named:
        raise BankInvalid(f"{title or 'nothing'} lists no images ({ignored} other files)")
    references = tuple(
        Reference(path, name, kind.label, kind.generator, kind.source, kind.licence) for path, name in named
    )
    return Listing("files", title, references, ignored)


def list_source(source: Path, question: Question, label_map: Mapping[str, str] | None = None) -> Listing:
    """
    The references in a folder or a CSV file; ``label_map`` says which label a folder name or a CSV label means.

    Raises ``BankInvalid`` when something has no label of the question, or when there is nothing.
    """
    known = {label: label for label in question.labels}
    known |= {name: label for name, label in FOLDERS.items() if label in question.labels}
    known |= label_map or {}
    if strangers := sorted(set(known.values()) - set(question.labels)):
        raise BankInvalid(f"the label map names {', '.join(strangers)}, expected {', '.join(question.labels)}")
    if source.is_dir():
        listing = _list_folder(source, known, positive=question.positive)
    elif source.is_file():
        listing = _list_csv(source, known)
    else:
        raise BankInvalid(f"{source} is neither a folder nor a CSV file; expected real/ and fake/ folders or a listing")
    if not listing.references:
        raise BankInvalid(f"{source} lists no images ({listing.ignored} other files)")
    return listing


def _list_folder(root: Path, known: Mapping[str, str], *, positive: str) -> Listing:
    references: list[Reference] = []
    homeless: list[str] = []
    ignored = 0
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in SIDECARS:
            ignored += 1
        elif reference := _placed(path, name, known, positive):
            references.append(reference)
        else:
            homeless.append(name)
    if homeless:
        raise BankInvalid(
            f"{root}: {len(homeless)} files are in no folder that names a label ({_some(homeless)}); expected one of "
            f"{', '.join(sorted(known))} on the way. Move them, or map a folder with --label-map FOLDER=LABEL"
        )
    return Listing("folder", root.resolve().name, tuple(references), ignored)


def _placed(path: Path, name: str, known: Mapping[str, str], positive: str) -> Reference | None:
    """
    The reference that a file is by the folders it lies in; the outermost folder that names a label counts.

    Inside the positive label's folder the next folder names the generator (``fake/<generator>/…``); around
    UniversalFakeDetect's pair, the outermost one does (``<generator>/…/1_fake``). Any other folder names the source.
    """
    folders = name.split("/")[:-1]
    at = next((position for position, folder in enumerate(folders) if folder in known), None)
    if at is None:
        return None
    label = Label(known[folders[at]])
    around, within = (*folders[:at], None)[0], (*folders[at + 1 :], None)[0]
    if label != positive:
        return Reference(path, name, label, source=around or within)
    if folders[at] in BESIDE_REALS and around is not None:
        return Reference(path, name, label, generator=around)
    return Reference(path, name, label, generator=within, source=around)


def _files(root: Path) -> Iterator[Path]:
    """
    Every file below, sorted, hidden ones left out; linked folders are followed, each real folder once.
    """
    seen: set[str] = set()
    for folder, below, names in os.walk(root, onerror=_refuse_unread, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _refuse_unread(fault: OSError) -> None:
    raise BankInvalid(
        f"{fault.filename} cannot be read ({fault.strerror}); make it readable, or take it out"
    ) from fault


def _list_csv(file: Path, known: Mapping[str, str]) -> Listing:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise BankInvalid(
                    f"{file} has no column {' and '.join(sorted(missing))}; found {', '.join(reader.fieldnames or ())}"
                )
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as fault:
        raise BankInvalid(f"{file} is no CSV file in UTF-8: {fault}") from fault
    strangers = sorted({row["label"] or "" for row in rows} - set(known))
    if strangers:
        raise BankInvalid(
            f"{file} has labels {_some(strangers)}, expected {', '.join(sorted(known))}; "
            "name them with --labels and --positive, or map them with --label-map THEIRS=LABEL"
        )
    if nameless := sum(not row["path"] for row in rows):
        raise BankInvalid(f"{file} has {nameless} rows without a path; name the image of each, or take the row out")
    base = _base_of(file, rows)
    return Listing("csv", file.name, tuple(_of_row(base, row, known) for row in rows))


def _base_of(file: Path, rows: list[dict[str, str]]) -> Path:
    """
    The folder that paths are relative to: the file's own, or ``images/`` beside ``images.csv`` when the first is there.
    """
    first = (rows[0]["path"] or "") if rows else ""
    beside = file.with_suffix("")
    return beside if not (file.parent / first).is_file() and (beside / first).is_file() else file.parent


def _of_row(base: Path, row: Mapping[str, str | None], known: Mapping[str, str]) -> Reference:
    path, label = row["path"] or "", row["label"] or ""
    return Reference(
        path=base / path,
        name=path,
        label=Label(known[label]),
        generator=row.get("generator") or None,
        source=row.get("source") or None,
        licence=row.get("licence") or None,
        sha256=(row.get("sha256") or "").strip().lower() or None,
    )


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
