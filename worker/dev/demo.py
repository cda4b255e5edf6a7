"""
The demo: the main job on real servers, seen from the platform's side.

A worker is started as a process of its own, uploads are published, and their verdicts are awaited.
What is shown and how is the command's affair (``worker/cli/demo.py``).
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from schemas import uploaded
from schemas.dead_letter import TYPE as DEAD_LETTER
from schemas.envelope import EventAttributes, write_binary
from schemas.verdict import ImageVerdictV1
from worker.adapters.file_source import as_content_id, as_reference, list_files
from worker.adapters.kafka_platform import PublishedEvent, ReadMessage, publish_uploads, read_outcomes
from worker.dev.pictures import DemoPicture, generated, photographs
from worker.errors import ConfigInvalid, WorkerCrashed
from worker.settings.tree import Settings

UPLOAD_CROPS = 2
UPLOAD_EACH = 8
UPLOAD_SEED = 2
MAX_INLINE_BYTES = 32 * 1024
START_TIMEOUT_S = 90.0
PATIENCE_S = 60.0
"""How long the demo waits without any outcome before it gives up."""


@dataclass(frozen=True, slots=True)
class DemoUpload:
    """
    One upload that the demo publishes.
    """

    name: str
    event: PublishedEvent


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """
    One answer: a verdict, or None for a dead letter.
    """

    name: str
    verdict: ImageVerdictV1 | None


def shipped_uploads(root: Path) -> list[DemoUpload]:
    """
    Pictures the bank has not seen, one of them twice, and two accidents: bytes that are no image, and no event at all.
    """
    pictures = [*photographs(crops=UPLOAD_CROPS, seed=UPLOAD_SEED), *generated(each=UPLOAD_EACH, seed=UPLOAD_SEED)]
    uploads = [_upload_of(picture, root) for picture in pictures]
    twin = pictures[0]
    uploads.append(_upload_of(replace(twin, name=f"again-{twin.name}"), root))
    uploads.append(_upload_of(replace(twin, name="torn.jpg", data=twin.data[: len(twin.data) // 2]), root))
    uploads.append(DemoUpload("no-event", PublishedEvent(b"no-event", b"{ this is no JSON", ())))
    return uploads


def folder_uploads(folder: Path) -> list[DemoUpload]:
    """
    One upload for each file below a folder, by reference. Raises ``ConfigInvalid`` when there is none.
    """
    files = list_files([folder])
    if not files:
        raise ConfigInvalid(f"{folder} holds no files; name a folder of pictures")
    names = [file.relative_to(folder).as_posix() if folder.is_dir() else file.name for file in files]
    names = [as_content_id(name) for name in names]
    return [
        _upload(name, {"kind": "file", "path": as_reference(file)}) for name, file in zip(names, files, strict=True)
    ]


def _upload_of(picture: DemoPicture, root: Path) -> DemoUpload:
    # Small ones travel inside their event, larger ones by reference: both ways are shown.
    if len(picture.data) <= MAX_INLINE_BYTES // 2:
        ref = {"kind": "inline", "base64": base64.b64encode(picture.data).decode()}
    else:
        (root / picture.name).write_bytes(picture.data)
        ref = {"kind": "file", "path": picture.name}
    return _upload(picture.name, ref)


def _upload(name: str, ref: Mapping[str, str]) -> DemoUpload:
    body = {"content_id": name, "image": {"ref": ref}, "context": {"surface": "post"}}
    headers = write_binary(EventAttributes(str(uuid4()), "urn:touchstone:demo", uploaded.TYPE))
    return DemoUpload(name, PublishedEvent(name.encode(), json.dumps(body).encode(), headers))


@contextmanager
def running_worker(sets: Sequence[str], log_file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """
    A worker in a process of its own, configured by ``sets`` alone, with its log in a file; drained at the end.

    Raises ``WorkerCrashed``, with the log's last lines, when it does not end well.
    """
    command = [sys.executable, "-m", "worker", "run"]
    for one in sets:
        command += ["--set", one]
    # Of the environment, nothing that is the caller's own configuration.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE__")}
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        environ.pop(name, None)
    with log_file.open("wb") as log, subprocess.Popen(command, stderr=log, stdout=log, env=environ) as process:  # noqa: S603 - our own command
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(START_TIMEOUT_S)
        except WorkerCrashed as fault:
            raise WorkerCrashed(f"{fault}. The end of its log:\n{last_lines(log_file)}") from fault
        finally:
            process.kill()
    if process.returncode != 0:
        raise WorkerCrashed(f"the demo's worker ended with {process.returncode}:\n{last_lines(log_file)}")


def last_lines(log_file: Path, count: int = 15) -> str:
    """
    The end of a log.
    """
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-count:])


def publish(settings: Settings, uploads: Sequence[DemoUpload]) -> None:
    """
    Publish the uploads, acknowledged.
    """
    publish_uploads(settings.kafka, [upload.event for upload in uploads])


def outcomes(
    settings: Settings, expected: int, process: "subprocess.Popen[bytes]", *, on_wait: Callable[[], None]
) -> Iterator[DemoOutcome]:
    """
    The outcomes as they arrive, until ``expected`` have.

    Raises ``WorkerCrashed`` when the worker ends, or nothing arrives for long.
    """
    arrived = 0
    since_s = time.monotonic()
    patience_s = START_TIMEOUT_S  # the model and the bank are loaded first
    for messages in read_outcomes(settings.kafka, wait_s=0.2):
        for message in messages:
            arrived += 1
            since_s, patience_s = time.monotonic(), PATIENCE_S
            yield _outcome(message)
        if arrived >= expected:
            return
        on_wait()
        if process.poll() is not None:
            raise WorkerCrashed(f"the demo's worker ended with {process.returncode} before all outcomes had arrived")
        if time.monotonic() - since_s > patience_s:
            raise WorkerCrashed(f"{arrived} of {expected} outcomes arrived, and none for {patience_s:.0f} s")


def _outcome(message: ReadMessage) -> DemoOutcome:
    if dict(message.headers).get("ce_type") == DEAD_LETTER.encode():
        return DemoOutcome("no-event", None)
    verdict = ImageVerdictV1.model_validate_json(message.value)
    return DemoOutcome(verdict.content_id, verdict)
