"""
From ``encoder.model`` to what is to be loaded: an architecture, its preprocessing and one weights file.

``starter`` is what ships. Other names are open_clip's: ``ARCH/TAG`` of its registry, ``hf-hub:ORGANISATION/NAME``,
``local-dir:FOLDER``, or ``ARCH`` with ``encoder.checkpoint``. Whether an activation fits its weights is
``worker/adapters/clip_activation.py``.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from worker.adapters.clip_activation import check_file, check_hub, check_tag
from worker.adapters.clip_device import on_gpu
from worker.adapters.clip_hub import hub_file, hub_sha256
from worker.adapters.clip_library import (
    HF_CONFIG_NAME,
    HF_SAFE_WEIGHTS_NAME,
    HF_WEIGHTS_NAME,
    PreprocessCfg,
    find_checkpoint_in_dir,
    get_model_config,
    get_pretrained_cfg,
    list_models,
    list_pretrained_tags_by_model,
    merge_preprocess_dict,
)
from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings
from worker.shipped import STARTER, STARTER_MODEL, starter_sha256

LOCAL_DIR = "local-dir:"
HF_HUB = "hf-hub:"


@dataclass(frozen=True, slots=True)
class ClipSource:
    """
    What to load; ``name`` goes into verdicts and holds no path.

    ``checkpoint`` must have ``sha256``, which is compared with the very bytes that are loaded, and not before.
    ``architecture`` is an open_clip model configuration, ``preprocess`` an open_clip preprocess configuration without
    the size, which the tower knows.
    """

    name: str
    architecture: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    checkpoint: Path
    sha256: str


_AS_EVER: Final[Mapping[str, object]] = {"jpeg_oversampling": 0, "resize": "pillow", "jpeg_decoder": "pillow"}
"""What goes without saying, so that it is not in what is written beside a model either."""


def resolve(settings: EncoderSettings) -> ClipSource:
    """
    What the settings name, downloaded where need be, and the sha256 that its weights must have.

    That is ``checkpoint_sha256`` where it is given, else what ships beside the starter or names the file in the hub's
    cache. How far JPEGs may be reduced and who resizes is ours to say, and goes beside what open_clip says of
    preprocessing. Raises ``EncoderInvalid`` when it is not there, has no hash, or would run with the wrong activation.
    """
    source = _named(settings)
    ours = {
        "jpeg_oversampling": settings.jpeg_oversampling,
        "resize": settings.resize,
        "jpeg_decoder": _jpeg_decoder(settings),
    }
    theirs = {name: value for name, value in source.preprocess.items() if name not in ours}
    return replace(source, preprocess=theirs | {name: value for name, value in ours.items() if value != _AS_EVER[name]})


def _jpeg_decoder(settings: EncoderSettings) -> str:
    """
    What ``encoder.jpeg_decoder`` comes to: a GPU's pixels are not those of a CPU. Raises ``EncoderInvalid``.
    """
    if settings.jpeg_decoder == "pillow":
        return "pillow"
    if on_gpu(settings.device):
        return "nvjpeg"
    if settings.device == "cpu":
        return "libjpeg"
    raise EncoderInvalid(
        f'encoder.jpeg_decoder is "device", and encoder.device {settings.device!r} comes to no GPU here: set '
        'encoder.jpeg_decoder = "pillow", or encoder.device = "cpu" to try it without one'
    )


def _named(settings: EncoderSettings) -> ClipSource:
    expected = settings.checkpoint_sha256
    if settings.model == STARTER and settings.checkpoint is None:
        source = replace(_from_folder(STARTER_MODEL, starter_sha256()), name=STARTER)
        if expected not in (None, source.sha256):
            raise EncoderInvalid(
                f"encoder.checkpoint_sha256 is {expected}, the starter's weights have {source.sha256}: leave it out"
            )
    elif settings.model.startswith(LOCAL_DIR):
        source = _from_folder(Path(settings.model.removeprefix(LOCAL_DIR)), expected)
    elif settings.model.startswith(HF_HUB):
        source = _from_hub(settings.model.removeprefix(HF_HUB), expected, offline=settings.offline)
    else:
        return _from_registry(settings)
    if settings.checkpoint is not None:
        raise EncoderInvalid(
            f"encoder.model {settings.model!r} brings its own weights, but encoder.checkpoint names "
            f"{settings.checkpoint}: leave one out, or put the checkpoint into a folder with its {HF_CONFIG_NAME}"
        )
    check_file(source.sha256, source.name, source.architecture)
    return source


def _expected(configured: str | None, checkpoint: Path) -> str:
    """
    The hash that weights must have: configured, or the one by which the hub's cache names the file.
    """
    expected = configured or hub_sha256(checkpoint)
    if expected is None:
        raise EncoderInvalid(
            f"nothing says which sha256 {checkpoint} must have, and weights are not loaded without one: set "
            "encoder.checkpoint_sha256 (sha256sum FILE prints it) once you know that it is the right file, or let the "
            "hub's client fetch it anew"
        )
    return expected


def _from_folder(folder: Path, expected: str | None) -> ClipSource:
    config = folder / HF_CONFIG_NAME
    if not config.is_file():
        raise EncoderInvalid(
            f"encoder.model names the folder {folder}, which holds no {HF_CONFIG_NAME}: want a folder as "
            "open_clip.push_to_hf_hub or `touchstone demo` writes it"
        )
    found = find_checkpoint_in_dir(folder)
    if found is None:
        raise EncoderInvalid(f"{folder} holds no weights: want open_clip_model.safetensors beside {HF_CONFIG_NAME}")
    architecture, preprocess = _read_config(config)
    checkpoint = Path(found)
    sha256 = _expected(expected, checkpoint)
    return ClipSource(LOCAL_DIR + folder.resolve().name, architecture, preprocess, checkpoint, sha256)


def _from_hub(repository: str, expected: str | None, *, offline: bool) -> ClipSource:
    architecture, preprocess = _read_config(hub_file(repository, (HF_CONFIG_NAME,), offline=offline))
    check_hub(repository, architecture)
    checkpoint = hub_file(repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME), offline=offline)
    return ClipSource(HF_HUB + repository, architecture, preprocess, checkpoint, _expected(expected, checkpoint))


def _from_registry(settings: EncoderSettings) -> ClipSource:
    arch, tag = _arch_and_tag(settings.model)
    architecture = get_model_config(arch)
    if tag is None and settings.checkpoint is None:
        raise EncoderInvalid(
            f"encoder.model {settings.model!r} names an architecture without weights: add a tag, such as "
            f"{_some(f'{arch}/{known}' for known in list_pretrained_tags_by_model(arch))}, or set encoder.checkpoint"
        )
    preprocess = _preprocess_of_all_tags(arch) if tag is None else _preprocess_of(arch, tag)
    if tag is not None:
        check_tag(arch, tag, architecture)
    checkpoint = settings.checkpoint or _registry_file(arch, tag or "", offline=settings.offline)
    name = arch if tag is None else f"{arch}/{tag}"
    expected = _expected(settings.checkpoint_sha256, checkpoint)
    check_file(expected, name, architecture)
    return ClipSource(name, architecture, preprocess, checkpoint, expected)


def _registry_file(arch: str, tag: str, *, offline: bool) -> Path:
    """
    The weights that a registry entry points to, as ``organisation/name/`` or ``organisation/name/file.bin``.
    """
    repository, _, file = str(get_pretrained_cfg(arch, tag)["hf_hub"]).rpartition("/")
    if not file:
        return hub_file(repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME), offline=offline)
    return hub_file(repository, (str(Path(file).with_suffix(".safetensors")), file), offline=offline)


def _arch_and_tag(model: str) -> tuple[str, str | None]:
    """
    The registry's names; open_clip allows ``ViT-B/32`` for ``ViT-B-32``, and so do we.
    """
    if get_model_config(model.replace("/", "-")) is not None:
        return model.replace("/", "-"), None
    arch, _, tag = model.rpartition("/")
    arch = arch.replace("/", "-")
    if not arch or get_model_config(arch) is None:
        near = difflib.get_close_matches(arch or tag, list_models(), n=3, cutoff=0.5)
        raise EncoderInvalid(
            f"encoder.model {model!r}: open_clip knows no architecture {arch or tag!r}; near are {_some(near)}. Want "
            "ARCH/TAG, hf-hub:ORGANISATION/NAME, local-dir:FOLDER, or ARCH with encoder.checkpoint"
        )
    if not get_pretrained_cfg(arch, tag):
        raise EncoderInvalid(
            f"encoder.model {model!r}: open_clip's registry has no weights {tag!r} for {arch}; it has "
            f"{_some(list_pretrained_tags_by_model(arch))}"
        )
    return arch, tag


def _preprocess_of_all_tags(arch: str) -> Mapping[str, Any]:
    """
    The preprocessing that every known weights of an architecture share; open_clip's default where none are known.
    """
    found = [_preprocess_of(arch, tag) for tag in _tags(arch)]
    if any(other != found[0] for other in found):
        raise EncoderInvalid(
            f"weights of {arch} come with different preprocessing, and encoder.model does not say which: name the tag "
            f"that encoder.checkpoint holds, such as {_some(f'{arch}/{tag}' for tag in _tags(arch))}"
        )
    return found[0] if found else _preprocess_of(arch, "")


def _preprocess_of(arch: str, tag: str) -> Mapping[str, Any]:
    """
    What the registry says of these weights, over open_clip's default; an unknown tag says nothing.
    """
    merged: Mapping[str, Any] = merge_preprocess_dict(PreprocessCfg(), get_pretrained_cfg(arch, tag))
    return merged


def _tags(arch: str) -> list[str]:
    return sorted(list_pretrained_tags_by_model(arch))


def _read_config(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
        return architecture, merge_preprocess_dict(PreprocessCfg(), preprocess)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderInvalid(
            f"{path} is no open_clip configuration ({type(error).__name__}: {error}): want a JSON object with "
            "model_cfg and preprocess_cfg"
        ) from error


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (" ..." if len(listed) > 6 else "") if listed else "none"  # noqa: PLR2004 - a line's worth
