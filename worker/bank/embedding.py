"""
From surveyed files to embeddings, through decoder and encoder: decoded ahead in threads, encoded in batches.

What is finished goes into the workshop part by part; what cannot be used is reported, never dropped in silence.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import ErrorCode
from schemas.verdict import ImageFacts
from worker.bank.survey import Progress, Skipped, Surveyed, no_progress
from worker.bank.workshop import Embedded, Workshop
from worker.domain import ContentHash, Embedding, Pixels
from worker.errors import CannotStart, UploadFailed
from worker.ports import Encoder, PictureDecoder

PART: Final = 256
"""References per part: what a kill can cost, and (twice, as one part is read ahead) what lies decoded in memory."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    name: str
    content_hash: ContentHash
    pixels: Pixels = field(repr=False)
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class ReferenceEmbedder:
    """
    The encoder and decoder that a bank is built with; ``batch_size`` pictures are encoded together.
    """

    encoder: Encoder
    decoder: PictureDecoder
    batch_size: int = 32
    threads: int = 2

    def embed(
        self, surveyed: Sequence[Surveyed], workshop: Workshop, progress: Progress = no_progress
    ) -> tuple[Skipped, ...]:
        """
        Embed what the workshop does not know yet and keep it there; returns what could not be used.

        Blocks for as long as it takes. Raises ``CannotStart`` when the encoder has no memory for a single picture.
        """
        wanted = [one for one in surveyed if one.content_hash not in workshop.known]
        done = len(surveyed) - len(wanted)
        skipped: list[Skipped] = []
        progress("embedding", done, len(surveyed))
        with ThreadPoolExecutor(self.threads, thread_name_prefix="bank-decode") as pool:
            for part in self._decoded_ahead(pool, wanted):
                finished, unusable = self._encode([one for one in part if isinstance(one, _Decoded)])
                workshop.keep(finished)
                skipped.extend(one for one in part if isinstance(one, Skipped))
                skipped.extend(unusable)
                done += len(part)
                progress("embedding", done, len(surveyed))
        return tuple(skipped)

    def _decoded_ahead(
        self, pool: ThreadPoolExecutor, wanted: Sequence[Surveyed]
    ) -> Iterator[list[_Decoded | Skipped]]:
        """
        The parts in order, each decoded while the one before it is encoded.
        """
        ahead: list[Future[_Decoded | Skipped]] = []
        for start in range(0, len(wanted) + PART, PART):
            current = ahead
            ahead = [pool.submit(self._decode, one) for one in wanted[start : start + PART]]
            if current:
                yield [future.result() for future in current]

    def _decode(self, surveyed: Surveyed) -> _Decoded | Skipped:
        name = surveyed.reference.name
        try:
            data = surveyed.reference.path.read_bytes()
            found = ContentHash(hashlib.sha256(data).hexdigest())
            if found != surveyed.content_hash:
                return Skipped(name, ErrorCode.INTEGRITY_MISMATCH, f"changed during the build: sha256 is now {found}")
            return _Decoded(name, found, *self.decoder.decode(data, found))
        except OSError as fault:
            return Skipped(name, ErrorCode.FETCH_NOT_FOUND, f"{surveyed.reference.path}: {fault.strerror}")
        except UploadFailed as failure:
            return Skipped(name, failure.code, failure.detail)

    def _encode(self, pictures: Sequence[_Decoded]) -> tuple[dict[ContentHash, Embedded], list[Skipped]]:
        finished: dict[ContentHash, Embedded] = {}
        skipped: list[Skipped] = []
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            try:
                features = self.encoder.encode([picture.pixels for picture in batch])
            except UploadFailed as failure:
                raise CannotStart(f"the encoder gave up on {batch[0].name} and those after it: {failure}") from failure
            for picture, feature in zip(batch, features, strict=True):
                try:
                    half = Embedding.from_features(feature).as_half()
                except ValueError as fault:
                    skipped.append(Skipped(picture.name, ErrorCode.ENCODE_NONFINITE, str(fault)))
                    continue
                facts = picture.facts
                finished[picture.content_hash] = Embedded(
                    half, facts.format, facts.width, facts.height, facts.byte_length
                )
        return finished, skipped
