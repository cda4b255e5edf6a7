"""
A value that is made in a thread of its own while others go on, for a start whose parts do not wait for each other.

What is started this way, and in which order its faults count, is the composition root's affair.
"""

from collections.abc import Callable
from threading import Event
from typing import Generic, TypeVar, cast

from worker.flow.crew import Crew

T_co = TypeVar("T_co", covariant=True)


class Ahead(Generic[T_co]):
    """
    Begins to make the value at once. A fault waits with it for whoever asks, and is nobody's where nobody does.

    A start that fails meanwhile does not wait for it: the thread is a crew's, which a process does not wait for.
    """

    def __init__(self, name: str, make: Callable[[], T_co]) -> None:
        self._made = Event()
        self._value: T_co | None = None
        self._fault: BaseException | None = None
        Crew().start(name, lambda: self._make(make))

    def result(self) -> T_co:
        """
        The value, as soon as it is made; blocks. Raises what making it raised, each time that it is asked for.
        """
        self._made.wait()
        if self._fault is not None:
            raise self._fault
        return cast("T_co", self._value)

    def _make(self, make: Callable[[], T_co]) -> None:
        try:
            self._value = make()
        except BaseException as fault:  # noqa: BLE001 - whatever it was, it is raised where the value is wanted
            self._fault = fault
        finally:
            self._made.set()
