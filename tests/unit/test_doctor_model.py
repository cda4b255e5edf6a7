"""
What ``touchstone doctor`` says of weights, device, policy, bank, calibration and shadow, failing on purpose and well.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small
from tests.conftest import ROOT
from tests.doctor_parts import check_of, some_parts, statuses, there
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.adapters.clip_device import DeviceFacts
from worker.doctor import model
from worker.doctor.finding import examine
from worker.doctor.parts import Part, Parts, parts_of
from worker.errors import CannotStart
from worker.policy import load_policy
from worker.settings.images import DecodeSettings
from worker.settings.operations import ShadowSettings
from worker.settings.tree import EncoderSettings, Settings
from worker.whole_banks import read_bank

POLICY = ROOT / "config" / "policy.toml"


@pytest.fixture(scope="module")
def model_parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """
    The fake encoder, a bank that was built with it, and the shipped policy.
    """
    folder = tmp_path_factory.mktemp("doctor")
    build_small(a_source(folder / "source"), folder / "bank", fake_embedder())
    return some_parts(
        encoder=there(FakeEncoder()),
        release=there(None),
        bank=there(read_bank(folder / "bank")),
        policy=there(load_policy(POLICY)),
    )


def test_model_is_in_order(model_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An encoder, its bank and a policy that fits are ok; a bank without a judgement is a warning.
    """
    # No encoder was loaded here, which would have shared out the cores.
    monkeypatch.setattr(model, "survey_device", lambda _: DeviceFacts("2", 1, None))
    settings = Settings()
    checks = model.model_checks(settings, model_parts)
    found = {checked.name: checked.finding.status for checked in examine(checks)}

    assert {
        "weights": "ok",
        "device": "ok",
        "policy": "ok",
        "bank": "ok",
        "canaries": "skipped",
        "calibration": "warning",
        "shadow": "skipped",
    } == found


def test_damaged_weights_fail_once(tmp_path: Path, model_parts: Parts) -> None:
    """
    A checkpoint with another hash than declared fails as weights; what needs the encoder says so.
    """
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    encoder = EncoderSettings(model="ViT-B-32", checkpoint=tmp_path / "weights.pt", checkpoint_sha256="ab" * 32)
    parts = replace(model_parts, encoder=parts_of(Settings(encoder=encoder)).encoder)
    found = statuses(Settings(), parts)

    assert "failed" == found["weights"][0]
    assert "has sha256" in found["weights"][1]
    assert ("skipped", "needs weights, which failed") == found["device"]
    assert "ok" == found["bank"][0]
    assert "whether it fits the encoder is not known" in found["bank"][1]


def test_a_device_that_is_not_there_fails(model_parts: Parts) -> None:
    """
    A CUDA device beyond those of this machine fails with what torch finds.
    """
    parts = replace(model_parts, encoder=parts_of(Settings(encoder=EncoderSettings(device="cuda:99"))).encoder)

    assert "failed" == statuses(Settings(), parts)["weights"][0]
    assert "cuda:99" in statuses(Settings(), parts)["weights"][1]


def test_whether_a_gpu_decodes_jpegs_is_tried(model_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is told where nobody asked for it, and fails the check where a worker would not start without.
    """
    gpu = DeviceFacts(torch_version="2", threads=1, gpu="Some GPU")
    monkeypatch.setattr(model, "survey_device", lambda _device: gpu)
    monkeypatch.setattr(model, "device_of", lambda _settings: "cpu")
    able = model.device(Settings(), model_parts)
    monkeypatch.setattr(model, "device_of", lambda _settings: "cuda:63")
    unable = model.device(Settings(), model_parts)
    wanted = Settings(encoder=EncoderSettings(jpeg_decoder="device"), decode=DecodeSettings(unisolated_device=True))

    assert 'it decodes JPEGs, with encoder.jpeg_decoder = "device" (libjpeg' in able.text
    assert ("ok", True) == (unable.status, "it decodes no JPEGs: JPEGs cannot be decoded on cuda:63" in unable.text)
    with pytest.raises(CannotStart, match="cuda:63"):
        model.device(wanted, model_parts)


def test_more_threads_than_cores_are_a_warning(model_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Threads that only wait for each other are told.
    """
    monkeypatch.setattr("worker.adapters.clip_device.torch.get_num_threads", lambda: 10_000)
    found = model.device(Settings(encoder=EncoderSettings(device="cpu", instances=1)), model_parts)

    assert "warning" == found.status
    assert "10000 threads" in found.text


def test_a_policy_that_does_not_fit_fails(tmp_path: Path, model_parts: Parts) -> None:
    """
    A policy file that is not there fails, and so does one without a rule for a label of the bank.
    """
    text = POLICY.read_text().replace("labels.ai_generated]", "labels.painted]")
    (tmp_path / "other.toml").write_text(text.replace('label = "ai_generated"', 'label = "painted"'))
    gone = statuses(Settings(), replace(model_parts, policy=Part("policy", lambda: load_policy(tmp_path / "gone"))))
    other = statuses(Settings(), replace(model_parts, policy=there(load_policy(tmp_path / "other.toml"))))

    assert "failed" == gone["policy"][0]
    assert ("skipped", "needs policy, which failed") == gone["calibration"]
    assert "failed" == other["policy"][0]
    assert "ai_generated" in other["policy"][1]


def test_a_damaged_bank_fails_once(tmp_path: Path, model_parts: Parts) -> None:
    """
    Bytes that do not have the manifest's checksum fail as bank; calibration says what it needs.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder())
    vectors = tmp_path / "bank" / "vectors.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\xff")
    found = statuses(Settings(), replace(model_parts, bank=Part("bank", lambda: read_bank(tmp_path / "bank"))))

    assert "failed" == found["bank"][0]
    assert "vectors.safetensors" in found["bank"][1]
    assert ("skipped", "needs bank, which failed") == found["calibration"]
    assert "ok" == found["policy"][0]


def test_a_bank_of_another_encoder_fails(model_parts: Parts) -> None:
    """
    The line names what differs between bank and encoder.
    """
    found = statuses(Settings(), replace(model_parts, encoder=there(FakeEncoder(weights=2))))

    assert "failed" == found["bank"][0]
    assert "was built by another encoder: weights" in found["bank"][1]


def test_too_few_reals_fail() -> None:
    """
    The shipped bank supports the shipped alpha, and not a thousandth; the line says how many reals that would need.
    """
    parts = parts_of(Settings())
    whole, policy = parts.bank.own(), load_policy(POLICY)
    rule = policy.rule.model_copy(update={"alpha": 0.001})
    strict = replace(policy, rule=rule)
    (enough,) = examine([check_of(lambda: model.calibration(some_parts(bank=there(whole), policy=there(policy))))])
    (few,) = examine([check_of(lambda: model.calibration(some_parts(bank=there(whole), policy=there(strict))))])

    assert "ok" == enough.finding.status
    assert "failed" == few.finding.status
    assert "at least 999" in few.finding.text


def test_a_candidate_that_does_not_open_fails(tmp_path: Path, model_parts: Parts) -> None:
    """
    A shadow whose bank is not there would keep the worker from starting, and is told.
    """
    shadow = ShadowSettings(enabled=True, bank_path=tmp_path / "nowhere")
    found = statuses(Settings(shadow=shadow), model_parts)

    assert "failed" == found["shadow"][0]
    assert "shadow.bank_path" in found["shadow"][1]
