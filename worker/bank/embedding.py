"""
From surveyed files to embeddings, through decoder and encoder: decoded ahead in threads, encoded in batches.

What is finished goes into the workshop part by part; what cannot be used is reported, never dropped in silence. Where
the parts are embedded is an ``Engine``'s: here in threads, or by ``worker.adapters.ray_embedding`` on other machines,
which calls the same ``ReferenceEmbedder.parts``.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
class EmbeddedPart:
    """
    What became of so many ``references``: each content that was embedded, and what could not be used.
    """

    references: int
    finished: Mapping[ContentHash, Embedded] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()


Parts = Generator[EmbeddedPart, None, None]

Engine = Callable[["ReferenceEmbedder", Sequence[Surveyed]], Parts]
"""Gives the parts that ``ReferenceEmbedder.parts`` of the same embedder gives, in any order; closed when left."""


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
    ``engine`` embeds elsewhere; without one the work is done here, in ``threads``.
    """

    encoder: Encoder
    decoder: PictureDecoder
    batch_size: int = 32
    threads: int = 2
    views: ViewSpec = GLOBAL_ONLY
    engine: Engine | None = None

    @property
    def part_size(self) -> int:
        """
        How many references make one part.
        """
        return max(1, PART // (1 + self.views.native_crops))

    def embed(
        self, surveyed: Sequence[Surveyed], workshop: Workshop, progress: Progress = no_progress
    ) -> tuple[Skipped, ...]:
        """
        Embed what the workshop does not know yet and keep it there; returns what could not be used, in their order.

        Blocks for as long as it takes. Raises ``CannotStart`` when the encoder has no memory for a single picture, and
        ``ValueError`` when the decoder was made for other views; an engine has reasons of its own.
        """
        wanted = [one for one in surveyed if one.content_hash not in workshop.known]
        done = len(surveyed) - len(wanted)
        skipped: list[Skipped] = []
        progress("embedding", done, len(surveyed))
        with closing(self.parts(wanted) if self.engine is None else self.engine(self, wanted)) as parts:
            for part in parts:
                workshop.keep(part.finished)
                skipped.extend(part.skipped)
                done += part.references
                progress("embedding", done, len(surveyed))
        place = {one.reference.name: number for number, one in enumerate(wanted)}
        return tuple(sorted(skipped, key=lambda one: place[one.name]))

    def parts(self, wanted: Sequence[Surveyed], part_size: int | None = None) -> Parts:
        """
        The parts of these references in order, each decoded while the one before it is encoded.

        A part never depends on what lies before or behind it, so that the same parts may be embedded anywhere.
        """
        step = part_size or self.part_size
        with ThreadPoolExecutor(self.threads, thread_name_prefix="bank-decode") as pool:
            ahead: list[Future[_Decoded | Skipped]] = []
            for start in range(0, len(wanted) + step, step):
                current = ahead
                ahead = [pool.submit(self._decode, one) for one in wanted[start : start + step]]
                if current:
                    yield self._part([future.result() for future in current])

    def _part(self, decoded: Sequence[_Decoded | Skipped]) -> EmbeddedPart:
        finished, unusable = self._encode([one for one in decoded if isinstance(one, _Decoded)])
        undecoded = [one for one in decoded if isinstance(one, Skipped)]
        return EmbeddedPart(len(decoded), finished, (*undecoded, *unusable))

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
