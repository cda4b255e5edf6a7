"""
Which buckets and keys a reference may name, as far as their text tells, and which requests a client may send for it.

A bucket's name becomes part of a host's, and some names have botocore speak to other hosts in other ways: whatever the
configuration does not list must be a plain name. How a store is asked is in ``s3_store.py``.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from schemas.errors import ErrorCode
from schemas.uploaded import S3Ref
from worker.errors import ConfigInvalid, UploadFailed
from worker.settings.images import S3Profile

# Amazon's rules for general purpose buckets, which other stores share: labels of small letters, digits and hyphens.
_LABEL: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_PLAIN: Final = re.compile(rf"(?=.{{3,63}}$){_LABEL}(\.{_LABEL})*")
# What Amazon keeps for directory buckets, access points, object lambdas, tables and the like.
_RESERVED_BEGINNINGS: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS: Final = ("--x-s3", "--ol-s3", "--op-s3", "--table-s3", "-s3alias", ".mrap")


def refuse_unless_allowed(ref: S3Ref, name: str, profile: S3Profile) -> None:
    """
    Nothing, if this profile may read the object; else ``UploadFailed`` (REF_FORBIDDEN).
    """
    if ref.bucket not in profile.buckets:
        if profile.buckets:
            raise _forbidden(f"bucket {ref.bucket!r} is not among fetch.s3.{name}.buckets of this worker")
        if not is_plain_bucket(ref.bucket):
            raise _forbidden(
                f"{ref.bucket!r} is no name of a general purpose bucket; others are read only where "
                f"fetch.s3.{name}.buckets lists them"
            )
    if not {".", ".."}.isdisjoint(ref.key.split("/")):
        # Some store or proxy resolves them like a path, and so leaves the bucket that was just allowed.
        raise _forbidden("the key has a '.' or '..' between its slashes")
    if profile.prefixes and not ref.key.startswith(profile.prefixes):
        raise _forbidden(f"the key begins with none of fetch.s3.{name}.prefixes of this worker")


def is_plain_bucket(bucket: str) -> bool:
    """
    Whether this is the name of a general purpose bucket, by Amazon's rules.
    """
    if not _PLAIN.fullmatch(bucket) or bucket.startswith(_RESERVED_BEGINNINGS) or bucket.endswith(_RESERVED_ENDS):
        return False
    try:
        ip_address(bucket)
    except ValueError:
        return True
    return False


def refuse_other_requests(method: str, url: str, name: str, profile: S3Profile) -> None:
    """
    Nothing, if a client of this profile may send this; else ``UploadFailed`` (REF_FORBIDDEN or FETCH_UNAUTHORIZED).
    """
    if profile.endpoint_url is not None and _host(url) != _host(profile.endpoint_url):
        raise _forbidden(f"another host than that of fetch.s3.{name}.endpoint_url would be asked for this bucket")
    if method != "GET":
        # Botocore looks for the region of a bucket that the store says is elsewhere without saying where.
        raise UploadFailed(
            ErrorCode.FETCH_UNAUTHORIZED,
            f"the bucket lies in another region than fetch.s3.{name}.region; configure a profile for that region",
        )


def refuse_misconfigured(profiles: Mapping[str, S3Profile]) -> None:
    """
    Nothing, if every endpoint is a web address; else ``ConfigInvalid``.
    """
    for name, profile in profiles.items():
        if profile.endpoint_url is None:
            continue
        parts = urlsplit(profile.endpoint_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigInvalid(
                f"fetch.s3.{name}.endpoint_url is no web address; write one like https://minio.example:9000"
            )


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _forbidden(why: str) -> UploadFailed:
    return UploadFailed(ErrorCode.REF_FORBIDDEN, why)
