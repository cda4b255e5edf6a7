"""
From a micro-batch of pictures to their sightings: all views through the encoder, and perturbed copies where wanted.

What becomes of a sighting, or of an upload without one, is in ``pipeline.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from worker.domain import ContentHash, Pixels, Sighting
from worker.errors import UploadFailed
from worker.flow.busy import BusyMeter
from worker.flow.containment import wanted_shift
from worker.flow.judging import Judge
from worker.ports import Clock, Encoder, Recorder
from worker.stages.embed import sighting_of
from worker.stages.perturb import COPIES, perturbed_copies, shift_of
from worker.views import DecodedPicture, Picture, ViewSpec, with_shift_where

Features = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded:
    """
    What a micro-batch came to: for each picture, in order, its sighting or why it has none; ``encode_s`` for all.
    """

    results: Sequence[Sighting | UploadFailed]
    encode_s: float


@dataclass(frozen=True, slots=True)
class _New:
    """
    The sighting of a look that may want its shift, with the picture and the raw features of its global view.
    """

    sighting: Sighting
    pixels: Pixels = field(repr=False)
    features: Features = field(repr=False)


class SightingMaker:
    """
    Makes sightings whole before anybody shares them; ``make`` is called by one encoder thread, each has its own maker.
    """

    def __init__(
        self, encoder: Encoder, judge: Judge, views: ViewSpec, *, batch_size: int, clock: Clock, recorder: Recorder
    ) -> None:
        self._encoder = encoder
        self._judge = judge
        self._views = views
        self._batch_size = batch_size
        self._clock = clock
        self._recorder = recorder
        self.busy = BusyMeter(clock)

    def make(self, pictures: Sequence[Picture]) -> Encoded:
        """
        Encode all views of all looks of a micro-batch, at most ``batch_size`` in one call, the global ones first.

        Features that are not finite fail their picture alone (ENCODE_NONFINITE), with all its looks. Raises
        ``UploadFailed`` when the
        encoder has no memory for one of the calls. That the encoder cannot take the perturbed copies fails nobody:
        those sightings have no shift.
        """
        watch = _Watch(self._clock)
        looks = [look for picture in pictures for look in picture.decoded.looks]
        found = self._looks(looks, watch)
        self._recorder.observe("encode_seconds", watch.total_s)
        remaining = iter(found)
        results = [_together([next(remaining) for _ in picture.decoded.looks]) for picture in pictures]
        return Encoded(results, watch.total_s)

    def as_if_new(self, known: Mapping[ContentHash, Sighting]) -> Mapping[ContentHash, Sighting]:
        """
        Of the recalled sightings those that are what this worker would make, less a shift that it would not measure.

        One without a shift that is wanted is left out: its picture must be encoded again. Workers with another grey
        zone write to the same cache, and one may have had no memory for the copies.
        """
        if not self._views.perturbation:
            return {content_hash: _without_shift(sighting) for content_hash, sighting in known.items()}
        wanted = iter(wanted_shift(self._judge, [look for sighting in known.values() for look in sighting.looks]))
        usable = {}
        for content_hash, sighting in known.items():
            wants = [next(wanted) for _ in sighting.looks]
            if all(look.shift is not None for look, wanting in zip(sighting.looks, wants, strict=True) if wanting):
                usable[content_hash] = with_shift_where(sighting, wants)
        return usable

    def _looks(self, looks: Sequence[DecodedPicture], watch: "_Watch") -> list[Sighting | UploadFailed]:
        """
        The sighting of each look, or why it has none.
        """
        views = [look.pixels for look in looks]
        views += [crop for look in looks for crop in look.native]
        features = self._features(views, watch)
        results: list[Sighting | UploadFailed] = []
        new: dict[int, _New] = {}
        below = len(looks)
        for at, look in enumerate(looks):
            above, below = below, below + len(look.native)
            rows = np.concatenate([features[at : at + 1], features[above:below]])
            try:
                sighting = sighting_of(look, rows)
            except ValueError as fault:
                results.append(UploadFailed(ErrorCode.ENCODE_NONFINITE, str(fault)))
                continue
            results.append(sighting)
            new[at] = _New(sighting, look.pixels, features[at])
        if self._views.perturbation and new:
            for at, sighting in zip(new, self._with_shift(list(new.values()), watch), strict=True):
                results[at] = sighting
        return results

    def _with_shift(self, new: Sequence[_New], watch: "_Watch") -> list[Sighting]:
        """
        The sightings in order, with their shift where the judge wants it and the encoder can tell it.

        Also for uploads that were forgotten meanwhile: followers and the cache get the same sighting.
        """
        sightings = [one.sighting for one in new]
        wanted = [at for at, wants in enumerate(wanted_shift(self._judge, sightings)) if wants]
        for together in _chunks(wanted, max(1, self._batch_size // COPIES)):
            copies = [copy for at in together for copy in perturbed_copies(new[at].pixels)]
            try:
                features = self._features(copies, watch)
            except UploadFailed:
                self._recorder.count("perturbed_total", len(together), result="out_of_memory")
                continue
            for number, at in enumerate(together):
                rows = features[number * COPIES : (number + 1) * COPIES]
                sightings[at] = self._shifted(new[at], rows)
        return sightings

    def _shifted(self, one: _New, rows: Features) -> Sighting:
        try:
            shift = shift_of(one.features, rows)
        except ValueError:  # the copies' features are not finite; the picture's own are
            self._recorder.count("perturbed_total", result="nonfinite")
            return one.sighting
        self._recorder.count("perturbed_total", result="measured")
        return replace(one.sighting, shift=shift)

    def _features(self, pixels: Sequence[Pixels], watch: "_Watch") -> Features:
        """
        Raw features, float32[n, d], in as few calls as batches of ``batch_size`` allow.
        """
        parts = []
        for chunk in _chunks(pixels, self._batch_size):
            with watch, self.busy:
                features = self._encoder.encode(chunk)
            if len(features) != len(chunk):
                raise RuntimeError(f"the encoder answered {len(features)} features to {len(chunk)} pictures")
            parts.append(features)
        return np.concatenate(parts)


class _Watch:
    """
    Adds up the seconds spent inside it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = 0.0
        self.total_s = 0.0

    def __enter__(self) -> None:
        self._began_s = self._clock.monotonic_s()

    def __exit__(self, *_: object) -> None:
        self.total_s += self._clock.monotonic_s() - self._began_s


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _together(looks: Sequence[Sighting | UploadFailed]) -> Sighting | UploadFailed:
    """
    The sighting of a picture from those of its looks, or why one of them has none.
    """
    sightings = [look for look in looks if isinstance(look, Sighting)]
    failures = [look for look in looks if isinstance(look, UploadFailed)]
    if failures:
        return failures[0]
    return sightings[0] if len(sightings) == 1 else replace(sightings[0], further=tuple(sightings[1:]))


def _without_shift(sighting: Sighting) -> Sighting:
    return with_shift_where(sighting, [False] * len(sighting.looks))
