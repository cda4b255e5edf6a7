"""
What was odd about a picture that could be decoded all the same; these stand in ``ImageFacts.warnings``.

Which reader finds what is in ``decode.py``, ``frames.py`` and ``upright.py``; what they mean for a verdict is in
``reasons.py``.
"""

from enum import StrEnum
from typing import Final

READING_RULES: Final = "reading-3"
"""
Raise it when some bytes are read otherwise but common pictures are not: what is remembered is a miss then.

Unlike ``preprocess.RULES_VERSION`` it leaves fingerprints and banks as they are. What changed under it so far: the
pixels of PNGs that declare one colour transparent (tRNS) in greys of 2 or 4 bits or in 16-bit RGB, honest ones among
them; the orientation of JPEGs with several EXIF segments; the frames of GIFs with empty extensions; and which animated
PNGs are refused. A bank that holds references of such files keeps them as they were read when it was built.
"""


class DecodeNote(StrEnum):
    """
    Each says what of the file was left out of account.

    ``FRAMES_UNREACHED``: the animation is longer than the budget for going through it. ``FRAMES_UNCOUNTED``: it has
    more frames than anybody counts. ``EXIF_DAMAGED``: part of the EXIF data cannot be read. ``ICC_DROPPED``: the
    colour profile cannot be applied.
    """

    EXIF_DAMAGED = "EXIF_DAMAGED"
    FRAMES_UNCOUNTED = "FRAMES_UNCOUNTED"
    FRAMES_UNREACHED = "FRAMES_UNREACHED"
    ICC_DROPPED = "ICC_DROPPED"


UNSEEN_FRAMES: Final = frozenset({DecodeNote.FRAMES_UNCOUNTED, DecodeNote.FRAMES_UNREACHED})
"""Notes that say that nobody knows what some frames show."""
