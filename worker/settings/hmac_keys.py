"""
How keys that sign cached values are written down: texts in, keys out. Reading a file of them is an adapter's affair.
"""

import re
from typing import Final

SHORTEST: Final = 32
"""Characters; ``openssl rand -hex 32`` gives 64."""


def keys_in(text: str) -> tuple[bytes, ...]:
    """
    The keys of a text that separates them by commas or white space, in order.
    """
    return tuple(key.encode() for key in re.split(r"[\s,]+", text) if key)


def fault_of(text: str) -> str | None:
    """
    What is wrong with such a text, without repeating any of it; None where nothing is.
    """
    lengths = [len(key) for key in keys_in(text)]
    if not lengths:
        return f"holds no key, want at least one of {SHORTEST} characters or more (openssl rand -hex 32)"
    if min(lengths) < SHORTEST:
        return f"holds a key of {min(lengths)} characters, want at least {SHORTEST} in each (openssl rand -hex 32)"
    return None
