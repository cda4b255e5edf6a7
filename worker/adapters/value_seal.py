"""
Signing what lies in a cache that others may write to: HMAC-SHA256 over a value and the key that it lies under.

What the values mean is in ``sighting_codec.py``. What a seal cannot stop: whoever may write may also remove values, and
put back an older one that was signed for the same place.
"""

import hmac
import os
import stat
from collections.abc import Sequence
from typing import Final

from worker.errors import ConfigInvalid
from worker.settings.hmac_keys import fault_of, keys_in
from worker.settings.tree import RedisSettings

TAG_BYTES: Final = 32
_OTHERS: Final = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
"""The group may read: so is a secret mounted that a worker of its own user is to read."""
_PURPOSE: Final = b"touchstone cached value 1\0"
"""Stands before everything that is signed, so that these signatures serve for nothing else."""


class ValueSeal:
    """
    Signs with the first key and accepts what any of them signed; without keys, values pass as they are.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def sealed(self, at: str, value: bytes) -> bytes:
        """
        The value as it may lie under the key ``at``.
        """
        return value + _tag(self._keys[0], at, value) if self._keys else value

    def opened(self, at: str, found: bytes | None) -> bytes | None:
        """
        The value that was sealed for this key; None for anything else, and for nothing.
        """
        if found is None or not self._keys:
            return found
        value, tag = found[:-TAG_BYTES], found[-TAG_BYTES:]
        # All keys are tried, however soon one fits: how long it takes tells nothing.
        fits = [hmac.compare_digest(tag, _tag(key, at, value)) for key in self._keys]
        return value if any(fits) else None


def seal_of(settings: RedisSettings) -> ValueSeal:
    """
    The seal of the configured keys.

    Raises ``ConfigInvalid`` for a file that cannot be read or holds no good keys, and for one that others can read or
    write.
    """
    if settings.hmac_keys is not None:
        return ValueSeal(keys_in(settings.hmac_keys.get_secret_value()))
    if settings.hmac_keys_file is None:
        return ValueSeal(())
    try:
        with settings.hmac_keys_file.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(
            f"redis.hmac_keys_file {settings.hmac_keys_file} cannot be read as ASCII text ({type(error).__name__}); "
            "write one key per line into it (openssl rand -hex 32), readable by the worker"
        ) from None
    if mode & _OTHERS:
        raise ConfigInvalid(
            f"redis.hmac_keys_file {settings.hmac_keys_file} has mode {mode:04o}, so that others than its owner and "
            "group can read it, or others than its owner change it; expected 0600 or 0440: run chmod, or give a "
            "Kubernetes secret a defaultMode of 0440 and the pod an fsGroup; and make other keys if these may have "
            "been read (openssl rand -hex 32)"
        )
    if (fault := fault_of(text)) is not None:
        raise ConfigInvalid(f"redis.hmac_keys_file {settings.hmac_keys_file} {fault}")
    return ValueSeal(keys_in(text))


def _tag(key: bytes, at: str, value: bytes) -> bytes:
    place = at.encode()
    return hmac.digest(key, _PURPOSE + len(place).to_bytes(4, "big") + place + value, "sha256")
