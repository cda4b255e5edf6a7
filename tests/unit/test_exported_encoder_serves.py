"""
An exported encoder among the rest: what the doctor says of it, and which banks take it.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bank_builders import a_source, build_small
from tests.doctor_parts import some_parts, there
from tests.exported_encoders import exported, require_backend, small_model
from tests.fake_encoder import FakeEncoder
from tests.small_encoder import loaded
from worker import encoders
from worker.adapters.exported_encoder import ExportedEncoder
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.fit import check_fit
from worker.doctor import model
from worker.domain import Pixels
from worker.encoders import survey_runtime
from worker.errors import BankInvalid
from worker.settings.tree import EncoderSettings, Settings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import GLOBAL_ONLY
from worker.whole_banks import read_bank


class Coarse:
    """
    An encoder whose features are rounded until nothing fits them any more.
    """

    def __init__(self, real: ExportedEncoder) -> None:
        self._real = real
        self.fingerprint = replace(real.fingerprint, precision="int8-onnxruntime")

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        The signs of the features.
        """
        return np.sign(self._real.encode(pixels))


def test_the_doctor_is_told_what_computes() -> None:
    """
    Its name, version and threads, and where files are; of torch nothing.
    """
    require_backend("onnxruntime")
    found = survey_runtime(EncoderSettings(backend="onnxruntime", threads=2))

    assert survey_runtime(EncoderSettings()) is None
    assert found is not None
    assert (f"onnxruntime {version('onnxruntime')}", 2) == (found.name, found.threads)


def test_the_doctor_names_the_runtime(tmp_path: Path) -> None:
    """
    The line of the device says what computes, on how many threads, and where exports are; too many are a warning.
    """
    require_backend("openvino")
    parts = some_parts(encoder=there(FakeEncoder()))
    named: dict[str, object] = {"backend": "openvino", "export_dir": tmp_path}
    fine, many = (
        model.device(Settings(encoder=EncoderSettings.model_validate({**named, "threads": threads})), parts)
        for threads in (1, 10_000)
    )

    assert "ok" == fine.status
    assert "1 threads" in fine.text
    assert "openvino 20" in fine.text
    assert str(tmp_path) in fine.text
    assert "warning" == many.status


def test_the_doctor_counts_the_threads_of_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Those on which a worker would compute, and not those of an encoder that has all cores for itself.
    """
    require_backend("openvino")
    monkeypatch.setattr(encoders, "_instances_on", lambda _cores: 10_000)
    settings = Settings(encoder=EncoderSettings(backend="openvino", export_dir=tmp_path))
    found = model.device(settings, some_parts(encoder=there(FakeEncoder())))

    assert "CPU: 10000 threads on" in found.text


def test_a_bank_takes_it_by_its_probe(tmp_path: Path) -> None:
    """
    A bank that torch built in fp32 serves an exported encoder whose probe agrees; where it does not, both are named.
    """
    spec = loaded(small_model()).fingerprint.preprocess
    decoder = PillowDecoder(spec, DecodeLimits(), None)
    embedder = ReferenceEmbedder(loaded(small_model()), decoder, 8, 1, GLOBAL_ONLY)
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", embedder)
    stored = read_bank(tmp_path / "bank").stored
    cosine = check_fit(stored, exported("openvino"), decoder)
    coarse = Coarse(exported("onnxruntime"))

    assert 0.9999 <= cosine <= 1.0001
    with pytest.raises(BankInvalid, match="bank fp32, encoder int8-onnxruntime"):
        check_fit(stored, coarse, decoder)
