"""
An authority that only tests trust, the certificates that it signs, and where they lie for a worker to be told of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

LOOPBACK_NAMES = ("127.0.0.1", "localhost")


@cache
def authority(name: str) -> trustme.CA:
    """
    A certificate authority; another name, another authority.
    """
    return trustme.CA(organization_name=name)


@dataclass(frozen=True, slots=True)
class Certified:
    """
    A certificate with its key (PKCS 8, as Java wants it) and the certificate of who signed it, as PEM texts.
    """

    chain: str
    key: str
    authority: str

    @property
    def keystore(self) -> str:
        """
        Key and chain in one text.
        """
        return self.key + self.chain


@dataclass(frozen=True, slots=True)
class Files:
    """
    The same as files: what ``ssl_cafile``, ``ssl_certfile`` and ``ssl_keyfile`` name.
    """

    cafile: Path
    certfile: Path
    keyfile: Path

    def sets(self, section: str) -> list[str]:
        """
        The settings of a section that name them.
        """
        return [f'{section}.ssl_{name}="{getattr(self, name)}"' for name in ("cafile", "certfile", "keyfile")]


def certified(*, by: str = "ours") -> Certified:
    """
    A certificate for this machine's own address, signed by an authority.
    """
    made = authority(by).issue_cert(*LOOPBACK_NAMES)
    chain = "".join(blob.bytes().decode() for blob in made.cert_chain_pems)
    return Certified(chain, _key(made.private_key_pem.bytes(), None), authority(by).cert_pem.bytes().decode())


def written(certificate: Certified, folder: Path, *, key_password: str | None = None) -> Files:
    """
    Lays a certificate out as files, its key encrypted if there is a password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, Callable[[], str]] = {
        "ca.pem": lambda: certificate.authority,
        "own.pem": lambda: certificate.chain,
        "own.key": lambda: _key(certificate.key.encode(), key_password),
    }
    for name, text in texts.items():
        (folder / name).write_text(text(), encoding="ascii")
    return Files(folder / "ca.pem", folder / "own.pem", folder / "own.key")


def _key(pem: bytes, password: str | None) -> str:
    protection = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    key = load_pem_private_key(pem, password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection).decode()
