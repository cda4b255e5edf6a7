"""
``touchstone doctor`` beside a real worker that follows releases: both judge the canaries alike, and may share a port.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bank_builders import a_source
from tests.release_rig import FromReleases
from tests.scraped import checked
from tests.servers import eventually
from tests.small_encoder import loaded
from tests.worker_rig import POLICY, Instruments, WorkerRig
from worker.bank.canary_files import embed_canaries, write_canaries
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import read_manifest
from worker.bank.manifest import GENERATED
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.bank.sources import list_source
from worker.cli.doctor import doctor
from worker.dev.servers import KafkaAt, RedisAt
from worker.dev.small_encoder import write_small_encoder
from worker.errors import EXIT_FOUND
from worker.stages.decode import DecodeLimits, PillowDecoder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

BY = Issuer("a test")
EXPECTED = {"real/000.png": "real", "real/001.png": "real", "fake/mill/000.png": "ai_generated"}


def canaries_of(bank: Path, folder: Path, **expected: str) -> dict[str, Path]:
    """
    The files of three canaries, pictures of the bank itself, with the labels that are expected of them.
    """
    source = a_source(folder / "source", reals=12, fakes=12)
    rows = "".join(f"{path},{label}\n" for path, label in (EXPECTED | expected).items())
    (source / "canaries.csv").write_text(f"path,label\n{rows}")
    encoder = loaded(write_small_encoder(folder / "encoder"))
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), perceptual_hash=None)
    canaries = embed_canaries(list_source(source / "canaries.csv", GENERATED), ReferenceEmbedder(encoder, decoder))
    return write_canaries(folder, canaries, read_manifest(bank))


@pytest.fixture
def releases(instruments: Instruments, tmp_path: Path) -> Releases:
    """
    Of one bank the release `right`, whose canaries it judges as expected, and `wrong`, of which it misses one.
    """
    found = Releases(DirectoryPlace(tmp_path / "place"))
    for name, changes in (("right", {}), ("wrong", {"fake/mill/000.png": "real"})):
        folder = tmp_path / name
        folder.mkdir()
        found.publish(instruments.bank, name, canaries=canaries_of(instruments.bank, folder, **changes))
    found.activate("right", BY)
    return found


@pytest.fixture
def rig(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, releases: Releases, tmp_path: Path
) -> Iterator[WorkerRig]:
    """
    A rig whose workers follow the releases, with their endpoints on a port of their own.

    To the encoder, which was never trained, all pictures are alike: its policy listens to the nearest reference alone.
    """
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.read_text().replace("temperature = 0.07", "temperature = 0.005"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    followed = FromReleases.of(instruments, releases, "pointer")
    with WorkerRig(kafka.bootstrap_servers, redis_server.url, followed, tmp_path) as made:
        made.configure("http.enabled=true", f"http.port={port}", "service.instance_id=one")
        yield made.configure(f"policy.path={json.dumps(str(policy))}").create_topics(1)


def findings(rig: WorkerRig) -> tuple[int, dict[str, tuple[str, str]]]:
    """
    The exit code, and status and text of each check, with the worker's own settings.
    """
    options = [part for one in rig.sets for part in ("--set", one)]
    ran = CliRunner().invoke(doctor, ["--json", *options], standalone_mode=False, env={"KAFKA_BOOTSTRAP_SERVERS": None})
    assert ran.exception is None, ran.output
    return ran.return_value, {one["check"]: (one["status"], one["text"]) for one in json.loads(ran.stdout)["checks"]}


def test_a_worker_that_is_well_is_no_fault(rig: WorkerRig, releases: Releases) -> None:
    """
    With it the port is its own, and the canaries are those that it began with; without it the port is free again.

    A release whose canaries it would refuse fails the doctor in the words of the worker, which keeps its bank.
    """
    worker = rig.start("one")
    worker.until_started()
    port = rig.settings.http.port
    assert eventually(lambda: checked(port, "/readyz")[0] == 200, deadline_s=60), rig.text()
    _, beside = findings(rig)
    releases.activate("wrong", BY)
    refusal = str(worker.until_logged("bank.refused")["why"])
    code, refused = findings(rig)
    assert worker.stop() == 0
    _, alone = findings(rig)

    assert "ok" == beside["http"][0]
    assert f"127.0.0.1:{port}: a worker answers there, touchstone " in beside["http"][1]
    assert beside["http"][1].endswith("of these settings, ready")
    assert ("ok", "release right: 3 of 3 judged as expected") == beside["canaries"]
    assert "ok" == refused["http"][0]
    assert EXIT_FOUND == code
    assert "failed" == refused["canaries"][0]
    assert refused["canaries"][1] in refusal
    assert ("ok", f"127.0.0.1:{port} is free") == alone["http"]
