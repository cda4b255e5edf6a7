"""
At which place an upload's bytes lie, and whether it is one that the operator names.

The address is taken apart as the fetch takes it apart, so that nobody passes a host off as another one.
"""

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef, HttpsRef, S3Ref
from worker.adapters.https_address import AddressRules, origin
from worker.domain import Upload
from worker.errors import UploadFailed
from worker.flow.places import Place
from worker.settings.images import FetchSettings

_ANY_HOST = AddressRules(allow_http=True, allowed_hosts=())


def place_of(upload: Upload, settings: FetchSettings) -> Place | None:
    """
    The host, bucket or folder that the reference names; None for an image within the event, or an address without host.

    A redirect may lead elsewhere: what fails there is told of the host that the reference names.
    """
    match upload.data.image.ref:
        case HttpsRef() as ref:
            try:
                _, host, port = origin(_ANY_HOST.checked(ref.url, ErrorCode.EVENT_INVALID))
            except UploadFailed:
                return None
            return Place(f"{host}:{port}", settings.names_host(host, port))
        case S3Ref() as ref:
            name = ref.profile or settings.s3_default_profile or ""
            profile = settings.s3.get(name)
            # Buckets that nobody lists are as many as an uploader likes: all of them are one place.
            bucket = ref.bucket if profile is not None and ref.bucket in profile.buckets else "*"
            return Place(f"s3:{name}/{bucket}", ours=True)
        case FileRef():
            return Place("file:", ours=True)
        case _:
            return None
