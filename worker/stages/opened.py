"""
One way in which Pillow is given a file, for all who open it: what it would read otherwise than browsers is put right.

What stands in the chunks of a PNG is ``png_chunks.py``, in the blocks of a GIF ``gif_extent.py``. Whether a file is
accepted at all, and what its pixels become, is ``decode.py``.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image, ImageFile

from worker.stages.colour import with_deep_transparency
from worker.stages.gif_extent import read_gif
from worker.stages.pillow_warnings import make_warnings_errors
from worker.stages.png_chunks import PngReading, read_png
from worker.stages.upright import orientation_of


@dataclass(frozen=True, slots=True)
class Opened:
    """
    A file that Pillow has opened and not yet loaded, and what was read of it beside Pillow.
    """

    image: ImageFile.ImageFile
    reading: PngReading = field(repr=False)

    def first(self) -> Image.Image:
        """
        Frame 0, loaded, with all that is transparent in it.
        """
        self.image.load()
        transparent = self.reading.transparent
        return self.image if transparent is None else with_deep_transparency(self.image, self.reading.data, transparent)

    def orientation(self) -> tuple[int, bool]:
        """
        The orientation that the file states, and whether its EXIF block is whole; see ``upright.py``.
        """
        return orientation_of(self.image, self.reading.exif)


@contextmanager
def opened(data: bytes, name: str) -> Iterator[Opened]:
    """
    The file, of the format with this name among Pillow's, open until the block ends.

    Raises ``UploadFailed`` as ``read_png`` and ``read_gif`` do, and whatever Pillow raises of the bytes.
    """
    make_warnings_errors()
    reading = read_png(data) if name == "PNG" else PngReading(read_gif(data) if name == "GIF" else data)
    with Image.open(io.BytesIO(reading.data), formats=[name]) as image:
        yield Opened(image, reading)
