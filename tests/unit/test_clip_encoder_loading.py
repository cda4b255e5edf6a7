"""
Loading weights: verified before they are read, read without running anything, the same in every file format.
"""

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from tests.pictures import photograph
from tests.small_encoder import CountingRecorder, loaded
from worker.adapters.clip_encoder import load_encoder
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings

PICKLED = "open_clip_pytorch_model.bin"

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning", "ignore:Detected pickle protocol"
)


class Attack:
    """
    Makes a file when it is unpickled: what any malicious checkpoint does, with a harmless end.
    """

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def small(tmp_path: Path) -> SmallEncoder:
    """
    A model folder that the test may change.
    """
    return write_small_encoder(tmp_path / "small")


def with_weights(small: SmallEncoder, write: object, name: str = PICKLED) -> SmallEncoder:
    """
    The same folder with its weights in another file, written by ``write(path)``, rightly hashed.
    """
    assert callable(write)
    small.checkpoint.unlink(missing_ok=True)
    path = small.folder / name
    write(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return SmallEncoder(small.model, sha256, small.folder, path)


def torchscript(small: SmallEncoder, *, half: bool = False) -> torch.jit.ScriptModule:
    """
    The small model as OpenAI published theirs: a traced program with its weights inside.
    """
    model = open_clip.create_model(small.model)
    arguments = (torch.zeros(1, 3, 64, 64), torch.zeros(1, 8, dtype=torch.long))
    traced = torch.jit.trace(model.eval(), arguments, check_trace=False)  # type: ignore[no-untyped-call]  # torch's own
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced.half() if half else traced


def test_a_wrong_hash_is_refused_before_anything_is_read(small: SmallEncoder) -> None:
    """
    The message names the file, what was found and what was expected; the file is not even opened as weights.
    """
    small.checkpoint.write_bytes(b"not a safetensors file at all")
    found = hashlib.sha256(small.checkpoint.read_bytes()).hexdigest()
    with pytest.raises(EncoderInvalid) as caught:
        loaded(small)

    assert all(part in str(caught.value) for part in (str(small.checkpoint), found, small.checkpoint_sha256))


def test_one_model_has_one_fingerprint_in_every_format(small: SmallEncoder, tmp_path: Path) -> None:
    """
    safetensors, a pickled state dictionary, a training checkpoint and a TorchScript archive are the same encoder.
    """
    expected = loaded(small).fingerprint
    tensors = load_file(small.checkpoint)
    trained = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
    script = torchscript(small)
    folder = shutil.copytree(small.folder, tmp_path / "elsewhere")
    moved = SmallEncoder(f"local-dir:{folder}", small.checkpoint_sha256, folder, folder / small.checkpoint.name)
    writers = (lambda path: torch.save(tensors, path), lambda path: torch.save(trained, path), script.save)
    elsewhere = loaded(moved).fingerprint
    found = [loaded(with_weights(small, write)).fingerprint for write in writers]

    assert (expected.space, expected.id) == (elsewhere.space, elsewhere.id)
    assert [expected] * 3 == found


def test_a_half_precision_archive_is_read(small: SmallEncoder) -> None:
    """
    OpenAI's files hold halves: they are the encoder whose weights were rounded so.
    """
    rounded = {name: tensor.half().float() for name, tensor in load_file(small.checkpoint).items()}
    script = torchscript(small, half=True)
    archive = loaded(with_weights(small, script.save))
    plain = loaded(with_weights(small, lambda path: torch.save(rounded, path)))
    pictures = [np.asarray(photograph(64, 64))]

    assert plain.fingerprint == archive.fingerprint
    assert np.array_equal(plain.encode(pictures), archive.encode(pictures))


def attack_pickle(mark: Path, path: Path) -> None:
    """
    A bare pickle.
    """
    path.write_bytes(pickle.dumps(Attack(mark)))


def attack_torch(mark: Path, path: Path) -> None:
    """
    A PyTorch file with the attack among honest tensors.
    """
    torch.save({"state_dict": {"visual.proj": torch.zeros(2)}, "note": Attack(mark)}, path)


def attack_torch_legacy(mark: Path, path: Path) -> None:
    """
    The same in PyTorch's old format.
    """
    torch.save({"visual.proj": torch.zeros(2), "note": Attack(mark)}, path, _use_new_zipfile_serialization=False)


def attack_archive(mark: Path, path: Path) -> None:
    """
    Something that looks like TorchScript.
    """
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Attack(mark), protocol=2))
        archive.writestr("model/constants.pkl", pickle.dumps(Attack(mark), protocol=2))


@pytest.mark.parametrize("attack", [attack_pickle, attack_torch, attack_torch_legacy, attack_archive])
def test_nothing_in_a_checkpoint_is_ever_run(attack: object, small: SmallEncoder, tmp_path: Path) -> None:
    """
    A malicious file with the very hash that was configured is refused, and what it asked for did not happen.
    """
    assert callable(attack)
    mark = tmp_path / "it ran"
    evil = with_weights(small, lambda path: attack(mark, path))
    with pytest.raises(EncoderInvalid, match=str(evil.checkpoint)):
        loaded(evil)

    assert not mark.exists()


def test_the_attack_would_work_elsewhere(tmp_path: Path) -> None:
    """
    The fixture is a real attack: an unrestricted unpickler falls for it.
    """
    mark = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Attack(mark)))  # noqa: S301 - to show that the test above can fail

    assert mark.exists()


def test_no_unrestricted_loader_is_ever_called(small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    ``torch.load`` is only called restricted; open_clip's own loaders and ``torch.jit.load`` are not called at all.
    """
    restricted: list[object] = []
    real = torch.load

    def watched(path: object, **options: object) -> object:
        restricted.append(options.get("weights_only"))
        return real(path, map_location="cpu", weights_only=True)  # type: ignore[arg-type]  # a path, as it was given

    def forbidden(*_arguments: object, **_options: object) -> None:
        raise AssertionError("an unrestricted loader was called")

    tensors = load_file(small.checkpoint)
    script = torchscript(small)
    monkeypatch.setattr(torch, "load", watched)
    for module, name in (
        (torch.jit, "load"),
        (open_clip.factory, "load_state_dict"),
        (pickle, "load"),
        (pickle, "loads"),
    ):
        monkeypatch.setattr(module, name, forbidden)
    loaded(small)
    loaded(with_weights(small, script.save))
    loaded(with_weights(small, lambda path: torch.save(tensors, path)))

    assert [True] == restricted


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", PICKLED])
def test_damaged_weights_are_named(name: str, small: SmallEncoder) -> None:
    """
    A file that is no checkpoint is refused with its name and what to do.
    """
    damaged = with_weights(small, lambda path: path.write_bytes(b"\x80\x02garbage" * 9), name)

    with pytest.raises(EncoderInvalid, match="fetch it anew"):
        loaded(damaged)


def test_weights_of_another_architecture_are_refused(small: SmallEncoder) -> None:
    """
    Nothing is left at random: one tensor missing, or of another shape, refuses to start.
    """
    tensors = load_file(small.checkpoint)
    without = {name: tensor for name, tensor in tensors.items() if name != "visual.ln_post.weight"}
    wider = {**tensors, "visual.proj": torch.zeros(128, 65)}

    with pytest.raises(EncoderInvalid, match=r"ln_post\.weight"):
        loaded(with_weights(small, lambda path: torch.save(without, path)))
    with pytest.raises(EncoderInvalid, match="size mismatch"):
        loaded(with_weights(small, lambda path: torch.save(wider, path)))


@pytest.mark.parametrize("held", [[1, 2, 3], {"state_dict": {}}, {"a": 1}])
def test_files_without_tensors_are_refused(held: object, small: SmallEncoder) -> None:
    """
    A file that loads, but holds no weights, is told apart.
    """
    with pytest.raises(EncoderInvalid, match="holds"):
        loaded(with_weights(small, lambda path: torch.save(held, path)))


def test_folders_that_are_no_model_are_refused(small: SmallEncoder, tmp_path: Path) -> None:
    """
    A missing folder, a missing or senseless configuration, missing weights: each is named.
    """
    config = small.folder / "open_clip_config.json"

    with pytest.raises(EncoderInvalid, match=r"holds no open_clip_config\.json"):
        loaded(SmallEncoder(f"local-dir:{tmp_path}/nowhere", "0" * 64, tmp_path, tmp_path))
    config.write_text("{}")
    with pytest.raises(EncoderInvalid, match="model_cfg"):
        loaded(small)
    config.write_text(json.dumps({"model_cfg": {"embed_dim": 64, "vision_cfg": {"depth": 3}, "text_cfg": {}}}))
    with pytest.raises(EncoderInvalid, match="cannot build"):
        loaded(small)
    small.checkpoint.unlink()
    with pytest.raises(EncoderInvalid, match="holds no weights"):
        loaded(small)


def test_a_folder_and_a_checkpoint_are_one_too_many(small: SmallEncoder) -> None:
    """
    Two sources of weights are refused rather than one of them ignored.
    """
    with pytest.raises(EncoderInvalid, match="leave one out"):
        loaded(small, checkpoint=small.checkpoint)


def test_a_trunk_from_the_network_is_refused(small: SmallEncoder) -> None:
    """
    A configuration may name timm's own architectures, and no address from which timm would fetch one.
    """
    config = {"embed_dim": 64, "vision_cfg": {"timm_model_name": "hf-hub:someone/something"}, "text_cfg": {}}
    (small.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))

    with pytest.raises(EncoderInvalid, match="timm's own"):
        loaded(small)


def test_weights_that_give_no_numbers_are_refused(small: SmallEncoder) -> None:
    """
    NaN in the weights is found out by the first forward pass, before any upload.
    """
    tensors = {**load_file(small.checkpoint), "visual.proj": torch.full((128, 64), torch.nan)}

    with pytest.raises(EncoderInvalid, match="no finite feature"):
        loaded(with_weights(small, lambda path: torch.save(tensors, path)))


def test_a_name_in_a_verdict_shows_no_path(small: SmallEncoder) -> None:
    """
    Verdicts name a local model by its folder's name and not by where it lies.
    """
    settings = EncoderSettings(model=small.model, checkpoint_sha256=small.checkpoint_sha256, device="cpu")

    assert "local-dir:small" == load_encoder(settings, CountingRecorder()).fingerprint.model
