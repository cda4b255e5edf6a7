"""
How a thread that waits hears of what others have for it, without looking again and again.

What there is to be had lies elsewhere: in a queue, in a list, with a client library.
"""

from queue import Empty, SimpleQueue


class Bell:
    """
    One thread waits, any thread rings; also a signal handler, within the very thread that waits.

    Whoever rings has put down before what it rings for. Nothing is ever missed, and a ring may be heard though all that
    it was for is taken already.
    """

    def __init__(self) -> None:
        # Its put may be interrupted by itself, which that of a condition or an event may not.
        self._rings: SimpleQueue[None] = SimpleQueue()
        self._rung = False

    def ring(self) -> None:
        """
        Wake whoever waits, or let the next wait end at once; never blocks.
        """
        if not self._rung:
            self._rung = True
            self._rings.put(None)

    def wait(self, timeout_s: float) -> bool:
        """
        Block until it rings, for at most so many seconds; whether it rang.
        """
        try:
            self._rings.get(timeout=max(0.0, timeout_s))
        except Empty:
            return False
        # Before the waiter looks for what there is: whoever still finds it rung has put its own down already.
        self._rung = False
        return True
