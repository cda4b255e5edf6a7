"""
The encoder on another runtime than torch: exported once from the same weights, kept, checked, and compared with torch.

Start with ``load_exported``. Weights are resolved as for torch, whose tower is built only where nothing is kept.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from worker.adapters.clip_source import ClipSource, resolve
from worker.adapters.export_shelf import Exported, TowerFacts, take
from worker.adapters.exported_runtime import TOWER, Runtime, Session, room_of
from worker.adapters.in_halves import encoded_in_halves
from worker.adapters.trial_picture import trial_picture
from worker.domain import EncoderFingerprint, Pixels
from worker.errors import EncoderInvalid
from worker.fingerprint import canonical_sha256, id_of, space_of
from worker.ports import Recorder
from worker.settings.tree import EncoderSettings
from worker.stages.preprocess import preprocess_spec

EXPORT_VERSION: Final = 1
"""To be raised when what is exported from the same weights becomes another file."""

MIN_TRIAL_COSINE: Final[Mapping[str, float]] = {"fp32": 0.9999, "bf16": 0.999, "int8": 0.95}
"""
By precision, how near the trial picture's features must be to torch's: this finds broken kernels and nothing finer.

Whether an encoder is near enough to the one of a bank, the bank's own probe says.
"""

EXPORTED_TOLERANCE: Final[Mapping[str, float]] = {
    "fp32-onnxruntime": 1e-5,
    "int8-onnxruntime": 1e-6,
    "fp32-openvino": 1e-5,
    "bf16-openvino": 1e-3,
    "int8-bf16-openvino": 1e-3,
    "int8-fp32-openvino": 1e-3,
}
"""By precision, how far companions may move any number of a unit vector; as ``clip_encoder.COMPOSITION_TOLERANCE``."""

_RUNTIMES: Final = {"onnxruntime": "onnx_session", "openvino": "openvino_session"}
_EXTRAS: Final = {"onnxruntime": "onnx", "openvino": "openvino"}
_EXPORTERS: Final = ("torch", "onnxscript", "open_clip_torch", "timm")
"""What builds towers and writes them: with another version of any, the file may be another."""

_DIGITS: Final = 16


class ExportedEncoder:
    """
    Implements ``worker.ports.Encoder``; any number of threads may call it.
    """

    def __init__(self, session: Session, fingerprint: EncoderFingerprint, *, recorder: Recorder) -> None:
        self._session = session
        self._fingerprint = fingerprint
        self._recorder = recorder

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        What makes this encoder this encoder.
        """
        return self._fingerprint

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Raw features, float32[n, dim], of n pictures of uint8[size, size, 3], in order.

        Out of memory, the batch is halved until it fits; raises ``UploadFailed`` (ENCODE_OUT_OF_MEMORY) when not even
        one picture does.
        """
        if not pixels:
            return np.empty((0, self._fingerprint.dim), dtype=np.float32)
        most = self._session.at_once
        return np.concatenate([self._within(pixels[at : at + most]) for at in range(0, len(pixels), most)])

    def _within(self, batch: Sequence[Pixels]) -> NDArray[np.float32]:
        return encoded_in_halves(
            lambda part: self._session.run(np.stack(part)), batch, place="into memory", recorder=self._recorder
        )


def load_exported(settings: EncoderSettings, recorder: Recorder) -> ExportedEncoder:
    """
    The configured encoder on ``settings.backend``, which is not torch; exported if need be, and tried on one picture.

    Blocks for seconds, and for an export or a download where one is needed. Raises ``EncoderInvalid``.
    """
    runtime = _runtime(settings.backend)
    precision = "fp32" if settings.precision == "auto" else settings.precision
    source = resolve(settings)
    kept = _kept(settings, source, runtime, runtime.form_of(precision))
    session = runtime.open_session(kept.folder, precision, room_of(settings))
    dim = _tried(session, kept.facts, MIN_TRIAL_COSINE[precision])
    facts = kept.facts
    try:
        preprocess = preprocess_spec({**source.preprocess, "size": facts.size})
    except ValueError as error:
        raise EncoderInvalid(f"{source.name} cannot be used: {error}") from error
    space = space_of(facts.architecture_sha256, facts.weights_sha256, preprocess)
    fingerprint = EncoderFingerprint(
        model=source.name,
        architecture_sha256=facts.architecture_sha256,
        weights_sha256=facts.weights_sha256,
        preprocess=preprocess,
        precision=session.precision,
        dim=dim,
        space=space,
        id=id_of(space, session.precision),
    )
    return ExportedEncoder(session, fingerprint, recorder=recorder)


def export_dir_of(settings: EncoderSettings) -> Path:
    """
    Where exported encoders are kept: as configured, else in the user's directory for caches.
    """
    if settings.export_dir is not None:
        return settings.export_dir
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "touchstone" / "encoders"
    except RuntimeError as error:
        raise EncoderInvalid(
            f"user {os.geteuid()} has no home directory to keep exported encoders in: set encoder.export_dir to a "
            "directory that this user may write"
        ) from error


def _runtime(backend: str) -> Runtime:
    try:
        return cast("Runtime", importlib.import_module(f"worker.adapters.{_RUNTIMES[backend]}"))
    except ModuleNotFoundError as error:
        raise EncoderInvalid(
            f"encoder.backend is {backend!r}, and the package {error.name} is not installed: `pip install "
            f"'touchstone-worker[{_EXTRAS[backend]}]'`, or configure \"torch\""
        ) from error


def _kept(settings: EncoderSettings, source: ClipSource, runtime: Runtime, form: str) -> Exported:
    """
    The exported tower in this form; its name tells everything that it was made from.
    """
    normalised = {name: source.preprocess.get(name) for name in ("mean", "std")}
    made_with = {package: _version(package) for package in (*_EXPORTERS, *runtime.PACKAGES)}
    made_from = [EXPORT_VERSION, dict(source.architecture), normalised, source.sha256, form, made_with]
    name = f"{settings.backend}-{form}-{canonical_sha256(made_from)[:_DIGITS]}"

    def make(folder: Path) -> TowerFacts:
        from worker.adapters.clip_export import export_tower  # noqa: PLC0415 - the exporter: only where it is needed

        facts = export_tower(source, folder / TOWER)
        try:
            runtime.store(folder, form)
        except (EncoderInvalid, OSError):
            raise  # the shelf says what its disk refuses
        except Exception as error:
            # The runtimes' own have no common base.
            raise EncoderInvalid(
                f"{source.name} cannot be made ready for {settings.backend} as {form} ({_said(error)}): configure "
                f'encoder.backend = "torch", or another version of {settings.backend}'
            ) from error
        return facts

    return take(export_dir_of(settings), name, make)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(error: Exception) -> str:
    """
    Its kind and its last line: OpenVINO tells first where in its source it was.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[-1:]])[:200]


def _tried(session: Session, facts: TowerFacts, least: float) -> int:
    """
    The dimension of the features, from a first run whose features must lie where torch's did.
    """
    expected = np.asarray(facts.trial, dtype=np.float64)
    try:
        found = session.run(trial_picture(facts.size)[np.newaxis])
    except Exception as error:
        # As above; what has no room for one picture has none for a batch.
        raise EncoderInvalid(
            f"{session.precision} cannot encode one picture here ({_said(error)}): configure encoder.precision = "
            '"fp32", or encoder.backend = "torch"'
        ) from error
    if found.shape != (1, len(expected)) or not bool(np.isfinite(found).all()):
        raise EncoderInvalid(
            f"{session.precision} gives no finite feature vector of {len(expected)} numbers: configure encoder.backend "
            '= "torch"'
        )
    cosine = float(found[0] @ expected / (np.linalg.norm(found[0]) * np.linalg.norm(expected)))
    if not cosine >= least:
        raise EncoderInvalid(
            f"{session.precision} has cosine {cosine:.6f} with torch's features of the same picture, expected at least "
            f'{least}: its kernels compute something else here; configure encoder.precision = "fp32", or '
            'encoder.backend = "torch"'
        )
    return len(expected)
