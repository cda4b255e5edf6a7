"""
The main job on the field's real images, once for all tests that look at it: through Kafka, and through ``scan``.

The encoder is a really trained one (ImageNet's MobileNetV2), the bank a part of the field's images.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.outcome_reader import Outcome
from tests.platform_side import inline, small_jpeg, upload_event
from tests.small_encoder import mobilenet_encoder
from tests.worker_rig import Instruments, WorkerRig
from worker.dev.servers import KafkaAt, RedisAt

BANK_EVERY = 8
SAMPLE_EVERY = 6
"""Every twenty-fourth image is therefore both a reference and an upload."""

SIDE_PX = 160
VIEWS = ("--crops", "1", "--no-perturbation")
"""
Of the bank, and so of every upload: the crops and the noise that are usual cost eleven forwards of a reference and five
of an upload, which took three minutes; what they are worth is shown elsewhere.
"""

FRUGAL = ("encoder.threads=1", "batch.size=4")
"""
Of commands and worker: beside other tests, memory for large batches costs more than it saves, as do threads without a
core.
"""

PARTITIONS = 6
DEADLINE_S = 450.0
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class RealRun:
    """
    What went in, and what came out on both ways; paths are relative to the field data.

    ``by_kafka`` holds the verdicts, ``letters`` the dead letters that stand beside failed ones. ``afterwards`` is the
    status of an ordinary upload that came after all the others.
    """

    odd: dict[str, Row]
    sample: dict[str, Row]
    references: frozenset[str]
    by_kafka: dict[str, Outcome]
    letters: dict[str, Outcome]
    afterwards: str
    worker_code: int
    scanned: Sequence[dict[str, Any]]
    scan_code: int

    def by_scan(self, shared_data: Path) -> dict[str, dict[str, Any]]:
        """
        The lines of ``scan``, by path.
        """
        return {Path(line["content_id"]).relative_to(shared_data).as_posix(): line for line in self.scanned}


def real_instruments(folder: Path, shared_data: Path) -> Instruments:
    """
    The trained encoder, and a bank of every eighth image, made by the command that operators use.
    """
    encoder = mobilenet_encoder(folder / "encoder", shared_data, side_px=SIDE_PX)
    instruments = Instruments(encoder.model, encoder.checkpoint_sha256, folder / "bank")
    rows = read_rows(shared_data / "images.csv")[::BANK_EVERY]
    listing = folder / "references.csv"
    with listing.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "path": str(shared_data / "images" / row["path"])} for row in rows)
    built = command("bank", "build", str(listing), "--out", str(instruments.bank), "--id", "field", "--json", *VIEWS)
    subprocess.run([*built, *sets([*instruments.sets(), *FRUGAL])], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return instruments


def run_on_real_images(
    servers: tuple[KafkaAt, RedisAt], instruments: Instruments, folder: Path, shared_data: Path
) -> RealRun:
    """
    Every odd file and a sample of the images, published by reference to a worker; and scanned meanwhile.
    """
    kafka, redis = servers
    odd = {f"odd/{row['path']}": row for row in read_rows(shared_data / "odd.csv")}
    rows = read_rows(shared_data / "images.csv")
    sample = {f"images/{row['path']}": row for row in rows[::SAMPLE_EVERY]}
    files = [str(shared_data / "odd"), *(str(shared_data / path) for path in sample)]
    scan = command("scan", *files, "--json", "--surface", "post")
    with ExitStack() as stack:
        rig = stack.enter_context(WorkerRig(kafka.bootstrap_servers, redis.url, instruments, folder))
        # Nobody is to be expelled here: what is delivered again is known by then, and its verdict says so.
        rig.configure("kafka.session_timeout_s=60", "kafka.max_poll_interval_s=600")
        # Odd files lie side by side here: many failures in a row are no outage.
        rig.configure(
            *FRUGAL, "storm.consecutive=0", "storm.share=0", f"fetch.file_root={json.dumps(str(shared_data))}"
        )
        rig.create_topics(PARTITIONS)
        worker = rig.start("one")
        lines = stack.enter_context((folder / "scan.jsonl").open("w+", encoding="utf-8"))
        scanning = stack.enter_context(
            subprocess.Popen([*scan, *sets([*instruments.sets(), *FRUGAL])], cwd=folder, stdout=lines)
        )
        stack.callback(scanning.kill)
        reader = rig.reader()
        worker.until_started()
        paths = [*odd, *sample]
        published = rig.publish(upload_event(path, {"kind": "file", "path": path}) for path in paths)
        assert reader.until_answered(published, DEADLINE_S), worker.text()
        last = rig.publish([upload_event("ordinary", inline(small_jpeg(1)))])
        assert reader.until_answered(last), worker.text()
        worker_code = worker.stop()
        scan_code = scanning.wait(DEADLINE_S)
        lines.seek(0)
        topics = rig.settings.kafka.topics
        for topic in (topics.verdicts, topics.dead_letters):
            assert reader.until_read(topic, rig.cluster.ends(topic)), f"the end of {topic} was not reached"
        by_position = {one.position: path for path, one in zip(paths, published, strict=True)}
        by_topic = {
            topic: {
                by_position[one.answers]: one
                for one in reader.outcomes
                if one.topic == topic and one.answers in by_position
            }
            for topic in (topics.verdicts, topics.dead_letters)
        }
        return RealRun(
            odd=odd,
            sample=sample,
            references=frozenset(f"images/{row['path']}" for row in rows[::BANK_EVERY]),
            by_kafka={path: by_topic[topics.verdicts][path] for path in paths},
            letters=by_topic[topics.dead_letters],
            afterwards=reader.verdict_of(last[0])["outcome"]["status"],
            worker_code=worker_code,
            scanned=[json.loads(line) for line in lines],
            scan_code=scan_code,
        )


def command(*words: str) -> list[str]:
    """
    Our own command line, as a process.
    """
    return [sys.executable, "-m", "worker", *words]


def sets(settings: Iterable[str]) -> list[str]:
    """
    Settings as words of a command line.
    """
    return [word for one in settings for word in ("--set", one)]


def read_rows(path: Path) -> list[Row]:
    """
    The rows of a CSV file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
