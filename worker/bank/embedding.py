"""
From surveyed files to embeddings, through decoder and encoder: decoded ahead in threads, encoded in batches.

What is finished goes into the workshop part by part; what cannot be used is reported, never dropped in silence.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas.errors import ErrorCode
from worker.bank.survey import Progress, Skipped, Surveyed, no_progress
from worker.bank.vectors import Measured, not_measured
from worker.bank.workshop import Embedded, Workshop
from worker.domain import ContentHash, Pixels
from worker.errors import CannotStart, UploadFailed
from worker.heads.features import REALISM, SHIFT, Matrix
from worker.ports import Encoder, PictureDecoder
from worker.stages.embed import sighting_of
from worker.stages.perturb import perturbed_copies, shift_of
from worker.views import GLOBAL_ONLY, DecodedPicture, ViewSpec

PART: Final = 256
"""Views per part: what a kill can cost, and (twice, as one part is read ahead) what lies decoded in memory."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    name: str
    content_hash: ContentHash
    picture: DecodedPicture = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReferenceEmbedder:
    """
    The encoder and decoder that a bank is built with; ``batch_size`` views are encoded together.

    ``views`` says what is looked at of every reference; it must be what ``decoder`` was made for. The bank records it.
    """

    encoder: Encoder
    decoder: PictureDecoder
    batch_size: int = 32
    threads: int = 2
    views: ViewSpec = GLOBAL_ONLY

    def embed(
        self, surveyed: Sequence[Surveyed], workshop: Workshop, progress: Progress = no_progress
    ) -> tuple[Skipped, ...]:
        """
        Embed what the workshop does not know yet and keep it there; returns what could not be used.

        Blocks for as long as it takes. Raises ``CannotStart`` when the encoder has no memory for a single picture, and
        ``ValueError`` when the decoder was made for other views.
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
        step = max(1, PART // (1 + self.views.native_crops))
        for start in range(0, len(wanted) + step, step):
            current = ahead
            ahead = [pool.submit(self._decode, one) for one in wanted[start : start + step]]
            if current:
                yield [future.result() for future in current]

    def _decode(self, surveyed: Surveyed) -> _Decoded | Skipped:
        name = surveyed.reference.name
        try:
            data = surveyed.reference.path.read_bytes()
            found = ContentHash(hashlib.sha256(data).hexdigest())
            if found != surveyed.content_hash:
                return Skipped(name, ErrorCode.INTEGRITY_MISMATCH, f"changed during the build: sha256 is now {found}")
            picture = self.decoder.decode(data, found)
        except OSError as fault:
            return Skipped(name, ErrorCode.FETCH_NOT_FOUND, f"{surveyed.reference.path}: {fault.strerror}")
        except UploadFailed as failure:
            return Skipped(name, failure.code, failure.detail)
        if len(picture.native) > self.views.native_crops or (picture.realism is not None) != self.views.realism:
            raise ValueError(
                f"the decoder gave {len(picture.native)} crops and realism {picture.realism} of {name}, the embedder "
                f"wants {self.views}; make both with the same views"
            )
        return _Decoded(name, found, picture)

    def _encode(self, pictures: Sequence[_Decoded]) -> tuple[dict[ContentHash, Embedded], list[Skipped]]:
        finished: dict[ContentHash, Embedded] = {}
        skipped: list[Skipped] = []
        views = [self._views_of(one.picture) for one in pictures]
        names = [one.name for one, seen in zip(pictures, views, strict=True) for _ in seen]
        features = self._features([pixels for seen in views for pixels in seen], names)
        ends = np.cumsum([len(seen) for seen in views])
        for one, seen, end in zip(pictures, views, ends, strict=True):
            try:
                measured = self._measured(one.picture, features[end - len(seen) : end])
            except ValueError as fault:
                skipped.append(Skipped(one.name, ErrorCode.ENCODE_NONFINITE, str(fault)))
                continue
            facts = one.picture.facts
            finished[one.content_hash] = Embedded(measured, facts.format, facts.width, facts.height, facts.byte_length)
        return finished, skipped

    def _views_of(self, picture: DecodedPicture) -> list[Pixels]:
        """
        All that goes through the encoder: the global view, the crops, then the perturbed copies of the global view.
        """
        copies = perturbed_copies(picture.pixels) if self.views.perturbation else ()
        return [picture.pixels, *picture.native, *copies]

    def _features(self, pixels: Sequence[Pixels], names: Sequence[str]) -> Matrix:
        parts: list[Matrix] = []
        for start in range(0, len(pixels), self.batch_size):
            try:
                parts.append(self.encoder.encode(pixels[start : start + self.batch_size]))
            except UploadFailed as failure:
                raise CannotStart(f"the encoder gave up on {names[start]} and those after it: {failure}") from failure
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.fingerprint.dim), np.float32)

    def _measured(self, picture: DecodedPicture, features: Matrix) -> Measured:
        """
        One reference's row, from the features of its views. Raises ``ValueError`` where they are not finite.
        """
        seen = 1 + len(picture.native)
        sighting = sighting_of(picture, features[:seen])
        native = [crop.as_half()[None] for crop in sighting.native]
        shift = shift_of(features[0], features[seen:]) if self.views.perturbation else not_measured(len(SHIFT))
        realism = not_measured(len(REALISM)) if sighting.realism is None else sighting.realism
        return Measured(
            vector=sighting.embedding.as_half(),
            native=np.concatenate([np.empty((0, features.shape[1]), np.float16), *native]),
            norm=sighting.norm,
            realism=np.asarray(realism, dtype=np.float32),
            shift=np.asarray(shift, dtype=np.float32),
        )
