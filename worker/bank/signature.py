"""
Who vouches for a bank: ed25519 signatures over its manifest, which names the sha256 of every other file.

A line with one, over whatever is signed, is made and checked here too; see ``worker.bank.control_signature``.

``manifest.sig`` has a line ``ed25519 PUBLIC_KEY SIGNATURE`` (hex) for each key that signed, over the bytes of
``worker.bank.manifest.canonical_bytes``. Private keys are read and made in ``worker.bank.signing_key``.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from worker.bank.manifest import SIGNATURE, BankManifest, canonical_bytes
from worker.errors import BankInvalid

MAX_SIGNATURES: Final = 16
MAX_SIGNATURE_BYTES: Final = 8_192
"""More than ``MAX_SIGNATURES`` lines need."""

SigningKey = Ed25519PrivateKey

_LINE: Final = re.compile(rb"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})")
_ID_DIGITS: Final = 16


def key_id(public: str) -> str:
    """
    The short name of a public key, for messages: the beginning of its sha256. ``public``: 64 hex digits.
    """
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:_ID_DIGITS]


def public_key(key: Ed25519PrivateKey) -> str:
    """
    The public key of a private one, in hex, as ``bank.trusted_keys`` takes it.
    """
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def signed(manifest: BankManifest, key: Ed25519PrivateKey, present: bytes | None = None) -> bytes:
    """
    The signature file with this key's signature beside those that ``present`` has of other keys.

    Raises ``ValueError`` for more than ``MAX_SIGNATURES``; ``present`` must have been checked.
    """
    mine = public_key(key).encode()
    others = [line for line in (present or b"").splitlines() if line.split(b" ")[1] != mine]
    if len(others) >= MAX_SIGNATURES:
        raise ValueError(f"{SIGNATURE} has {len(others)} signatures already, expected at most {MAX_SIGNATURES}")
    return b"".join(line + b"\n" for line in (*others, signature_line(key, canonical_bytes(manifest))))


def signature_line(key: Ed25519PrivateKey, data: bytes) -> bytes:
    """
    ``ed25519 PUBLIC_KEY SIGNATURE`` over some bytes, without a line's end.
    """
    return f"ed25519 {public_key(key)} {key.sign(data).hex()}".encode()


def signature_holds(public: str, signature: str, data: bytes) -> bool:
    """
    Whether a signature is this public key's over these bytes; both are hex digits.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_signature(where: str, manifest: BankManifest, data: bytes | None, trusted: Collection[str] = ()) -> list[str]:
    """
    The public keys that signed a manifest; ``data`` is None where there is no signature file.

    Every signature must be right, trusted or not. With ``trusted`` keys one of them must have signed; without, nobody
    need. Raises ``BankInvalid``, which begins with ``where`` and names the file and the ids of the keys.
    """
    if data is None:
        if trusted:
            raise BankInvalid(
                f"{where}: {SIGNATURE} is missing, expected a signature by {key_ids(trusted)} (bank.trusted_keys); "
                "sign it with `touchstone bank sign`, or fetch the bank from whoever does"
            )
        return []
    lines = data.split(b"\n")
    if lines.pop() != b"" or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise BankInvalid(
            f"{where}: {SIGNATURE} is damaged: it has {len(lines)} whole lines, expected 1 to {MAX_SIGNATURES}; copy "
            "the bank again"
        )
    signers = [_signer(where, manifest, number, line) for number, line in enumerate(lines, start=1)]
    if trusted and not set(signers) & set(trusted):
        raise BankInvalid(
            f"{where}: {SIGNATURE} is by {key_ids(signers)}, expected {key_ids(trusted)} (bank.trusted_keys): nobody "
            "whom this worker trusts vouches for the bank; sign it with one of these keys, or trust the other one"
        )
    return signers


def _signer(where: str, manifest: BankManifest, number: int, line: bytes) -> str:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BankInvalid(
            f"{where}: {SIGNATURE} is damaged: line {number} is no ed25519 signature; copy the bank again"
        )
    public = match[1].decode()
    if not signature_holds(public, match[2].decode(), canonical_bytes(manifest)):
        raise BankInvalid(
            f"{where}: {SIGNATURE} does not hold: the signature of key {key_id(public)} in line {number} is not over "
            "this manifest; the manifest was changed after it was signed, or one of the two files is damaged"
        )
    return public


def key_ids(keys: Iterable[str]) -> str:
    """
    The short names of some public keys, for messages.
    """
    return " or ".join(f"key {key_id(key)}" for key in keys)
