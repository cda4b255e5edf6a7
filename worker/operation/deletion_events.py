"""
``image.deleted.v1`` as we write it, for ``touchstone forget --publish``. Reading it is in ``forgetting.py``.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from schemas import deleted
from schemas.deleted import ImageDeletedV1
from schemas.envelope import EventAttributes, schema_urn, write_binary
from schemas.explain import explain
from worker.contents import ContentName
from worker.errors import ConfigInvalid
from worker.outcomes import Message

MOST_HASHES: Final = 64
"""As many as one event may name."""


def deletion_messages(content: ContentName, hashes: Sequence[str], *, topic: str, service: str) -> list[Message]:
    """
    A deletion as CloudEvents in binary mode, keyed by the content id: one event for each ``MOST_HASHES`` hashes.

    Raises ``ConfigInvalid`` for a name that is none.
    """
    named = list(dict.fromkeys(hashes))
    parts = [named[at : at + MOST_HASHES] for at in range(0, len(named), MOST_HASHES)] or [[]]
    return [_message(content, part, topic=topic, service=service) for part in parts]


def _message(content: ContentName, hashes: Sequence[str], *, topic: str, service: str) -> Message:
    now_s = time.time()
    try:
        event = ImageDeletedV1(
            content_id=content.content_id,
            tenant_id=content.tenant_id,
            sha256=tuple(hashes),
            deleted_at=datetime.fromtimestamp(now_s, UTC),
        )
    except ValidationError as invalid:
        raise ConfigInvalid(f"this cannot be published as {deleted.TYPE}: {explain(invalid)}") from None
    attributes = EventAttributes(
        id=str(uuid4()),
        source=f"urn:touchstone:forget:{service}",
        type=deleted.TYPE,
        time=event.deleted_at,
        data_schema=schema_urn(deleted.TYPE),
    )
    return Message(
        topic=topic,
        key=content.content_id.encode(),
        value=event.model_dump_json(exclude_none=True).encode(),
        headers=write_binary(attributes),
        timestamp_ms=round(now_s * 1000),
    )
