"""
How many uploads may still become pictures to encode: by it the micro-batcher knows whether waiting brings anything.

Counted where they wait and are worked on (``inbox.py``), used in ``micro_batch.py``.
"""

import threading
from collections.abc import Callable


class Coming:
    """
    A count that tells when it falls to 0; any thread may add and take away.

    Whoever passes an upload on counts it again before letting go of it, so that it is 0 only when nobody is on the way.
    A count that is too high costs a deadline and one that is too low a fuller micro-batch: never an upload.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._tell: Callable[[], None] | None = None

    @property
    def nobody(self) -> bool:
        """
        Whether nobody is on the way at this moment.
        """
        return self._count <= 0

    def when_nobody(self, tell: Callable[[], None]) -> None:
        """
        Call ``tell`` whenever the last one has arrived or gone elsewhere, on that one's thread.
        """
        self._tell = tell

    def more(self, count: int = 1) -> None:
        """
        So many more have set out.
        """
        with self._lock:
            self._count += count

    def fewer(self, count: int = 1) -> None:
        """
        So many have arrived, or will not come.
        """
        with self._lock:
            self._count -= count
            last = self._count == 0
        if last and self._tell is not None:
            self._tell()
