"""
The stages of one worker, each behind its seam, and the shelf from which it fetches pictures.

The stages are the real ones, but for the encoder; ``tests.loop_rig`` puts them together.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef, HttpsRef, UploadedImage
from tests.loop_seams import PERTURBED, Seams
from worker.domain import (
    BankIdentity,
    ContentHash,
    Embedding,
    EncoderFingerprint,
    FetchedUpload,
    Neighbourhood,
    Pixels,
    RawEvent,
    Sighting,
    Upload,
)
from worker.errors import EventUnreadable, UploadFailed
from worker.flow.bank_judge import BankJudge
from worker.flow.judging import Judge
from worker.flow.stage_set import StageSet
from worker.flow.travellers import Failed, Known
from worker.outcomes import Deferred, Message, Outcome, VerdictIssued
from worker.ports import Bank, EmbeddingCache, Encoder, PictureDecoder, Remembered
from worker.stages.perturb import perturbed_copies
from worker.views import DecodedPicture

RECALLED = "recalled"
"""What a picture goes by that this worker has never had."""


class Shelf:
    """
    Implements ``worker.ports.ImageStore``: pictures by path.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}

    def read(self, image: UploadedImage) -> bytes:
        """
        The bytes under a path.
        """
        path = picture_of(image)
        if path not in self.pictures:
            raise UploadFailed(ErrorCode.FETCH_NOT_FOUND, f"nothing lies at {path}")
        return self.pictures[path]


def picture_of(image: UploadedImage) -> str:
    """
    The path that refers to a picture.
    """
    if isinstance(image.ref, HttpsRef):
        return urlsplit(image.ref.url).path.removeprefix("/")
    assert isinstance(image.ref, FileRef)
    return image.ref.path


def watched(stages: StageSet, seams: Seams) -> StageSet:
    """
    The same stages, each behind its seam.
    """

    def read_event(raw: RawEvent) -> Upload:
        seams.at("read_event", (raw.key or b"").decode())
        return stages.read_event(raw)

    def fetch(upload: Upload) -> FetchedUpload:
        seams.at("fetch", upload.data.content_id)
        fetched = stages.fetch(upload)
        seams.pictures[fetched.content_hash] = picture_of(upload.data.image)
        return fetched

    judge = stages.judge
    assert isinstance(judge, BankJudge)
    return StageSet(
        read_event=read_event,
        fetch=fetch,
        views=stages.views,
        past=stages.past,
        archive=stages.archive,
        keep=stages.keep,
        place_of=stages.place_of,
        cache=None if stages.cache is None else WatchedCache(stages.cache, seams),
        decoder=WatchedDecoder(stages.decoder, seams),
        encoder=WatchedEncoder(stages.encoder, seams),
        judge=WatchedJudge(replace(judge, bank=WatchedBank(judge.bank, seams)), seams),
    )


def watched_serialise(
    serialise: Callable[[Outcome], Sequence[Message]], seams: Seams
) -> Callable[[Outcome], Sequence[Message]]:
    """
    The last stage behind its seam; dead letters pass as the key of their record.
    """

    def seen(outcome: Outcome) -> Sequence[Message]:
        key = outcome.raw.key if isinstance(outcome, Deferred) else outcome.key
        content_id = outcome.verdict.content_id if isinstance(outcome, VerdictIssued) else (key or b"").decode()
        seams.at("serialise", content_id)
        return serialise(outcome)

    return seen


class WatchedCache:
    """
    A cache behind the seams ``recall`` and ``remember``.
    """

    def __init__(self, cache: EmbeddingCache, seams: Seams) -> None:
        self._cache = cache
        self._seams = seams

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        As the cache does.
        """
        self._seams.at("recall", *(self._seams.pictures.get(content_hash, content_hash) for content_hash in hashes))
        known = self._cache.recall(hashes)
        for content_hash, sighting in (known or {}).items():
            if not isinstance(sighting, Sighting):
                continue
            self._seams.pictures[sighting.embedding.vector.tobytes()] = self._seams.pictures.get(
                content_hash, content_hash
            )
        return known

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        As the cache does.
        """
        self._seams.at("remember", *(self._seams.pictures[content_hash] for content_hash in found))
        return self._cache.remember(found)

    def close(self) -> None:
        """
        As the cache does.
        """
        self._cache.close()


class WatchedDecoder:
    """
    A decoder behind the seam ``decode``.
    """

    def __init__(self, decoder: PictureDecoder, seams: Seams) -> None:
        self._decoder = decoder
        self._seams = seams

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        As the decoder does.
        """
        name = self._seams.pictures[content_hash]
        self._seams.at("decode", name)
        decoded = self._decoder.decode(data, content_hash)
        for look in decoded.looks:
            for view in (look.pixels, *look.native):
                self._seams.pictures[view.tobytes()] = name
        for look in decoded.looks:
            for copy in perturbed_copies(look.pixels):
                # A copy may be the picture itself, such as a blurred one without any edge.
                self._seams.pictures.setdefault(copy.tobytes(), name + PERTURBED)
        return decoded


class WatchedEncoder:
    """
    An encoder behind the seam ``encode``; one call is one micro-batch, where pictures have but one view.
    """

    def __init__(self, encoder: Encoder, seams: Seams) -> None:
        self._encoder = encoder
        self._seams = seams

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        That of the encoder.
        """
        return self._encoder.fingerprint

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        As the encoder does.
        """
        names = [self._seams.pictures[one.tobytes()] for one in pixels]
        self._seams.at("encode", *names)
        features = self._encoder.encode(pixels)
        for name, feature in zip(names, features, strict=False):
            with suppress(ValueError):  # not finite: it has no place
                self._seams.pictures[Embedding.from_features(feature).vector.tobytes()] = name
        return features


class WatchedBank:
    """
    A bank behind the seam ``bank``; one call is one search.
    """

    def __init__(self, bank: Bank, seams: Seams) -> None:
        self._bank = bank
        self._seams = seams

    @property
    def identity(self) -> BankIdentity:
        """
        That of the bank.
        """
        return self._bank.identity

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        As the bank does.
        """
        names = [self._seams.pictures.get(embedding.vector.tobytes(), RECALLED) for embedding in embeddings]
        self._seams.at("bank", *names)
        return self._bank.nearest(embeddings, k)


class WatchedJudge:
    """
    A judge behind the seams ``judge``, ``wants_shift``, ``fail`` and ``dead_letter``.
    """

    def __init__(self, judge: Judge, seams: Seams) -> None:
        self._judge = judge
        self._seams = seams

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        As the judge does.
        """
        self._seams.judged.update({one.passenger.upload.data.content_id: one.sighting for one in known})
        self._seams.at("judge", *(one.passenger.upload.data.content_id for one in known))
        return self._judge.judge(known)

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        As the test has it.
        """
        names = [self._seams.pictures.get(sighting.facts.sha256, RECALLED) for sighting in sightings]
        self._seams.at("wants_shift", *names)
        return [name in self._seams.grey for name in names]

    def fail(self, failed: Failed) -> Outcome:
        """
        As the judge does.
        """
        self._seams.at("fail", failed.upload.data.content_id)
        return self._judge.fail(failed)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        As the judge does.
        """
        self._seams.at("dead_letter", (raw.key or b"").decode())
        return self._judge.dead_letter(raw, unreadable)
