"""
Contents by their names, and the seam to what knows which bytes they had. The other seams are in ``ports.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.domain import ContentHash


@dataclass(frozen=True, slots=True)
class ContentName:
    """
    What a platform calls a content, in all its revisions; content ids are a tenant's own.
    """

    tenant_id: str | None
    content_id: str


class ContentIndex(Protocol):
    """
    Which bytes a content had, so that it can be forgotten by its name. Every method blocks.

    All raise ``StoreUnavailable`` when the store cannot be reached.
    """

    def note(self, found: Sequence[tuple[ContentName, ContentHash]]) -> frozenset[ContentName]:
        """
        Keep that these contents had these bytes, beside those that they had before.

        Which of these contents are marked as gone: what is kept of the bytes just noted is to be forgotten.
        """

    def mark_gone(self, contents: Sequence[ContentName]) -> None:
        """
        Have whoever notes one of these contents within a day be told that it is gone.

        Before their bytes are asked for: whoever notes meanwhile is then either seen, or told.
        """

    def bytes_of(self, contents: Sequence[ContentName]) -> Mapping[ContentName, frozenset[ContentHash]]:
        """
        The bytes that each of these contents is known to have had; every one of them is a key.
        """

    def let_go(self, contents: Sequence[ContentName]) -> None:
        """
        Let the names themselves expire within a day, unless they are noted again.

        After their bytes, or a retry would not find these; and not at once, because other workers hear of the same
        deletion, each with a memory and perhaps an archive of its own.
        """

    def damaged(self) -> int:
        """
        How many entries were found since the last call that no worker writes, and taken out. Never blocks.
        """
