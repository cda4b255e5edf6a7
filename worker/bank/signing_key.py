"""
Private keys that sign banks: made, read, and used on a bank's directory. Nothing of a key is ever printed or logged.

What a signature is and who checks it, is in ``worker.bank.signature``.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from worker.bank.files import load_bank, sync
from worker.bank.manifest import SIGNATURE
from worker.bank.regular_files import FileRefused, read_whole
from worker.bank.signature import MAX_SIGNATURE_BYTES, public_key, signed
from worker.errors import ConfigInvalid

MAX_KEY_BYTES: Final = 16_384

_KEY_MODE: Final = 0o600
_FILE_MODE: Final = 0o644
_OTHERS: Final = 0o077


def make_key(path: Path) -> str:
    """
    A new private key in a file that only its owner can read (PKCS#8, PEM); returns the public key, 64 hex digits.

    Raises ``ConfigInvalid`` where the file is there already or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        # Its mode from the first moment, and never through a link or over another key.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _KEY_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
    except OSError as fault:
        raise ConfigInvalid(f"the key {path} cannot be made ({fault.strerror}); a key is never replaced") from fault
    return public_key(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """
    The private key in a file. Raises ``ConfigInvalid`` for another file, and for one that others can read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_BYTES) if stat.S_ISREG(mode) else b""
    except OSError as fault:
        raise ConfigInvalid(f"the key {path} cannot be read ({fault.strerror})") from fault
    if not stat.S_ISREG(mode):
        raise ConfigInvalid(f"the key {path} is no regular file")
    if mode & _OTHERS:
        raise ConfigInvalid(
            f"the key {path} has mode {stat.S_IMODE(mode):04o}, so that others than its owner can use it; expected "
            f"0600: run `chmod 600 {path}`, and make another key if this one may have been read"
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        # Without the fault's text: what it quotes could be of the key.
        raise ConfigInvalid(
            f"the key {path} is no unencrypted PEM private key; make one with `touchstone bank keygen`"
        ) from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigInvalid(f"the key {path} is no ed25519 key; make one with `touchstone bank keygen`")
    return key


def sign_bank(path: Path, key: Ed25519PrivateKey) -> str:
    """
    Put the key's signature beside those that a bank has, in one step; returns the public key, 64 hex digits.

    Raises ``BankInvalid`` for a bank that fails its checks, a signature that does not hold included: nobody vouches for
    what was not read. Raises ``ConfigInvalid`` where there is no room for another signature or it cannot be written.
    """
    manifest = load_bank(path).manifest
    target = path / SIGNATURE
    try:
        present = read_whole(target, most_bytes=MAX_SIGNATURE_BYTES) if target.exists() else None
        _replace(target, signed(manifest, key, present))
    except (OSError, ValueError, FileRefused) as fault:
        raise ConfigInvalid(f"bank {path} cannot be signed: {fault}") from fault
    return public_key(key)


def _replace(target: Path, data: bytes) -> None:
    # Hidden, so that a bank that is read meanwhile has no strange file in it.
    prefix = f".{target.name}-"
    for left in target.parent.glob(f"{prefix}*"):
        # Of a run that was killed.
        left.unlink(missing_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=prefix, dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(fresh).chmod(_FILE_MODE)
        sync(Path(fresh))
        Path(fresh).replace(target)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
