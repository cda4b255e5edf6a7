"""
What the operator's guide tells people to type: read from the README, the model card and the comments of ``config/``.

How each of our own commands is run stands in ``guide_story.py``, and what holds other programs' in ``guide_shell.py``.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from tests.conftest import ROOT

GUIDES: Final = (
    ROOT / "README.md",
    ROOT / "worker" / "shipped" / "starter" / "MODEL_CARD.md",
    *sorted(path for path in (ROOT / "config").iterdir() if path.suffix in {".md", ".toml"}),
)

_PROGRAMS: Final = "touchstone|make"
_IN_A_BLOCK: Final = rf"^\$ ((?:{_PROGRAMS})\b.*)$"
_AFTER_A_PROMPT: Final = r"^\$ (.*)$"
_IN_A_COMMENT: Final = rf"^# {{2,}}((?:{_PROGRAMS})\b.*)$"
"""A comment of a settings file that is set off by more than one blank."""
_IN_A_SENTENCE: Final = rf"`((?:{_PROGRAMS}) [^`]+)`"
_DOCKER_IN_A_SENTENCE: Final = r"`(docker [^`]+)`"


def typed(text: str, *, settings: bool = False) -> list[str]:
    """
    The commands that stand on a line of their own, each once, without remarks and in the order of the text.

    ``settings``: the text is a settings file, whose lines to type are set off within comments.
    """
    whole = text.replace("\\\n", " ")
    found = re.findall(_IN_A_COMMENT if settings else _IN_A_BLOCK, whole, flags=re.MULTILINE)
    return _once(re.sub(r"\s#\s.*$", "", line) for line in found)


def others(text: str, *, settings: bool = False) -> list[str]:
    """
    The lines behind a prompt that are no commands of ours, each once, and what is said of Docker within sentences.
    """
    ours = set(typed(text))
    lines = re.findall(_AFTER_A_PROMPT, text.replace("\\\n", " "), flags=re.MULTILINE)
    prompted = _once(re.sub(r"\s#\s.*$", "", line) for line in lines)
    said = re.findall(_DOCKER_IN_A_SENTENCE, re.sub(r"\n# (?! )", " ", text) if settings else text)
    return _once([*(line for line in prompted if line not in ours), *said])


def spoken(text: str, *, settings: bool = False) -> list[str]:
    """
    The commands within sentences, each once; a sentence of a settings file goes on behind the next ``#``.
    """
    return _once(re.findall(_IN_A_SENTENCE, re.sub(r"\n# (?! )", " ", text) if settings else text))


def _once(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(" ".join(line.split()) for line in lines))


def _of_every_guide(find: Callable[..., list[str]]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            line for path in GUIDES for line in find(path.read_text(encoding="utf-8"), settings=path.suffix == ".toml")
        )
    )


TYPED: Final = _of_every_guide(typed)
SPOKEN: Final = _of_every_guide(spoken)
OTHERS: Final = _of_every_guide(others)
