"""
A fitted judgement as two files, ``judgement.json`` and ``heads.safetensors``, and back. Nothing is unpickled.

Its id is a hash over every number and setting in them, so what was read is what was fitted.
"""

import errno
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from worker.errors import BankInvalid, ReadFault
from worker.fingerprint import canonical_sha256
from worker.heads.global_local import GlobalLocal
from worker.heads.head import Head, HeadState
from worker.heads.knn import Knn
from worker.heads.natural_traces import NaturalTraces
from worker.heads.perturbation import Perturbation
from worker.heads.probe import LegacyProbe, Probe
from worker.heads.real_only import RealOnly
from worker.heads.realism import Realism
from worker.heads.style import Style
from worker.judgement.attribution import Attributor
from worker.judgement.calibration import Calibration, Isotonic, Platt
from worker.judgement.conformal import Coverage
from worker.judgement.fusion import Fusion, HeadScale, MeanOfLogits, Stacker
from worker.judgement.model import VERSION, FittedJudgement, HowFitted
from worker.judgement.real_scores import RealScores

SETTINGS_FILE: Final = "judgement.json"
TENSORS_FILE: Final = "heads.safetensors"

Tensors = dict[str, NDArray[Any]]
Restore = Callable[[HeadState], Head]

HEADS: Final[Mapping[str, Restore]] = MappingProxyType(
    {
        Knn.name: Knn.restored,
        Probe.name: Probe.restored,
        LegacyProbe.name: LegacyProbe.restored,
        NaturalTraces.name: NaturalTraces.restored,
        RealOnly.name: RealOnly.restored,
        Perturbation.name: Perturbation.restored,
        GlobalLocal.name: GlobalLocal.restored,
        Style.name: Style.restored,
        Realism.name: Realism.restored,
    }
)
"""How each head comes back from its state."""


def identified(judgement: FittedJudgement) -> FittedJudgement:
    """
    The same judgement under the id that its own content gives it.
    """
    return replace(judgement, id=_id_of(*_written(judgement)))


def judgement_files(judgement: FittedJudgement) -> Mapping[str, bytes]:
    """
    The two files; equal judgements give equal bytes.
    """
    settings, tensors = _written(judgement)
    document = json.dumps({"id": judgement.id, **settings}, sort_keys=True, indent=2, allow_nan=False)
    return {
        SETTINGS_FILE: (document + "\n").encode(),
        TENSORS_FILE: save({name: np.ascontiguousarray(tensor) for name, tensor in sorted(tensors.items())}),
    }


def read_judgement(
    files: Mapping[str, bytes] | Path, *, heads: Mapping[str, Restore] = HEADS, where: str = "judgement"
) -> FittedJudgement:
    """
    The judgement that was written as these files, or into this folder; ``where`` names them in messages.

    Raises ``BankInvalid`` naming the file, what was found and what was expected, when one is missing, damaged, of
    another version, or does not have the hash that it says.
    """
    if isinstance(files, Path):
        where, files = str(files), _of_folder(files)
    settings = _settings(files, where)
    tensors = _tensors(files, where)
    claimed = settings.pop("id", None)
    found = _id_of(settings, tensors)
    if claimed != found:
        raise BankInvalid(
            f"{where}: {SETTINGS_FILE} says id {str(claimed)[:64]}, but it and {TENSORS_FILE} hash to {found}; "
            "damaged, or changed by hand; copy the bank again, or run `touchstone fit`"
        )
    try:
        return _restored(found, settings, tensors, heads)
    except (KeyError, TypeError, ValueError, IndexError) as fault:
        raise BankInvalid(
            f"{where}: {SETTINGS_FILE} and {TENSORS_FILE} do not hold what a judgement of version {VERSION} needs "
            f"({type(fault).__name__}: {fault}); run `touchstone fit` with this version of Touchstone"
        ) from fault


def _of_folder(folder: Path) -> Mapping[str, bytes]:
    found = {}
    for name in (SETTINGS_FILE, TENSORS_FILE):
        try:
            found[name] = (folder / name).read_bytes()
        except OSError as fault:
            if fault.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
                raise ReadFault(
                    f"{folder}: {name} cannot be read at this moment ({fault.strerror}); check the disk or mount that "
                    "it lies on and whether this user may read it, then try again"
                ) from fault
            raise BankInvalid(
                f"{folder}: {name} cannot be read ({fault.strerror}), expected a fitted judgement; run `touchstone fit`"
            ) from fault
    return found


def _settings(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    try:
        settings = json.loads(_named(files, SETTINGS_FILE, where))
    except ValueError as fault:
        raise BankInvalid(f"{where}: {SETTINGS_FILE} is not JSON ({fault}); run `touchstone fit` again") from fault
    version = settings.get("version") if isinstance(settings, dict) else None
    if version != VERSION or not isinstance(settings, dict):
        raise BankInvalid(
            f"{where}: {SETTINGS_FILE} is of version {str(version)[:40]!r}, expected {VERSION!r}; "
            "run `touchstone fit` with this version of Touchstone"
        )
    return settings


def _tensors(files: Mapping[str, bytes], where: str) -> Tensors:
    try:
        return dict(load(_named(files, TENSORS_FILE, where)))
    except SafetensorError as fault:
        raise BankInvalid(
            f"{where}: {TENSORS_FILE} is no safetensors file ({fault}); copy the bank again, or run `touchstone fit`"
        ) from fault


def _named(files: Mapping[str, bytes], name: str, where: str) -> bytes:
    if name not in files:
        raise BankInvalid(f"{where}: found no {name}, expected {SETTINGS_FILE} and {TENSORS_FILE}")
    return files[name]


def _id_of(settings: Mapping[str, Any], tensors: Tensors) -> str:
    hashes = {
        name: [
            str(tensor.dtype),
            list(tensor.shape),
            hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest(),
        ]
        for name, tensor in tensors.items()
    }
    return canonical_sha256({"settings": settings, "tensors": hashes})


def _written(judgement: FittedJudgement) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {
        "reals.full": judgement.reals.full,
        "reals.cheap": judgement.reals.cheap,
        "coverage.distance": judgement.coverage.distance,
        "attribution.code": judgement.attribution.code,
    }
    heads = []
    for head, scale in zip(judgement.heads, judgement.scales, strict=True):
        state = head.state()
        tensors |= {f"head.{head.name}.{name}": np.asarray(tensor) for name, tensor in state.tensors.items()}
        heads.append(
            {"name": head.name, "version": head.version, "settings": dict(state.settings)} | {"scale": asdict(scale)}
        )
    if isinstance(judgement.calibration, Isotonic):
        tensors |= {"calibration.score": judgement.calibration.score, "calibration.value": judgement.calibration.value}
    settings = {
        "version": judgement.version,
        "heads": heads,
        "fusion": _fusion_settings(judgement.fusion),
        "calibration": _calibration_settings(judgement.calibration),
        "reals": _reals_settings(judgement.reals),
        "coverage": {"k": judgement.coverage.k},
        "attribution": _attribution_settings(judgement.attribution),
        "base_rate": judgement.base_rate,
        "views": list(judgement.views),
        "calibrated_on": judgement.calibrated_on,
        # Absent where it is not known, so that judgements of before it was kept hash as they did.
        **({} if judgement.asked is None else {"asked": asdict(judgement.asked)}),
    }
    return _plain(settings), tensors


def _reals_settings(reals: RealScores) -> dict[str, Any]:
    kinds = sorted(set(reals.bucket))
    settings: dict[str, Any] = {"kinds": kinds, "kind": [kinds.index(kind) for kind in reals.bucket]}
    if reals.source:
        # Null, the source of what is not known, comes first. Absent where none was kept: hashes stay as they were.
        sources = sorted(set(reals.source), key=lambda name: (name is not None, name or ""))
        index = {name: at for at, name in enumerate(sources)}
        settings |= {"sources": sources, "source": [index[name] for name in reals.source]}
    return settings


def _fusion_settings(fusion: Fusion) -> dict[str, Any]:
    if isinstance(fusion, Stacker):
        return {"kind": "stacker", **asdict(fusion)}
    if isinstance(fusion, MeanOfLogits):
        return {"kind": "mean_of_logits", **asdict(fusion)}
    raise TypeError(f"fusion {type(fusion).__name__} has no form in {SETTINGS_FILE}")


def _calibration_settings(calibration: Calibration) -> dict[str, Any]:
    return {"kind": "platt", **asdict(calibration)} if isinstance(calibration, Platt) else {"kind": "isotonic"}


def _attribution_settings(attribution: Attributor) -> dict[str, Any]:
    return {
        "names": list(attribution.names),
        "neighbours": attribution.neighbours,
        "temperature": attribution.temperature,
        "threshold": attribution.threshold,
        "min_coverage_p": attribution.min_coverage_p,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever heads put into their settings
    """
    The value as JSON gives it back, so that its hash is the same before and after.
    """
    return json.loads(json.dumps(value, default=_of_numpy, allow_nan=False))


def _of_numpy(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in {SETTINGS_FILE}")


def _restored(
    identity: str, settings: Mapping[str, Any], tensors: Tensors, heads: Mapping[str, Restore]
) -> FittedJudgement:
    calibration: Calibration = (
        Platt(settings["calibration"]["slope"], settings["calibration"]["intercept"])
        if settings["calibration"]["kind"] == "platt"
        else Isotonic(tensors["calibration.score"], tensors["calibration.value"])
    )
    attribution = settings["attribution"]
    return FittedJudgement(
        id=identity,
        version=settings["version"],
        heads=tuple(_head(part, tensors, heads) for part in settings["heads"]),
        scales=tuple(HeadScale(**part["scale"]) for part in settings["heads"]),
        fusion=_fusion(settings["fusion"]),
        calibration=calibration,
        reals=_real_scores(settings["reals"], tensors),
        coverage=Coverage(settings["coverage"]["k"], tensors["coverage.distance"]),
        attribution=Attributor(
            **{**attribution, "names": tuple(attribution["names"])}, code=tensors["attribution.code"]
        ),
        base_rate=settings["base_rate"],
        views=tuple(settings["views"]),
        calibrated_on=settings["calibrated_on"],
        asked=_asked(settings["asked"]) if "asked" in settings else None,
    )


def _real_scores(settings: Mapping[str, Any], tensors: Tensors) -> RealScores:
    """
    The reals; of judgements that were fitted before sources were kept, without them.
    """
    kinds, sources = settings["kinds"], settings.get("sources", ())
    return RealScores(
        tensors["reals.full"],
        tensors["reals.cheap"],
        tuple(kinds[kind] for kind in settings["kind"]),
        tuple(sources[source] for source in settings.get("source", ())),
    )


def _asked(settings: Mapping[str, Any]) -> HowFitted:
    heads = settings["heads"]
    return HowFitted(**{**settings, "heads": None if heads is None else tuple(heads)})


def _fusion(settings: Mapping[str, Any]) -> Fusion:
    if settings["kind"] == "mean_of_logits":
        return MeanOfLogits(settings["heads"])
    return Stacker(settings["intercept"], tuple(settings["weights"]), tuple(settings["absent"]))


def _head(part: Mapping[str, Any], tensors: Tensors, heads: Mapping[str, Restore]) -> Head:
    name, prefix = part["name"], f"head.{part['name']}."
    if name not in heads:
        raise ValueError(f"head {name!r} is unknown here, known are {', '.join(heads)}")
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    head = heads[name](HeadState(own, part["settings"]))
    if head.version != part["version"]:
        raise ValueError(f"head {name} was fitted as version {part['version']}, here it is {head.version}")
    return head
