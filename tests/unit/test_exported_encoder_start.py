"""
What the encoder on ONNX Runtime and OpenVINO needs for its start, and what is told where that is missing.
"""

from dataclasses import astuple
from pathlib import Path

import pytest

from tests.exported_encoders import exported, require_backend, small_model
from tests.small_encoder import CountingRecorder, encoder_settings
from worker.adapters import clip_export, exported_encoder
from worker.adapters.export_shelf import TowerFacts
from worker.adapters.exported_encoder import export_dir_of, load_exported
from worker.adapters.exported_runtime import room_of
from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings


def facts() -> TowerFacts:
    """
    Of a tower that nobody exported.
    """
    return TowerFacts(architecture_sha256="a", weights_sha256="b", size=64, trial=(1.0,))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_runtime_that_cannot_make_its_files_is_told(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever it raises, a start that exports shows what to configure, and no traceback.
    """

    def fail(_folder: Path, _form: str) -> None:
        raise RuntimeError("Exception from src/core:\nunsupported opset 99\n")

    require_backend(backend)
    monkeypatch.setattr(clip_export, "export_tower", lambda *_: facts())
    monkeypatch.setattr(exported_encoder._runtime(backend), "store", fail)
    settings = encoder_settings(small_model(), backend=backend, export_dir=tmp_path / "shelf")

    with pytest.raises(EncoderInvalid, match=r"RuntimeError: unsupported opset 99.*configure encoder\.backend"):
        load_exported(settings, CountingRecorder())


def test_a_full_disk_is_the_shelf_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the runtime may not write is told as where exports are kept, with the setting.
    """

    def full(_folder: Path, _form: str) -> None:
        raise OSError(28, "No space left on device")

    require_backend("onnxruntime")
    monkeypatch.setattr(clip_export, "export_tower", lambda *_: facts())
    monkeypatch.setattr(exported_encoder._runtime("onnxruntime"), "store", full)
    settings = encoder_settings(small_model(), backend="onnxruntime", export_dir=tmp_path / "shelf")

    with pytest.raises(EncoderInvalid, match=r"No space left on device\): set encoder\.export_dir"):
        load_exported(settings, CountingRecorder())


def test_weights_that_cannot_be_read_are_not_the_shelf_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A fault of the checkpoint's place is told with the checkpoint, not as a fault of where exports are kept.
    """

    def unreadable(*_: object) -> None:
        raise OSError(5, "Input/output error")

    require_backend("onnxruntime")
    monkeypatch.setattr(clip_export, "load_tower", unreadable)
    settings = encoder_settings(small_model(), backend="onnxruntime", export_dir=tmp_path / "shelf")

    with pytest.raises(EncoderInvalid, match=r"weights of local-dir:small cannot be read \(Input/output error\)"):
        load_exported(settings, CountingRecorder())


@pytest.mark.parametrize(("backend", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_names_the_extra(backend: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever configures a backend without its package is told what to install.
    """

    def absent(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {backend!r}", name=backend)

    monkeypatch.setattr("worker.adapters.exported_encoder.importlib.import_module", absent)
    settings = EncoderSettings.model_validate({"backend": backend, "device": "cpu"})

    with pytest.raises(EncoderInvalid, match=rf"touchstone-worker\[{extra}\]"):
        load_exported(settings, CountingRecorder())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_cpu_without_products_of_bytes_is_told_of(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    int8 would give other numbers there: it is refused with the name of what is missing.
    """
    exported(backend, "int8")
    module = exported_encoder._runtime(backend)
    monkeypatch.setattr(module, "cpu_features", lambda: frozenset({"avx2"}))

    with pytest.raises(EncoderInvalid, match="avx512_vnni"):
        exported(backend, "int8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backend": "openvino", "device": "cuda"}, "computes on the CPU only, found device cuda"),
        ({"backend": "onnxruntime", "device": "cuda:1"}, "computes on the CPU only, found device cuda:1"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "has the precisions fp32, int8, found bf16"),
        ({"backend": "openvino", "precision": "fp16"}, "has the precisions fp32, bf16, int8, found fp16"),
        ({"precision": "int8"}, "backend torch has the precisions fp32, bf16, fp16, found int8"),
    ],
)
def test_settings_that_cannot_both_be_meant(values: dict[str, str], said: str) -> None:
    """
    A device or a precision that a backend does not have is an error of the configuration.
    """
    with pytest.raises(ValueError, match=said):
        EncoderSettings.model_validate(values)


def test_threads_are_capped() -> None:
    """
    As configured for each encoding; else the cores are shared among the instances.
    """
    assert (3, 2) == astuple(room_of(EncoderSettings(threads=3, instances=2)))
    assert 1 <= room_of(EncoderSettings()).threads
    assert 1 == room_of(EncoderSettings(instances=64)).threads


def test_where_exports_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As configured, else in the user's directory for caches.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "touchstone" / "encoders" == export_dir_of(EncoderSettings())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert Path("/home/someone/.cache/touchstone/encoders") == export_dir_of(EncoderSettings())
    assert tmp_path == export_dir_of(EncoderSettings(export_dir=tmp_path))


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As in a container that runs under any number.
    """
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)

    with pytest.raises(EncoderInvalid, match=r"no home directory .* encoder\.export_dir"):
        export_dir_of(EncoderSettings())


@pytest.mark.parametrize("package", ["torch", "onnxscript", "open_clip_torch", "timm", "onnxruntime", "onnx"])
def test_another_version_of_what_makes_an_export_makes_another(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What builds the tower counts like what writes it: one that is kept is not used after an upgrade of either.
    """
    require_backend("onnxruntime")
    names: list[str] = []

    def noted(_shelf: Path, name: str, _make: object) -> None:
        names.append(name)
        raise EncoderInvalid("only its name is wanted")

    monkeypatch.setattr(exported_encoder, "take", noted)
    for newer in (None, package):
        monkeypatch.setattr(exported_encoder, "version", lambda one, newer=newer: "9.9" if one == newer else "1.0")
        with pytest.raises(EncoderInvalid, match="only its name"):
            exported("onnxruntime")

    assert 2 == len(set(names)) == len(names)
