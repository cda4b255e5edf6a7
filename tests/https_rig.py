"""
What the tests of reading over https share: an authority of their own, short limits, and names that lead to loopback.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import trustme

from schemas.uploaded import HttpsRef
from worker.adapters.guarded_dial import Dialer, LimitedSocket
from worker.adapters.https_store import HttpsStore
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings

LIMIT_BYTES = 100_000
IMAGE = bytes(range(256)) * 40
SECRET = "s3cr3t-signature"  # noqa: S105 - a needle to search for


@cache
def authority() -> trustme.CA:
    """
    A certificate authority that only these tests trust.
    """
    return trustme.CA()


def settings_trusting(ca_file: Path) -> FetchSettings:
    """
    Times for a busy machine, a small limit, and our own authority, whose certificate is written to this file.
    """
    authority().cert_pem.write_to_path(str(ca_file))
    return FetchSettings(
        max_image_bytes=LIMIT_BYTES,
        connect_timeout_s=20,
        read_timeout_s=20,
        total_timeout_s=60,
        max_redirects=2,
        ca_file=ca_file,
    )


def local_only(**names: str) -> Dialer:
    """
    A dialer for which 127.0.0.1 is the public Internet; other hosts are where ``names`` says (``_`` for ``.``).
    """
    addresses = {name.replace("_", "."): address for name, address in names.items()}
    return Dialer(
        resolve=lambda host, _: [addresses.get(host, "127.0.0.1")], allowed=lambda address: address == "127.0.0.1"
    )


def on_loopback(address: str) -> bool:
    """
    Whether an address counts as public here: 127.0.0.1 alone does.
    """
    return address == "127.0.0.1"


class RecordingDialer(Dialer):
    """
    Keeps every connection that it makes, so that a test can see that none is left open.
    """

    def __init__(self, resolve: Callable[[str, int], Sequence[str]] = lambda *_: ["127.0.0.1"]) -> None:
        super().__init__(resolve=resolve, allowed=on_loopback)
        object.__setattr__(self, "made", [])

    made: list[LimitedSocket]

    def connect(self, host: str, port: int, timeout_s: float) -> LimitedSocket:
        """
        As the dialer does.
        """
        connection = super().connect(host, port, timeout_s)
        self.made.append(connection)
        return connection

    def left_open(self) -> int:
        """
        How many connections are not closed.
        """
        return sum(connection.fileno() != -1 for connection in self.made)


def ref(url: str) -> HttpsRef:
    """
    A reference to an address.
    """
    return HttpsRef(kind="https", url=url)


def failure_of(store: HttpsStore, url: str) -> UploadFailed:
    """
    How reading this address fails.
    """
    with pytest.raises(UploadFailed) as failed:
        store.read(ref(url))
    return failed.value
