"""
What the tests of reading from S3 share: profiles at a store whose every answer a test writes down.
"""

import pytest
from pydantic import SecretStr

from schemas.uploaded import S3Ref
from tests.scripted_web import ScriptedWeb
from worker.adapters.s3_store import S3Store
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings, S3Profile

LIMIT_BYTES = 100_000
IMAGE = bytes(range(256)) * 40


def settings_for(web: ScriptedWeb, **changes: object) -> FetchSettings:
    """
    Profiles at this store: ``open`` reads every bucket, ``shop`` only ``uploads``, ``public`` keys that begin right.
    """
    keys = {
        "endpoint_url": f"http://127.0.0.1:{web.port}",
        "region": "eu-central-1",
        "access_key_id": "key-of-a-test",
        "secret_access_key": SecretStr("secret-of-a-test"),
    }
    profiles = {
        "open": S3Profile.model_validate(keys),
        "shop": S3Profile.model_validate({**keys, "buckets": ("uploads",)}),
        "public": S3Profile.model_validate({**keys, "prefixes": ("public/", "shared/cat")}),
    }
    # Far longer than an answer takes on a busy machine: what is about time sets its own.
    fields = {"max_image_bytes": LIMIT_BYTES, "connect_timeout_s": 20, "read_timeout_s": 20, "total_timeout_s": 60}
    return FetchSettings.model_validate({**fields, "s3": profiles, "s3_default_profile": "shop", **changes})


def ref(*, bucket: str = "uploads", key: str = "cat.jpg", profile: str | None = None) -> S3Ref:
    """
    A reference to an object.
    """
    return S3Ref(kind="s3", bucket=bucket, key=key, profile=profile)


def failure_of(store: S3Store, reference: S3Ref) -> UploadFailed:
    """
    How reading it fails.
    """
    with pytest.raises(UploadFailed) as failed:
        store.read(reference)
    return failed.value
