"""
What keeps something of images, in dictionaries, held to the same contract as what lies in Redis.
"""

from collections.abc import Mapping, Sequence

from worker.contents import ContentName
from worker.domain import ContentHash
from worker.errors import StoreUnavailable

Named = dict[ContentName, set[ContentHash]]
Values = dict[tuple[str, ContentHash], bytes]


class InMemoryContents:
    """
    A ``ContentIndex`` and a ``Forgetter``; ``values`` are by scope and hash. While ``down`` it cannot be reached.
    """

    def __init__(self, *, named: Named | None = None, values: Values | None = None) -> None:
        self.named: Named = {} if named is None else named
        self.values: Values = {} if values is None else values
        self.gone: set[ContentName] = set()
        self.marked: set[ContentName] = set()
        self.down = False
        self.calls: list[str] = []

    def note(self, found: Sequence[tuple[ContentName, ContentHash]]) -> frozenset[ContentName]:
        """
        Add to the bytes that these contents had; which of them are marked.
        """
        self._reach("note")
        self.gone -= {content for content, _ in found}
        for content, content_hash in found:
            self.named.setdefault(content, set()).add(content_hash)
        return frozenset(self.marked & {content for content, _ in found})

    def mark_gone(self, contents: Sequence[ContentName]) -> None:
        """
        For good, which is longer than a test.
        """
        self._reach("mark_gone")
        self.marked |= set(contents)

    def bytes_of(self, contents: Sequence[ContentName]) -> Mapping[ContentName, frozenset[ContentHash]]:
        """
        What was noted.
        """
        self._reach("bytes_of")
        return {content: frozenset(self.named.get(content, ())) for content in contents}

    def let_go(self, contents: Sequence[ContentName]) -> None:
        """
        A day is long: ``gone`` has the names that will have expired.
        """
        self._reach("let_go")
        self.gone |= set(contents)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove the values in every scope.
        """
        self._reach("forget")
        gone = [key for key in self.values if key[1] in hashes]
        for key in gone:
            del self.values[key]
        return len(gone)

    def damaged(self) -> int:
        """
        Nobody else writes here.
        """
        return 0

    def close(self) -> None:
        """
        Nothing is held.
        """

    def _reach(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise StoreUnavailable("Redis is down")
