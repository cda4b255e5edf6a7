"""
Names of models: what they resolve to, the hub behind them, and the activation that must fit.
"""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import open_clip
import pytest
from huggingface_hub import constants
from open_clip.pretrained import get_pretrained_cfg, list_pretrained

from tests.small_encoder import CountingRecorder, loaded
from worker.adapters.clip_activation import check_file, check_tag
from worker.adapters.clip_encoder import load_encoder
from worker.adapters.clip_source import resolve
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings

OPENAI_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    An empty hub cache, and a hub that nobody can reach: a port that was free a moment ago.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    point_to(closed, monkeypatch)
    return tmp_path / "hub"


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Make this address the hub.
    """
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def put(cache: Path, repository: str, name: str, content: bytes) -> Path:
    """
    A file in the cache, as an earlier download left it: a link to what is named by its hash.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    file, blob = folder / "snapshots" / "c0ffee" / name, folder / "blobs" / hashlib.sha256(content).hexdigest()
    for path in (file, blob):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    file.unlink(missing_ok=True)
    file.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("c0ffee")
    return file


class Hub(ThreadingHTTPServer):
    """
    A hub on the loopback that has one repository.
    """

    files: dict[str, bytes]
    asked: list[str]


class HubRequest(BaseHTTPRequestHandler):
    """
    Answers as the hub does, with a commit and an ETag.
    """

    server: Hub

    def do_HEAD(self) -> None:
        """
        Headers, or 404 with the hub's own error code.
        """
        self._answer()

    def do_GET(self) -> None:
        """
        Headers and content.
        """
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        self.server.asked.append(self.path)
        content = b"" if self.path == "/" else self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "c0ffee" * 6 + "c0ff")
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content or b""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """
        Quiet.
        """


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """
    A running, empty hub.
    """
    server = Hub(("127.0.0.1", 0), HubRequest)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def small(tmp_path: Path) -> SmallEncoder:
    """
    A model folder to be put into hubs and caches.
    """
    return write_small_encoder(tmp_path / "small")


def settings_of(model: str, **more: object) -> EncoderSettings:
    """
    Settings on the CPU.
    """
    return EncoderSettings.model_validate({"model": model, "device": "cpu", **more})


@pytest.mark.parametrize("offline", [False, True])
def test_weights_that_cannot_be_had_are_told_at_once(offline: bool) -> None:
    """
    Without network or cache a registry tag fails with what to do, and without the hub client's half minute of retries.
    """
    started = time.monotonic()
    with pytest.raises(EncoderInvalid) as caught:
        resolve(settings_of("ViT-B-32-quickgelu/openai", offline=offline))
    message = str(caught.value)

    assert time.monotonic() - started < 25
    assert "hf-hub:timm/vit_base_patch32_clip_224.openai" in message
    assert "encoder.checkpoint" in message
    assert ("encoder.offline is set" if offline else "cannot be reached") in message


def test_cached_weights_need_no_network(cache: Path) -> None:
    """
    What an earlier start fetched is used, safetensors first; its preprocessing is the registry's.
    """
    put(cache, "timm/vit_base_patch32_clip_224.openai", "open_clip_pytorch_model.bin", b"pickled")
    pickled = resolve(settings_of("ViT-B-32-quickgelu/openai"))
    safe = put(cache, "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors", b"safe")
    source = resolve(settings_of("ViT-B/32-quickgelu/openai", offline=True))

    assert "open_clip_pytorch_model.bin" == pickled.checkpoint.name
    assert ("ViT-B-32-quickgelu/openai", safe) == (source.name, source.checkpoint)
    assert source.architecture["quick_gelu"]
    assert get_pretrained_cfg("ViT-B-32", "openai")["mean"] == source.preprocess["mean"]


def test_a_hub_id_is_downloaded_once(hub: Hub, small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Configuration and weights come from the hub, verified where a hash is configured; the second start asks nobody.
    """
    for path in small.folder.iterdir():
        hub.files[f"/someone/small/resolve/main/{path.name}"] = path.read_bytes()
    model = "hf-hub:someone/small"
    first = load_encoder(settings_of(model, checkpoint_sha256=small.checkpoint_sha256), CountingRecorder())
    hub.asked.clear()
    second = load_encoder(settings_of(model, offline=True), CountingRecorder())

    assert first.fingerprint == second.fingerprint
    assert (model, loaded(small).fingerprint.id) == (first.fingerprint.model, first.fingerprint.id)
    assert [] == hub.asked
    with pytest.raises(EncoderInvalid, match="another or a damaged file"):
        load_encoder(settings_of(model, checkpoint_sha256="0" * 64), CountingRecorder())


def test_a_hub_id_without_a_model_is_named(hub: Hub) -> None:
    """
    A repository that is no open_clip model, and a name that is none, are told apart from a broken network.
    """
    with pytest.raises(EncoderInvalid, match="no open_clip model"):
        resolve(settings_of("hf-hub:someone/nothing"))
    with pytest.raises(EncoderInvalid, match="no hub id"):
        resolve(settings_of("hf-hub:not/a/name"))
    assert ["/someone/nothing/resolve/main/open_clip_config.json"] == [p for p in hub.asked if "resolve" in p]


def test_quick_gelu_mismatches_refuse_and_name_the_right_model() -> None:
    """
    Every tag of the registry that would run with the wrong activation is refused, and no other.
    """
    wrong = {(arch, tag) for arch, tag in list_pretrained() if differs(arch, tag)}
    refused = {(arch, tag) for arch, tag in list_pretrained() if is_refused(arch, tag)}

    assert wrong == refused
    assert ("ViT-L-14", "openai") in refused
    with pytest.raises(EncoderInvalid, match="configure ViT-L-14-quickgelu/openai"):
        resolve(settings_of("ViT-L-14/openai"))


def differs(arch: str, tag: str) -> bool:
    """
    What open_clip itself only warns about.
    """
    used = open_clip.get_model_config(arch).get("quick_gelu", False)
    return bool(used != get_pretrained_cfg(arch, tag).get("quick_gelu", False))


def is_refused(arch: str, tag: str) -> bool:
    """
    Whether our check refuses it; the model that the refusal names must itself pass.
    """
    try:
        check_tag(arch, tag, open_clip.get_model_config(arch))
    except EncoderInvalid as error:
        named = str(error).rpartition("configure ")[2]
        right, _, _ = named.partition("/")
        return named.startswith("hf-hub:") or not is_refused(right, tag)
    return False


def test_known_files_are_held_to_their_activation() -> None:
    """
    OpenAI's own file, known by its hash, is refused under GELU, whatever the configuration calls it.
    """
    with pytest.raises(EncoderInvalid, match="configure ViT-L-14-quickgelu/openai"):
        check_file(OPENAI_L14, "ViT-L-14", open_clip.get_model_config("ViT-L-14"))
    check_file(OPENAI_L14, "ViT-L-14-quickgelu", open_clip.get_model_config("ViT-L-14-quickgelu"))
    check_file("0" * 64, "ViT-L-14", open_clip.get_model_config("ViT-L-14"))


def test_a_hub_configuration_without_quick_gelu_is_refused(cache: Path, small: SmallEncoder) -> None:
    """
    A hub repository that the registry knows to be trained with QuickGELU must say so itself.
    """
    config = json.loads((small.folder / "open_clip_config.json").read_text())
    repository = "timm/vit_large_patch14_clip_224.openai"
    put(cache, repository, "open_clip_config.json", json.dumps(config).encode())
    put(cache, repository, "open_clip_model.safetensors", b"")

    with pytest.raises(EncoderInvalid, match="configure ViT-L-14-quickgelu/openai"):
        resolve(settings_of(f"hf-hub:{repository}"))
    config["model_cfg"]["quick_gelu"] = True
    put(cache, repository, "open_clip_config.json", json.dumps(config).encode())
    assert repository in resolve(settings_of(f"hf-hub:{repository}")).name


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("ViT-L-41/openai", "near are .*ViT-L-14"),
        ("ViT-L-14-quickgelu/openia", "it has openai"),
        ("ViT-L-14-quickgelu", "add a tag, such as ViT-L-14-quickgelu/openai"),
        ("openai", "Want ARCH/TAG"),
    ],
)
def test_names_that_open_clip_does_not_know_are_explained(model: str, said: str) -> None:
    """
    A misspelt architecture or tag is answered with the nearest or the known ones.
    """
    with pytest.raises(EncoderInvalid, match=said):
        resolve(settings_of(model))


def test_an_architecture_takes_a_local_checkpoint(small: SmallEncoder) -> None:
    """
    With a checkpoint an architecture needs no tag where all its weights share one preprocessing, and one where not.
    """
    local = {"checkpoint": small.checkpoint, "checkpoint_sha256": small.checkpoint_sha256}
    source = resolve(settings_of("ViT-B-16-SigLIP", **local))

    assert ("ViT-B-16-SigLIP", small.checkpoint) == (source.name, source.checkpoint)
    assert ("squash", (0.5, 0.5, 0.5)) == (source.preprocess["resize_mode"], source.preprocess["mean"])
    with pytest.raises(EncoderInvalid, match="name the tag"):
        resolve(settings_of("ViT-L-14", **local))
    tagged = resolve(settings_of("ViT-L-14/laion2b_s32b_b82k", **local))
    assert (0.5, 0.5, 0.5) == tagged.preprocess["mean"]


def test_a_local_checkpoint_is_verified(small: SmallEncoder) -> None:
    """
    Under an architecture's name as in a folder, the hash comes first.
    """
    with pytest.raises(EncoderInvalid, match="another or a damaged file"):
        load_encoder(
            settings_of("ViT-B-32-quickgelu/openai", checkpoint=small.checkpoint, checkpoint_sha256="1" * 64),
            CountingRecorder(),
        )
