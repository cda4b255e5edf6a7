"""
Which bytes this process was told to forget, and when, so that nothing measured of them before is written afterwards.

Removing what is written already is the business of ``worker.operation.forgetting``.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from worker.domain import ContentHash

LATELY: Final = 100_000
"""Hashes that are remembered as forgotten: some 15 MB. It is no promise that lapses; see ``ForgottenLately.since``."""

WRITE_ENDS_S: Final = 30.0
"""How long to wait for a write under way before it is said that forgetting failed; it is then tried again."""


class ForgottenLately:
    """
    Counts turns, one for each telling; any thread may call.

    An upload takes the turn that it is when its bytes are asked for. What was forgotten in a later turn must not be
    kept of it; what was forgotten before may, because these are the bytes of a content that came afterwards.
    """

    def __init__(self, *, most: int = LATELY) -> None:
        self._most = most
        self._turn = 0
        self._floor = 0
        self._told: OrderedDict[ContentHash, int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def turn(self) -> int:
        """
        The turn that it is now.
        """
        return self._turn

    def tell(self, hashes: Iterable[ContentHash]) -> None:
        """
        These are forgotten from now on, in a turn of its own.
        """
        with self._lock:
            self._turn += 1
            for content_hash in hashes:
                self._told[content_hash] = self._turn
                self._told.move_to_end(content_hash)
            while len(self._told) > self._most:
                self._floor = self._told.popitem(last=False)[1]

    def since(self, content_hash: ContentHash, turn: int) -> bool:
        """
        Whether these bytes were forgotten after ``turn``.

        Of more hashes than are remembered, those of an upload from before the oldest are taken as forgotten: that costs
        an embedding later, and keeps nothing that is gone.
        """
        with self._lock:
            return self._told.get(content_hash, self._floor) > turn
