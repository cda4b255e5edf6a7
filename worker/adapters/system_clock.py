"""
The system's clock.
"""

import time


class SystemClock:
    """
    Implements ``worker.ports.Clock``.
    """

    def monotonic_s(self) -> float:
        """
        Seconds on a clock that never goes back.
        """
        return time.monotonic()

    def wall_s(self) -> float:
        """
        Seconds since the epoch.
        """
        return time.time()
