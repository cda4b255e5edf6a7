"""
A worker whose plain JPEGs are decoded on a device: each upload of a mixed stream has its own verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from schemas.errors import ErrorCode
from tests.device_rig import cpu_device, device_spec, on_device, turned
from tests.fake_encoder import SIZE
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World
from tests.pictures import encoded, photograph
from worker.decoding.device_batches import DeviceJob, DeviceSeen
from worker.flow.stage_set import StageSet
from worker.ports import EmbeddingCache

MARK = b"refuse me"


class Refusing:
    """
    The CPU's device, but for files with a mark in a comment, which it does not decode.
    """

    version = "refusing"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def make(self, jobs: Sequence[DeviceJob]) -> Sequence[DeviceSeen | None]:
        """
        As ``JpegDevice.make``; the marked ones are sent as no JPEG, so that the whole batch fails first.
        """
        self.sizes.append(len(jobs))
        return cpu_device().make([replace(job, data=b"none") if MARK in job.data else job for job in jobs])


class OnDevice(Worker):
    """
    A worker with that device.
    """

    def __init__(self, world: World) -> None:
        self.device, self.ends = Refusing(), Counter[str]()
        super().__init__(world, Tuning(decode_threads=8, batch_size=8))

    def _stages(self, cache: EmbeddingCache | None) -> StageSet:
        decoder = on_device(self.device, spec=device_spec(SIZE), ends=self.ends)
        return replace(super()._stages(cache), decoder=decoder)


def test_each_upload_of_a_mixed_stream_has_its_own_verdict(world: World) -> None:
    """
    Plain and turned JPEGs, some that the device refuses, other formats, and some that nobody can read.
    """
    ends: dict[str, list[object]] = {}
    for number in range(40):
        picture = photograph(100 + number, 90, seed=number)
        kinds: list[tuple[bytes, object]] = [
            (encoded(picture, "JPEG"), "judged"),
            (encoded(picture, "JPEG", exif=turned(1 + number % 8)), "judged"),
            (encoded(picture, "JPEG", comment=MARK), "judged"),
            (encoded(picture, "PNG"), "judged"),
            (encoded(picture, "JPEG", progressive=True), "judged"),
            (encoded(picture, "JPEG")[:-20], ErrorCode.DECODE_TRUNCATED),
            (b"no picture at all", ErrorCode.FORMAT_UNSUPPORTED),
        ]
        data, end = kinds[number % len(kinds)]
        world.shelf.pictures[f"upload-{number}"] = data + (b"" if end == "judged" else b"%d" % number)
        ends[f"upload-{number}"] = [end]
        world.publish(f"upload-{number}", partition=number % 3)
    worker = OnDevice(world)
    worker.finish()

    assert ends == world.ends()
    assert Counter(decoded=12, refused=6) == worker.ends
    assert 18 <= sum(worker.device.sizes)
