"""
Which bytes contents had, by what their verdicts say: for whoever must forget a content whose names are lost.

Slow, for the whole topic is read; the index of contents is in ``worker.contents``.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.contents import ContentName
from worker.domain import ContentHash, RawEvent


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    sha256: str


class _About(BaseModel):
    """
    The little of a verdict that is asked for; whatever else it says, of whatever version, is passed over.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    tenant_id: str | None = None
    content_id: str
    image: _Image | None = None


def bytes_in_verdicts(
    records: Iterable[RawEvent], contents: Iterable[ContentName]
) -> Mapping[ContentName, AbstractSet[ContentHash]]:
    """
    The bytes of every verdict on these contents, in all their revisions; each of the contents is a key.

    A record that is no verdict is passed over: nothing can be said of what it was about.
    """
    found: dict[ContentName, set[ContentHash]] = {content: set() for content in contents}
    for record in records:
        if not record.value:
            continue
        try:
            about = _About.model_validate_json(record.value)
        except ValidationError:
            continue
        hashes = found.get(ContentName(about.tenant_id, about.content_id))
        if hashes is not None and about.image is not None:
            hashes.add(ContentHash(about.image.sha256))
    return found
