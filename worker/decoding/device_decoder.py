"""
A decoder whose plain JPEGs are decoded on the encoder's device, and everything else as ever.

The bytes of strangers are then read by a library in the worker's own process: see SECURITY.md. Which JPEGs those are,
and all that is known of them beside their pixels, is ``worker/stages/left_to_device.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from worker.decoding.device_batches import DeviceBatches, DeviceJob, JpegDevice
from worker.decoding.process_decoder import ProcessDecoder
from worker.domain import ContentHash, Pixels, PreprocessSpec
from worker.ports import PictureDecoder
from worker.stages.decode import HASHED_SIDE, PerceptualHash
from worker.stages.jpeg_extent import jpeg_header
from worker.stages.preprocess import framed, scaling
from worker.stages.upright import TURNED
from worker.views import DecodedPicture, Undecoded

LookInto = Callable[[bytes, ContentHash], DecodedPicture | Undecoded]


@dataclass(frozen=True, slots=True)
class Ordinary:
    """
    What decodes without the device: ``look_into`` first, ``decoder`` for what the device refused, both to be closed.
    """

    look_into: LookInto
    decoder: PictureDecoder
    processes: tuple[ProcessDecoder, ...] = ()


class DeviceDecoder:
    """
    Any number of threads may call it; as many pictures as there are threads go to the device together.

    A JPEG that the device refuses, or has no memory for, is decoded as ever and costs no other its place. Known holes:
    a device may repair a damaged scan otherwise than libjpeg, as silently; and what brings the device's library down
    brings the worker down.
    """

    def __init__(
        self,
        ordinary: Ordinary,
        device: JpegDevice,
        spec: PreprocessSpec,
        perceptual_hash: PerceptualHash | None = None,
        *,
        most_bytes: int,
        on_end: Callable[[str], None] = lambda _result: None,
    ) -> None:
        """
        ``on_end`` is told of each JPEG that was left to the device: ``decoded``, or ``refused``.
        """
        self._ordinary = ordinary
        self._batches = DeviceBatches(device, most_bytes=most_bytes)
        self._spec = spec
        self._perceptual_hash = perceptual_hash
        self._on_end = on_end
        self.version = device.version

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        As ``PictureDecoder.decode``.
        """
        found = self._ordinary.look_into(data, content_hash)
        if isinstance(found, DecodedPicture):
            return found
        job = self._job(data, found)
        seen = None if job is None else self._batches.ask(job)
        if seen is None:
            self._on_end("refused")
            return self._ordinary.decoder.decode(data, content_hash)
        self._on_end("decoded")
        facts = found.facts
        if self._perceptual_hash is not None and seen.thumbnail is not None:
            hashed, quality = self._perceptual_hash(seen.thumbnail)
            facts = facts.model_copy(update={"pdq": hashed, "pdq_quality": quality})
        return DecodedPicture(pixels=self._framed(seen.small), facts=facts)

    def close(self) -> None:
        """
        End the child processes; a second time, nothing.
        """
        for processes in self._ordinary.processes:
            processes.close()

    def _job(self, data: bytes, found: Undecoded) -> DeviceJob | None:
        """
        None where the bytes are no such JPEG after all: a child that was taken over may say so of any.
        """
        header, facts = jpeg_header(data), found.facts
        if header is None or (header.width, header.height) != (facts.width, facts.height):
            return None
        width, height = header.width, header.height
        upright = (height, width) if facts.orientation in TURNED else (width, height)
        box, size = scaling(upright, self._spec)
        return DeviceJob(
            data=data[: found.jpeg_bytes],
            width=width,
            height=height,
            orientation=facts.orientation or 1,
            box=box,
            size=size,
            interpolation=self._spec.interpolation,
            hash_factor=None if self._perceptual_hash is None else -(-max(upright) // HASHED_SIDE),
        )

    def _framed(self, small: Pixels) -> Pixels:
        return np.asarray(framed(Image.fromarray(small), self._spec))
