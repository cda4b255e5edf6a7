"""
What a file says of its origin in plain XMP, which anybody can write and nobody signs: a hint, never weighed.

A bounded search for one property; nothing is parsed as XML, so no entity is ever expanded.
"""

import re
from collections.abc import Iterator
from typing import Final

from worker.stages.provenance import term_of

MAX_PACKETS: Final = 4
MAX_PACKET_BYTES: Final = 256 * 1024

_NAME: Final = b"Iptc4xmpExt:DigitalSourceType"
_BEGIN: Final = b"<x:xmpmeta"
_END: Final = b"</x:xmpmeta"
# As an attribute, as an element's text, or as an element's rdf:resource.
_PROPERTY: Final = re.compile(
    rb"""Iptc4xmpExt:DigitalSourceType
        (?: \s{0,16} = \s{0,16} ["']
          | \s{0,16} > \s{0,64}
          | \s{1,16} rdf:resource \s{0,16} = \s{0,16} ["'] )
        ([A-Za-z0-9:/._-]{1,200})""",
    re.VERBOSE,
)


def unsigned_digital_source_type(data: bytes) -> str | None:
    """
    IPTC's term in the XMP packets of an image file, None where there is none.

    Looks at the first ``MAX_PACKETS`` packets and ``MAX_PACKET_BYTES`` of each. Known holes: packets that are
    compressed (as PNG may), in UTF-16, split over several segments, or that call the namespace otherwise than IPTC.
    """
    # A long word is found, or not found, three times as fast as a short one: this search is what most files cost.
    if _NAME not in data:
        return None
    for packet in _packets(data):
        for found in _PROPERTY.finditer(packet):
            term = term_of(found[1].decode("ascii"))
            if term is not None:
                return term
    return None


def _packets(data: bytes) -> Iterator[bytes]:
    start = -1
    for _ in range(MAX_PACKETS):
        start = data.find(_BEGIN, start + 1)
        if start < 0:
            return
        end = data.find(_END, start, start + MAX_PACKET_BYTES)
        yield data[start : end if end >= 0 else start + MAX_PACKET_BYTES]
