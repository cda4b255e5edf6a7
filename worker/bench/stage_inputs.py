"""
What the stages are measured with: the same uploads at every point of their way, made by the product's own functions.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from PIL import Image

from schemas.uploaded import UploadedImage
from worker.adapters.kafka_platform import PublishedEvent
from worker.adapters.system_clock import SystemClock
from worker.domain import FetchedUpload, Neighbourhood, Partition, Pixels, Provenance, RawEvent, Sighting, Upload
from worker.flow.encoding import SightingMaker
from worker.flow.lines import Slot
from worker.flow.travellers import Known, Passenger
from worker.instruments import Instruments, trial_judge
from worker.outcomes import Outcome
from worker.ports import ImageStore
from worker.settings.tree import Settings
from worker.stages.fetch import fetch_upload
from worker.stages.intake import read_event
from worker.stages.match import find_neighbours
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import DecodedPicture, Picture


class HeldStore:
    """
    An image store that has all bytes in memory: what is left of fetching is the hash and the event's claims.
    """

    def __init__(self, fetched: Sequence[FetchedUpload]) -> None:
        self._held: Mapping[int, bytes] = {id(one.upload.data.image): one.data for one in fetched}

    def read(self, image: UploadedImage) -> bytes:
        """
        The bytes of an image that was fetched before.
        """
        return self._held[id(image)]


@dataclass(frozen=True, slots=True)
class StageInputs:
    """
    One batch of uploads before and after every stage; ``store`` and ``instruments`` are their owner's to close.
    """

    instruments: Instruments
    store: ImageStore
    held: ImageStore
    events: Sequence[RawEvent]
    uploads: Sequence[Upload]
    fetched: Sequence[FetchedUpload]
    images: Sequence[Image.Image] = field(repr=False)
    decoded: Sequence[DecodedPicture] = field(repr=False)
    batches: Sequence[Sequence[Pixels]] = field(repr=False)
    sightings: Sequence[Sighting]
    neighbourhoods: Sequence[Neighbourhood]
    known: Sequence[Known]
    outcomes: Sequence[Outcome]

    @classmethod
    def prepared(
        cls, events: Sequence[PublishedEvent], instruments: Instruments, store: ImageStore, settings: Settings
    ) -> Self:
        """
        The uploads of these events, all the way from the record to the verdict.
        """
        topic = settings.kafka.topics.uploads
        raws = [
            RawEvent(Partition(topic, 0), number, event.key, event.value, event.headers, received_at_s=0.0)
            for number, event in enumerate(events)
        ]
        uploads = [read_event(raw, max_event_bytes=settings.kafka.max_event_bytes) for raw in raws]
        fetch = partial(fetch_upload, clock=SystemClock(), max_image_bytes=settings.fetch.max_image_bytes)
        fetched = [fetch(upload, store) for upload in uploads]
        decoded = [instruments.decoder.decode(one.data, one.content_hash) for one in fetched]
        sightings = _sightings(fetched, decoded, instruments, settings.batch.size)
        known = [_known(one, sighting) for one, sighting in zip(fetched, sightings, strict=True)]
        return cls(
            instruments,
            store,
            HeldStore(fetched),
            raws,
            uploads,
            fetched,
            [_image(one.data) for one in fetched],
            decoded,
            _batches(decoded, settings.batch.size),
            sightings,
            find_neighbours(instruments.bank, [one.embedding for one in sightings], k=instruments.policy.rule.k),
            known,
            trial_judge(instruments).judge(known),
        )

    def decode(self, fetched: FetchedUpload) -> DecodedPicture:
        """
        One picture, with all the views that the bank states.
        """
        return self.instruments.decoder.decode(fetched.data, fetched.content_hash)


def _sightings(
    fetched: Sequence[FetchedUpload], decoded: Sequence[DecodedPicture], instruments: Instruments, batch_size: int
) -> list[Sighting]:
    maker = SightingMaker(
        instruments.encoder,
        trial_judge(instruments),
        instruments.views,
        batch_size=batch_size,
        clock=SystemClock(),
        recorder=InMemoryRecorder(),
    )
    pictures = [Picture(one.content_hash, look, 1.0) for one, look in zip(fetched, decoded, strict=True)]
    return [one for one in maker.make(pictures).results if isinstance(one, Sighting)]


def _batches(decoded: Sequence[DecodedPicture], size: int) -> list[Sequence[Pixels]]:
    """
    All views, the global ones first, as the encoder is given them.
    """
    views = [one.pixels for one in decoded] + [crop for one in decoded for crop in one.native]
    return [views[start : start + size] for start in range(0, len(views), size)]


def _known(fetched: FetchedUpload, sighting: Sighting) -> Known:
    upload = fetched.upload
    passenger = Passenger(Slot(upload.raw), upload, fetched.content_hash, len(fetched.data), fetched.fetch_ms)
    return Known(passenger, sighting, Provenance("miss", None, 1.0, 1.0, 1))


def _image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
