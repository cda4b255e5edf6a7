"""
Forgetting: what was kept of a content's bytes is removed from every store that keeps anything of them.

The stores are behind ``worker.ports``; the thread of a live worker that listens for deletions is in ``listening.py``.
If other contents that still live have the same bytes, these are forgotten all the same: they are computed anew when
they are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from schemas import deleted
from schemas.deleted import ImageDeletedV1
from worker.contents import ContentIndex, ContentName
from worker.domain import ContentHash, RawEvent
from worker.errors import ArchiveUnavailable, NotForgotten, StoreUnavailable
from worker.operation.envelopes import read_enveloped
from worker.ports import Forgetter, Recorder

INDEX: Final = "the index of contents"


@dataclass(frozen=True, slots=True)
class Deletion:
    """
    A content that is gone, where it has a name, and the hashes that are known to be its bytes'.

    One that ``was_followed``, most likely and longer than a day ago, is followed again for the stores' sake alone.
    """

    content: ContentName | None
    hashes: tuple[ContentHash, ...] = ()
    was_followed: bool = False

    @classmethod
    def of(cls, event: ImageDeletedV1) -> Self:
        """
        What an event says.
        """
        return cls(ContentName(event.tenant_id, event.content_id), tuple(map(ContentHash, event.sha256)))


@dataclass(frozen=True, slots=True)
class Stores:
    """
    Everything that keeps something of an image, by the names that the counts and messages use.

    ``index`` is None where nothing tells which bytes a content had; then only hashes that are named can be forgotten.
    """

    index: ContentIndex | None
    forgetters: Mapping[str, Forgetter]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """
    What became of some deletions: values removed by store, stores that failed with why, and what was not known.

    Of ``unknown_contents`` no bytes were known: never seen, forgotten before, or their names have expired.
    """

    hashes: int = 0
    unknown_contents: tuple[ContentName, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """
        How many contents no bytes were known of.
        """
        return len(self.unknown_contents)

    def require_whole(self) -> None:
        """
        Raise ``NotForgotten`` unless every store has done it, and it was known of what.
        """
        if self.failed:
            raise NotForgotten(
                "Not everything is forgotten. "
                + " ".join(f"Not removed from {store}: {why}" for store, why in self.failed.items())
                + " What is named here may still lie there; run it again when it can be reached."
            )
        if self.unknown:
            raise NotForgotten(
                f"Of {self.unknown} contents no bytes are known: never seen, forgotten before, or their names are gone "
                "with Redis or with time. If anything of them was kept it is there still: find the bytes in their "
                "verdicts with `touchstone forget --search-verdicts`, or name them with --sha256."
            )


def read_deletion(raw: RawEvent) -> Deletion:
    """
    The deletion in a record. Raises ``EventUnreadable``.
    """
    return Deletion.of(read_enveloped(raw, deleted.TYPE, ImageDeletedV1).data)


def forget(deletions: Sequence[Deletion], stores: Stores, recorder: Recorder) -> Forgotten:
    """
    Remove what is kept of these; every store is tried, whatever becomes of the others. Raises nothing for a store.

    The names are marked as gone first, so that whoever notes bytes of theirs meanwhile hears of it, and let go last and
    only after all else: whoever repeats this after a failure finds the bytes by them. What was followed before is not
    marked again, or a content that has been uploaded since would be taken for gone, and is nothing to wonder about when
    no bytes are known.
    """
    names = [deletion.content for deletion in deletions if deletion.content is not None]
    removed: dict[str, int] = {}
    failed: dict[str, str] = {}
    known: Mapping[ContentName | None, frozenset[ContentHash]] = {}
    try:
        if stores.index is not None and names:
            stores.index.mark_gone([one.content for one in deletions if one.content and not one.was_followed])
        known = known_bytes(deletions, stores)
    except StoreUnavailable as fault:
        failed[INDEX] = str(fault)
    hashes = _hashes(deletions, known)
    for store, forgetter in stores.forgetters.items():
        try:
            removed[store] = forgetter.forget(hashes)
        except (StoreUnavailable, ArchiveUnavailable) as fault:
            failed.setdefault(store, str(fault))
    if stores.index is not None and names and not failed:
        try:
            stores.index.let_go(names)
        except StoreUnavailable as fault:
            failed[INDEX] = str(fault)
    unknown = () if failed else _unknown(deletions, known)
    forgotten = Forgotten(len(hashes), unknown, removed, failed)
    _count(forgotten, recorder)
    count_damaged(stores.index, recorder)
    return forgotten


def known_bytes(deletions: Sequence[Deletion], stores: Stores) -> Mapping[ContentName | None, frozenset[ContentHash]]:
    """
    Which bytes the contents of these deletions are known to have had. Raises ``StoreUnavailable``.
    """
    names = [deletion.content for deletion in deletions if deletion.content is not None]
    return dict(stores.index.bytes_of(names).items()) if stores.index is not None and names else {}


def _unknown(
    deletions: Sequence[Deletion], known: Mapping[ContentName | None, frozenset[ContentHash]]
) -> tuple[ContentName, ...]:
    """
    The contents, each once, of which neither a deletion nor the index names bytes; without those followed before.
    """
    told = {one.content for one in deletions if one.hashes}
    names = (one.content for one in deletions if one.content is not None and not one.was_followed)
    return tuple(dict.fromkeys(name for name in names if name not in told and not known.get(name)))


def _hashes(
    deletions: Sequence[Deletion], known: Mapping[ContentName | None, frozenset[ContentHash]]
) -> list[ContentHash]:
    found: dict[ContentHash, None] = {}
    for deletion in deletions:
        found |= dict.fromkeys([*deletion.hashes, *sorted(known.get(deletion.content, ()))])
    return list(found)


def _count(forgotten: Forgotten, recorder: Recorder) -> None:
    for store, number in forgotten.removed.items():
        if number:
            recorder.count("forgotten_total", number, store=store, result="removed")
    for store in forgotten.failed:
        recorder.count("forgotten_total", store="index" if store == INDEX else store, result="failed")
    if forgotten.unknown:
        recorder.count("forgotten_total", forgotten.unknown, store="index", result="unknown")


def count_damaged(index: ContentIndex | None, recorder: Recorder) -> None:
    """
    Count what the index has found in itself that no worker writes.
    """
    if index is not None and (damaged := index.damaged()):
        recorder.count("forgotten_total", damaged, store="index", result="invalid")
