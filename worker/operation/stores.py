"""
Which stores keep something of an image under these settings, opened to forget it.

Part of the composition root. What forgetting is, is in ``forgetting.py``.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from worker.adapters.redis_contents import RedisContents
from worker.domain import ContentHash
from worker.errors import ArchiveUnavailable, CannotStart
from worker.operation.forgetting import Stores
from worker.operation.keeping import open_to_forget
from worker.ports import Forgetter
from worker.settings.tree import Settings


def noted_for_s(settings: Settings) -> int:
    """
    How long it must be known which bytes a content had: as long as anything of them is kept.
    """
    kept_s = settings.embeddings.retention_s if settings.embeddings.keep != "none" else 0
    return max(settings.redis.ttl_s, kept_s)


class ArchiveForgetter:
    """
    The configured archive of kept embeddings, opened for each call; for whoever has not opened it anyway.

    One that is out of reach keeps no other store from forgetting, and is found again when it is back.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these bytes for every encoder; how many rows went, or tombstones were written.

        Raises ``ArchiveUnavailable``, also when the archive cannot even be opened.
        """
        if not hashes:
            return 0
        try:
            with open_to_forget(self._settings) as archive:
                return archive.forget(hashes)
        except CannotStart as fault:
            raise ArchiveUnavailable(str(fault)) from fault


@contextmanager
def open_stores(
    settings: Settings,
    *,
    memory: Forgetter | None = None,
    archive: Forgetter | None = None,
    scan: bool = False,
    marks: bool = True,
) -> Iterator[Stores]:
    """
    The stores that the settings name, and the memory of this process where it has one; none of them is asked yet.

    ``archive`` is the configured one where this process has it open, which it stays; otherwise each call opens it. With
    ``scan`` all keys of Redis are walked; without ``marks`` no other worker is told. Raises ``ConfigInvalid`` for a
    Redis address that is none.
    """
    forgetters: dict[str, Forgetter] = {} if memory is None else {"process": memory}
    if settings.embeddings.keep != "none":
        forgetters["archive"] = ArchiveForgetter(settings) if archive is None else archive
    if not settings.redis.enabled:
        yield Stores(None, forgetters)
        return
    with closing(RedisContents(settings.redis, keep_s=noted_for_s(settings), scan=scan, marks=marks)) as redis:
        yield Stores(redis, {**forgetters, "redis": redis})
