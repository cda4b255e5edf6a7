"""
Content credentials (C2PA) of an image file: the only module that imports ``c2pa``.

The library is native code that reads hostile bytes, so it sees only files that hold a manifest, is told to open no
connection, and whatever it raises becomes ``invalid``. What the manifests say is ``worker/stages/manifest_store.py``.
"""

import io
import json
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import c2pa

from schemas.verdict import ContentCredentials
from worker.errors import CannotStart
from worker.stages.manifest_store import credentials_of
from worker.stages.sniff import MEDIA_TYPES, format_of
from worker.stages.unsigned_metadata import unsigned_digital_source_type

MARKER: Final = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
"""
The description of the box that every embedded manifest store begins with (ISO/IEC 19566-5; C2PA, "Manifest store").

It is never compressed, and so near to the store's beginning that no format splits it. A search takes 0.2 ms per MB.
"""

MAX_STORE_JSON: Final = 8 * 1024 * 1024
"""Characters of the reader's report; a longer one is no honest history, and is taken for invalid."""

_OFFLINE: Final[dict[str, Any]] = {
    # By default a file could name any address and the library would fetch it, also one of our own network.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "core": {
        "allowed_network_hosts": [],
        "decode_identity_assertions": False,
        "max_decompressed_manifest_size_in_mb": 8,
    },
}


def credentials_reader(trust_anchors_pem: str | None = None) -> Callable[[bytes], ContentCredentials | None]:
    """
    A function from a file's bytes to its credentials, for the decoder; any number of threads may call it at once.

    ``trust_anchors_pem``: certificates, PEM, to one of which a signer must chain to be ``trusted``; without them nobody
    is. Raises ``CannotStart`` when they cannot be read.
    """
    settings = dict(_OFFLINE)
    if trust_anchors_pem is not None:
        _check_anchors(trust_anchors_pem)
        settings["trust"] = {"user_anchors": trust_anchors_pem}
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(settings))
    except c2pa.C2paError as error:
        raise CannotStart(
            f"the C2PA library refuses its settings ({error}): look at the trust anchors, and whether the installed "
            "c2pa-python is a version that this worker was tested with"
        ) from error
    return partial(_read, context=context)


def read_credentials(data: bytes, *, trust_anchors_pem: str | None = None) -> ContentCredentials | None:
    """
    What an image file says of its own origin, None where it says nothing. Raises for unusable anchors only.

    State ``valid``: signature and all hashes hold; ``trusted``: its signer chains to an anchor as well; ``invalid``: a
    manifest is there and does not hold, or cannot be parsed. None as state: only unsigned metadata were found, or a
    manifest that lies elsewhere, which is never fetched. Whether a certificate has expired is asked of today's clock
    where the file has no time stamp, so that a file's state may change with the years. The call cannot be interrupted;
    its time grows with the file (about 1 ms per 0.5 MB), whose size the fetch stage limits.
    """
    return credentials_reader(trust_anchors_pem)(data)


def _read(data: bytes, *, context: c2pa.Context) -> ContentCredentials | None:
    signed = _signed(data, context) if MARKER in data else None
    hint = unsigned_digital_source_type(data)
    if signed is None and hint is None:
        return None
    found = signed if signed is not None else ContentCredentials(state=None)
    return found.model_copy(update={"unsigned_digital_source_type": hint})


def _signed(data: bytes, context: c2pa.Context) -> ContentCredentials | None:
    # A format that is told keeps the library from guessing one of its other thirty.
    name = format_of(data)
    if name is None:
        return None
    try:
        with c2pa.Reader(MEDIA_TYPES[name], io.BytesIO(data), context=context) as reader:
            report = reader.json()
        if len(report) > MAX_STORE_JSON:
            return ContentCredentials(state="invalid")
        return credentials_of(json.loads(report))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except Exception:  # noqa: BLE001 - of hostile bytes, in native code and in JSON; whatever it is, it does not hold
        return ContentCredentials(state="invalid")


def _check_anchors(pem: str) -> None:
    # The library skips a certificate that it cannot read without a word; OpenSSL says so.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise CannotStart(
            f"the trust anchors for content credentials are no certificates in PEM ({error}); give one or more "
            "BEGIN CERTIFICATE blocks"
        ) from error
