"""
The Hugging Face hub, from which open_clip's registry takes its weights: files of a repository, cached on disk.

What is cached is used as it is, without asking the hub; what is not is fetched, unless the worker is offline.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import huggingface_hub
from huggingface_hub import constants, get_session
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from worker.errors import EncoderInvalid

REACH_TIMEOUT_S = 5.0

_BLOBS: Final = "blobs"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def hub_file(repository: str, names: Sequence[str], *, offline: bool) -> Path:
    """
    The first of ``names`` that the repository has, as a file on this machine.

    Blocks while it downloads. Raises ``EncoderInvalid``, within seconds when the hub cannot be reached.
    """
    cached = _cached(repository, names)
    if cached is not None:
        return cached
    wanted = f"{' or '.join(names)} of hf-hub:{repository}"
    if offline:
        raise EncoderInvalid(
            f"{wanted} is not in the cache {constants.HF_HUB_CACHE}, and encoder.offline is set: start once without "
            f"it, fill the cache with `hf download {repository}`, or configure encoder.checkpoint"
        )
    _require_reachable(wanted)
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:
            raise _unreachable(wanted, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise EncoderInvalid(
                f"{wanted} cannot be fetched ({type(error).__name__}: {_first_line(error)}): check the name, and "
                "HF_TOKEN if the repository is private"
            ) from error
    raise EncoderInvalid(f"hf-hub:{repository} has none of {', '.join(names)}: it is no open_clip model")


def hub_sha256(path: Path) -> str | None:
    """
    The sha256 that the hub gave for a file of its cache, by which the client named it; None for any other file.
    """
    blob = path.resolve()
    named = path.is_symlink() and blob.parent.name == _BLOBS and _SHA256.fullmatch(blob.name) is not None
    return blob.name if named else None


def _cached(repository: str, names: Sequence[str]) -> Path | None:
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        except ValueError as error:
            raise EncoderInvalid(
                f"{repository!r} is no hub id ({_first_line(error)}): want ORGANISATION/NAME"
            ) from error
    return None


def _require_reachable(wanted: str) -> None:
    """
    One short question before the download, which itself would retry for 23 seconds per file.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT_S)
    except Exception as error:
        raise _unreachable(wanted, error) from error


def _unreachable(wanted: str, error: Exception) -> EncoderInvalid:
    return EncoderInvalid(
        f"{wanted} is not in the cache {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached "
        f"({type(error).__name__}: {_first_line(error)}): check the network (HTTPS_PROXY, HF_ENDPOINT), copy the cache "
        "from a machine that has one, or configure encoder.checkpoint with a local file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
