"""
Error codes of failed verdicts and dead letters: stable, part of the contract.

Each code belongs to one class, which says who can mend it, and names the stage in which it arises.
"""

from enum import StrEnum
from typing import Final


class ErrorClass(StrEnum):
    """
    Who can mend it: time (transient), the uploader or producer (permanent), an operator (policy), us (internal).
    """

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    POLICY = "policy"
    INTERNAL = "internal"


class Stage(StrEnum):
    """
    Where on its way an upload stood, in the order of the way.
    """

    PARSE = "parse"
    FETCH = "fetch"
    RECALL = "recall"
    DECODE = "decode"
    ENCODE = "encode"
    MATCH = "match"
    DECIDE = "decide"


class ErrorCode(StrEnum):
    """
    Why an upload has no judgement.
    """

    EVENT_EMPTY = "EVENT_EMPTY"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    EVENT_INVALID = "EVENT_INVALID"
    EVENT_TYPE_UNSUPPORTED = "EVENT_TYPE_UNSUPPORTED"
    REF_FORBIDDEN = "REF_FORBIDDEN"
    REF_EXPIRED = "REF_EXPIRED"
    FETCH_NOT_FOUND = "FETCH_NOT_FOUND"
    FETCH_DENIED = "FETCH_DENIED"
    FETCH_UNAUTHORIZED = "FETCH_UNAUTHORIZED"
    FETCH_REDIRECT = "FETCH_REDIRECT"
    FETCH_TIMEOUT = "FETCH_TIMEOUT"
    FETCH_TOO_LARGE = "FETCH_TOO_LARGE"
    FETCH_UPSTREAM = "FETCH_UPSTREAM"
    FETCH_EMPTY = "FETCH_EMPTY"
    FETCH_TOO_SLOW = "FETCH_TOO_SLOW"
    FETCH_HOST_DOWN = "FETCH_HOST_DOWN"
    INTEGRITY_MISMATCH = "INTEGRITY_MISMATCH"
    EMBEDDING_UNKNOWN = "EMBEDDING_UNKNOWN"
    FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
    DECODE_FAILED = "DECODE_FAILED"
    DECODE_TRUNCATED = "DECODE_TRUNCATED"
    DECODE_BOMB = "DECODE_BOMB"
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    DECODE_CRASHED = "DECODE_CRASHED"
    ENCODE_FAILED = "ENCODE_FAILED"
    ENCODE_NONFINITE = "ENCODE_NONFINITE"
    ENCODE_OUT_OF_MEMORY = "ENCODE_OUT_OF_MEMORY"
    INTERNAL = "INTERNAL"


_CLASSES: Final[dict[ErrorCode, tuple[ErrorClass, Stage]]] = {
    ErrorCode.EVENT_EMPTY: (ErrorClass.PERMANENT, Stage.PARSE),
    ErrorCode.EVENT_TOO_LARGE: (ErrorClass.PERMANENT, Stage.PARSE),
    ErrorCode.EVENT_INVALID: (ErrorClass.PERMANENT, Stage.PARSE),
    ErrorCode.EVENT_TYPE_UNSUPPORTED: (ErrorClass.PERMANENT, Stage.PARSE),
    ErrorCode.REF_FORBIDDEN: (ErrorClass.POLICY, Stage.FETCH),
    ErrorCode.REF_EXPIRED: (ErrorClass.PERMANENT, Stage.FETCH),
    ErrorCode.FETCH_NOT_FOUND: (ErrorClass.PERMANENT, Stage.FETCH),
    ErrorCode.FETCH_DENIED: (ErrorClass.PERMANENT, Stage.FETCH),
    # Credentials of ours were refused, or are missing: an operator's affair, where FETCH_DENIED is the uploader's.
    ErrorCode.FETCH_UNAUTHORIZED: (ErrorClass.POLICY, Stage.FETCH),
    ErrorCode.FETCH_REDIRECT: (ErrorClass.PERMANENT, Stage.FETCH),
    ErrorCode.FETCH_TIMEOUT: (ErrorClass.TRANSIENT, Stage.FETCH),
    ErrorCode.FETCH_TOO_LARGE: (ErrorClass.POLICY, Stage.FETCH),
    ErrorCode.FETCH_UPSTREAM: (ErrorClass.TRANSIENT, Stage.FETCH),
    ErrorCode.FETCH_EMPTY: (ErrorClass.PERMANENT, Stage.FETCH),
    ErrorCode.FETCH_TOO_SLOW: (ErrorClass.TRANSIENT, Stage.FETCH),
    ErrorCode.FETCH_HOST_DOWN: (ErrorClass.TRANSIENT, Stage.FETCH),
    ErrorCode.INTEGRITY_MISMATCH: (ErrorClass.PERMANENT, Stage.FETCH),
    ErrorCode.EMBEDDING_UNKNOWN: (ErrorClass.POLICY, Stage.RECALL),
    ErrorCode.FORMAT_UNSUPPORTED: (ErrorClass.PERMANENT, Stage.DECODE),
    ErrorCode.DECODE_FAILED: (ErrorClass.PERMANENT, Stage.DECODE),
    ErrorCode.DECODE_TRUNCATED: (ErrorClass.PERMANENT, Stage.DECODE),
    ErrorCode.DECODE_BOMB: (ErrorClass.POLICY, Stage.DECODE),
    ErrorCode.DECODE_TIMEOUT: (ErrorClass.POLICY, Stage.DECODE),
    # An operator must see what crashes a decoder: it may be an attack on it.
    ErrorCode.DECODE_CRASHED: (ErrorClass.POLICY, Stage.DECODE),
    ErrorCode.ENCODE_FAILED: (ErrorClass.INTERNAL, Stage.ENCODE),
    ErrorCode.ENCODE_NONFINITE: (ErrorClass.INTERNAL, Stage.ENCODE),
    ErrorCode.ENCODE_OUT_OF_MEMORY: (ErrorClass.TRANSIENT, Stage.ENCODE),
    ErrorCode.INTERNAL: (ErrorClass.INTERNAL, Stage.DECIDE),
}

UPLOADERS_CHOICE: Final = frozenset(
    {
        ErrorCode.REF_FORBIDDEN,
        ErrorCode.FETCH_TOO_LARGE,
        ErrorCode.DECODE_BOMB,
        ErrorCode.DECODE_TIMEOUT,
        ErrorCode.DECODE_CRASHED,
    }
)
"""
Codes with a letter that whoever sends an upload can bring about alone, and as often as they like.

However many there are, they say nothing of the health of a worker that judges other uploads: what stops it must not
count them, or any uploader could stop it.
"""


def class_of(code: ErrorCode) -> ErrorClass:
    """
    The class that a code always belongs to.
    """
    return _CLASSES[code][0]


def stage_of(code: ErrorCode) -> Stage:
    """
    The stage in which a code arises; for ``INTERNAL``, where nothing better is known.
    """
    return _CLASSES[code][1]
