"""
QuickGELU or GELU: weights trained with the one must not run with the other.

open_clip only warns, and the features are then quietly worse. What the registry knows of weights - by tag, by hub
repository, by hash of a file - is compared with the architecture; a mismatch refuses to start and names the right one.
Known hole: a file that the registry does not know, such as a converted copy, is taken as its configuration says.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from worker.adapters.clip_library import get_model_config, get_pretrained_cfg, list_pretrained
from worker.errors import EncoderInvalid

_LEAST_KNOWN_HEX = 8
"""How many digits of a file's sha256 its address must show; those of open_clip's own releases show eight."""


def check_tag(arch: str, tag: str, architecture: Mapping[str, Any]) -> None:
    """
    The registry's weights run with the activation that they were trained with, else ``EncoderInvalid``.
    """
    trained = _uses_quick_gelu(get_pretrained_cfg(arch, tag))
    if trained == _uses_quick_gelu(architecture):
        return
    right = _other_arch(arch)
    repository = get_pretrained_cfg(arch, tag)["hf_hub"].rstrip("/")
    advice = (
        f"configure {right}/{tag}" if right else f"configure hf-hub:{repository}, which brings its own configuration"
    )
    raise EncoderInvalid(f"{_mismatch(f'{arch}/{tag}', arch, trained=trained)}: {advice}")


def check_hub(repository: str, architecture: Mapping[str, Any]) -> None:
    """
    A hub repository that the registry knows says the same as the registry, else ``EncoderInvalid``.
    """
    for arch, tag in _by_repository().get(repository, ()):
        trained = _uses_quick_gelu(get_pretrained_cfg(arch, tag))
        if trained and not _uses_quick_gelu(architecture):
            raise EncoderInvalid(
                f"{_mismatch(f'hf-hub:{repository}', 'its open_clip_config.json', trained=trained)}: "
                f"configure {_other_arch(arch) or arch}/{tag}"
            )


def check_file(sha256: str, model: str, architecture: Mapping[str, Any]) -> None:
    """
    A file whose hash the registry knows runs with the activation that it was trained with, else ``EncoderInvalid``.
    """
    for known, (arch, tag) in _by_file().items():
        if sha256.startswith(known):
            trained = _uses_quick_gelu(get_pretrained_cfg(arch, tag))
            if trained != _uses_quick_gelu(architecture):
                right = _fitting_arch(arch, trained=trained)
                raise EncoderInvalid(
                    f"{_mismatch(f'the checkpoint ({tag} of {arch}, by its hash)', model, trained=trained)}: configure "
                    f"{right}/{tag}, or set quick_gelu in the folder's open_clip_config.json"
                )


def _mismatch(weights: str, model: str, *, trained: bool) -> str:
    used, other = ("QuickGELU", "GELU") if trained else ("GELU", "QuickGELU")
    return f"{weights} was trained with {used}, but {model} computes {other}"


def _uses_quick_gelu(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quick_gelu", False))


def _other_arch(arch: str) -> str | None:
    """
    The same architecture with the other activation, where open_clip has one.
    """
    other = arch.removesuffix("-quickgelu") if arch.endswith("-quickgelu") else f"{arch}-quickgelu"
    return other if get_model_config(other) is not None else None


def _fitting_arch(arch: str, *, trained: bool) -> str:
    fits = _uses_quick_gelu(get_model_config(arch) or {}) == trained
    return arch if fits else _other_arch(arch) or arch


@cache
def _by_repository() -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for arch, tag in list_pretrained():
        address = str(get_pretrained_cfg(arch, tag).get("hf_hub", ""))
        if address.endswith("/"):
            found[address.rstrip("/")] = (*found.get(address.rstrip("/"), ()), (arch, tag))
    return found


@cache
def _by_file() -> dict[str, tuple[str, str]]:
    """
    Beginnings of the sha256 of published files, as their addresses show them, to the weights that they hold.
    """
    found: dict[str, tuple[str, str]] = {}
    for arch, tag in list_pretrained():
        url = str(get_pretrained_cfg(arch, tag).get("url", ""))
        folder, _, file = url.rpartition("/")
        # OpenAI names the folder by the whole hash, open_clip's releases end the file's name with its beginning.
        shown = folder.rpartition("/")[2] if "openaipublic" in url else file.rpartition(".")[0].rpartition("-")[2]
        if len(shown) >= _LEAST_KNOWN_HEX and all(digit in "0123456789abcdef" for digit in shown):
            found.setdefault(shown, (arch, tag))
    return found
