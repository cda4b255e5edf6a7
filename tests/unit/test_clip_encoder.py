"""
The encoder around its tower: memory, devices, precisions, and the identity that it gives itself.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from schemas.errors import ErrorCode
from tests.pictures import photograph, spec_of
from tests.small_encoder import CountingRecorder, encoder_settings, loaded, read_tower
from worker.adapters import clip_encoder, clip_tower
from worker.adapters.clip_encoder import ClipEncoder, load_encoder
from worker.adapters.clip_tower import NormalisedTower, architecture_sha256, ready
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.domain import EncoderFingerprint, Pixels
from worker.errors import EncoderInvalid, UploadFailed
from worker.fingerprint import id_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallEncoder:
    """
    One small model folder for the file.
    """
    return write_small_encoder(tmp_path_factory.mktemp("small"))


def pictures(count: int, *, side: int = 64) -> list[Pixels]:
    """
    So many different pictures at the encoder's input size.
    """
    return [np.asarray(photograph(side, side, seed=n)) for n in range(count)]


def of_limited_memory(most: int) -> tuple[ClipEncoder, CountingRecorder, list[int]]:
    """
    An encoder whose device holds at most so many pictures; its feature is each picture's mean.
    """
    sizes: list[int] = []
    recorder = CountingRecorder()
    fingerprint = EncoderFingerprint("means", "", "", spec_of(8, mean=0.0, std=1.0), "fp32", 3, "", "")

    def forward(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError(f"tried to allocate {len(images)} pictures")
        return images.to(torch.float32).mean(dim=(1, 2)) / 255

    return ClipEncoder(forward, fingerprint, device=torch.device("cpu"), recorder=recorder), recorder, sizes


@pytest.mark.parametrize("count", [1, 5, 6, 13, 32])
def test_out_of_memory_halves_the_batch_and_goes_on(count: int) -> None:
    """
    A batch that does not fit is halved until it does, counted, and its features come in the order of the pictures.
    """
    encoder, recorder, sizes = of_limited_memory(5)
    batch = pictures(count, side=8)
    features = encoder.encode(batch)

    np.testing.assert_allclose([p.mean(axis=(0, 1)) / 255 for p in batch], features, rtol=1e-5)
    assert sum(size > 5 for size in sizes) == recorder.counts.get("encoder_out_of_memory_total", 0)
    assert (count > 5) == ("encoder_out_of_memory_total" in recorder.counts)


def test_one_picture_without_room_fails_as_an_upload() -> None:
    """
    When not even one picture fits, the uploads fail with a code that says so, and the process lives.
    """
    encoder, recorder, sizes = of_limited_memory(0)
    with pytest.raises(UploadFailed, match="does not fit") as caught:
        encoder.encode(pictures(4, side=8))

    assert ErrorCode.ENCODE_OUT_OF_MEMORY == caught.value.code
    assert [4, 2, 1] == sizes
    assert 3 == recorder.counts["encoder_out_of_memory_total"]


def test_other_faults_of_the_device_are_not_swallowed() -> None:
    """
    Only memory is handled; anything else is a fault of the device and ends the process.
    """
    encoder, _, _ = of_limited_memory(5)

    def broken(_images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    encoder._forward = broken

    with pytest.raises(RuntimeError, match="device-side"):
        encoder.encode(pictures(1, side=8))


def test_features_are_those_of_open_clip_bit_for_bit(small: SmallEncoder) -> None:
    """
    open_clip's own loader, transform and ``encode_image`` give the very same numbers in fp32.
    """
    encoder = loaded(small)  # first: it sets torch's thread count, and another count rounds otherwise
    model, transform = open_clip.create_model_from_pretrained(small.model)
    batch = pictures(7)
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(Image.fromarray(p)) for p in batch]))

    assert np.array_equal(expected.numpy(), encoder.encode(batch))


def test_only_the_image_tower_is_kept(small: SmallEncoder) -> None:
    """
    No text tower takes memory, and nothing in the tower trains or drops.
    """
    tower = loaded(small)._forward

    assert isinstance(tower, NormalisedTower)
    assert not any(part.training for part in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any("token_embedding" in name for name, _ in tower.named_parameters())


def test_weights_are_cast_and_norms_are_not(small: SmallEncoder) -> None:
    """
    A tower that cannot be fused is cast as open_clip casts it: matrices to bf16 in memory, layer norms stay in fp32.
    """
    tower = read_tower(small)
    tower.transformer.resblocks[0].attn.add_zero_attn = True
    module, forward = ready(tower, spec_of(64), "bf16", torch.device("cpu"))
    dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}

    assert isinstance(forward, NormalisedTower)

    assert torch.bfloat16 == dtypes["conv1.weight"] == dtypes["transformer.resblocks.0.attn.in_proj_weight"]
    assert torch.float32 == dtypes["ln_post.weight"]


def test_precisions_agree(small: SmallEncoder) -> None:
    """
    One model in bf16 and in fp32 points the same way: the space is one, the id is not.
    """
    exact, rough = loaded(small), loaded(small, precision="bf16")
    left, right = exact.encode(pictures(6)), rough.encode(pictures(6))
    cosines = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)

    assert exact.fingerprint.space == rough.fingerprint.space
    assert exact.fingerprint.id != rough.fingerprint.id
    assert cosines.min() > 0.999


def test_automatic_choices_on_a_machine_without_cuda(small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without CUDA, ``auto`` is the CPU in fp32.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    encoder = load_encoder(encoder_settings(small, device="auto", precision="auto"), CountingRecorder())

    assert ("fp32", torch.device("cpu")) == (encoder.fingerprint.precision, encoder._device)


def test_a_fused_tower_has_an_id_of_its_own(small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Fused, vectors round otherwise than open_clip's own in bf16: what was cached of the one is not taken for the other.
    """
    fused, exact = (loaded(small, precision=precision).fingerprint for precision in ("bf16", "fp32"))
    monkeypatch.setattr(clip_tower, "fuse", lambda *_: None)
    plain = loaded(small, precision="bf16").fingerprint

    assert (plain.space, plain.precision) == (fused.space, fused.precision)
    assert plain.id == id_of(plain.space, "bf16") != fused.id
    assert exact.id == id_of(exact.space, "fp32")


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_automatic_precision_on_cuda(has_bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On CUDA ``auto`` is bf16, and fp16 where the device is too old for it.
    """
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)

    assert expected == clip_encoder._precision("auto", torch.device("cuda"))


def test_cuda_that_is_not_there_is_refused(small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A configured device is never replaced in silence.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(EncoderInvalid, match='configure "cpu"'):
        loaded(small, device="cuda:1")


def test_fp16_on_the_cpu_is_refused(small: SmallEncoder) -> None:
    """
    A precision that would be slower than fp32 is refused with the reason.
    """
    with pytest.raises(EncoderInvalid, match="slower than fp32"):
        loaded(small, precision="fp16")


def test_threads_are_set_only_when_configured(small: SmallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    0 leaves torch as it is; any other number is torch's, and several instances share the cores.
    """
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr("worker.adapters.clip_device.torch_cores", lambda: 8)
    loaded(small, threads=0)
    loaded(small, threads=3)
    loaded(small, threads=0, instances=3)
    loaded(small, threads=3, instances=3)
    loaded(small, threads=0, instances=20)

    assert [3, 2, 3, 1] == asked


def test_architecture_identity_is_about_the_features() -> None:
    """
    The activation counts; defaults spelt out, dropping for training and the text tower do not.
    """
    base = open_clip.get_model_config("ViT-B-32")
    same = {**base, "text_cfg": {}, "vision_cfg": {**base["vision_cfg"], "mlp_ratio": 4.0, "patch_dropout": 0.5}}
    deeper = {**base, "vision_cfg": {**base["vision_cfg"], "layers": 13}}

    assert architecture_sha256(base) == architecture_sha256(same)
    assert architecture_sha256(base) == architecture_sha256(open_clip.get_model_config("xlm-roberta-base-ViT-B-32"))
    assert architecture_sha256(base) != architecture_sha256(open_clip.get_model_config("ViT-B-32-quickgelu"))
    assert architecture_sha256(base) != architecture_sha256(deeper)


def test_the_small_encoders_weights_never_change(tmp_path: Path) -> None:
    """
    Every machine makes the same weights from a seed, and other weights from another.
    """
    fingerprint = loaded(write_small_encoder(tmp_path / "a")).fingerprint
    other = loaded(write_small_encoder(tmp_path / "b", seed=1)).fingerprint

    assert "82384db7145f3774cf90636cfbd8eefdc8d5f28ae9ed9262a852174fca34b856" == fingerprint.weights_sha256
    assert fingerprint.architecture_sha256 == other.architecture_sha256
    assert fingerprint.weights_sha256 != other.weights_sha256
    assert fingerprint.space != other.space


def test_several_threads_may_encode_at_once(small: SmallEncoder) -> None:
    """
    What an encoder says to several threads that ask at the same time is what it says to each alone.
    """
    batches = [pictures(4)[number:] for number in range(4)]
    for precision in ("fp32", "bf16"):
        encoder = loaded(small, precision=precision)
        alone = [encoder.encode(batch) for batch in batches]
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(encoder.encode, batches * 5))

        assert all(np.array_equal(alone[at % 4], found) for at, found in enumerate(together))
