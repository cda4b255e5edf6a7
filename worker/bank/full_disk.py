"""
A disk that takes no more while a bank is written, said so that an operator knows what is lost: nothing.

What is kept of a build that stops is the affair of ``workshop.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from worker.errors import CannotStart


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """
    What the system refuses inside, a full disk before all, is ``CannotStart`` with what to do.
    """
    try:
        yield
    # safetensors reports the system's refusals, too, as errors of its own.
    except (OSError, SafetensorError) as fault:
        raise CannotStart(
            f"bank {path} cannot be written: {fault}. Nothing was put in place, and what was embedded so far is kept "
            "beside it; make room (or mend what the message names) and run the same command again."
        ) from fault
