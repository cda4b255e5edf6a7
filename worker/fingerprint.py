"""
Who an encoder is: the hashes that the cache, the bank and every verdict name it by.

Pure: the adapter of the encoder supplies the hashes of what it loaded.
"""

import hashlib
import json

from worker.domain import PreprocessSpec


def canonical_sha256(value: object) -> str:
    """
    The sha256 of a value's canonical JSON: keys sorted, no spaces, ASCII only.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def space_of(architecture_sha256: str, weights_sha256: str, preprocess: PreprocessSpec) -> str:
    """
    The space in which an encoder's vectors lie: only vectors of one space may be compared.
    """
    return canonical_sha256(["space", architecture_sha256, weights_sha256, preprocess.sha256])


def id_of(space: str, precision: str) -> str:
    """
    The id of an encoder: its space, at one precision.
    """
    return canonical_sha256(["encoder", space, precision])
