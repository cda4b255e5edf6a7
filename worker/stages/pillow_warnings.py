"""
What Pillow only warns of is an error here, for behind a warning it shows something else than the file says.

The filters are the process's own, for Python has no others; they stand before all filters that others set.
"""

import threading
import warnings
from typing import Final

BENIGN: Final = (
    ("PIL.TiffImagePlugin", "Corrupt EXIF data"),
    ("PIL.TiffImagePlugin", "Possibly corrupt EXIF data"),
    ("PIL.TiffImagePlugin", "Truncated File Read"),
    ("PIL.TiffImagePlugin", "Tag offset too large"),
    ("PIL.TiffImagePlugin", "Tag data larger than file"),
    ("PIL.TiffImagePlugin", "Metadata Warning, tag"),
    ("PIL.JpegImagePlugin", "Image appears to be a malformed MPO file"),
)
"""
Module and beginning of each message that real cameras give rise to and that changes no pixel and no frame.

Those of TIFF are about EXIF and about the index of a JPEG's further pictures: of EXIF only the orientation is used, and
``upright.py`` reads that by itself and notes what is damaged; the further pictures no browser shows.
"""

_CATEGORIES: Final = (UserWarning, RuntimeWarning)
"""What Pillow warns with about pictures; deprecations are about its callers, and must not fail an upload."""

_installing: Final = threading.Lock()
_installed: list[tuple[object, ...]] = []


def make_warnings_errors() -> None:
    """
    From now on Pillow's warnings are raised, but for the benign ones, which are dropped; whatever filters were set.

    Called before each picture, as any code may set other filters: it costs a comparison where nobody did. Known hole:
    a thread that sets filters during a decode of another thread changes them for that too, until the next.
    """
    if _stands():
        return
    with _installing:
        if _stands():
            return
        for category in _CATEGORIES:
            warnings.filterwarnings("error", category=category, module=r"PIL\.")
        for module, message in BENIGN:
            warnings.filterwarnings("ignore", message=message, category=UserWarning, module=module.replace(".", r"\."))
        _installed[:] = warnings.filters[: len(_CATEGORIES) + len(BENIGN)]


def _stands() -> bool:
    return bool(_installed) and list(warnings.filters[: len(_installed)]) == _installed
