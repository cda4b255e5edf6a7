"""
``touchstone ...`` run inside a test: the whole command line, to its exit code and all that it said.

Workers and replays that must be processes of their own are in ``worker_rig.py`` and ``replay_rig.py``.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from worker.cli import main


class Ran(NamedTuple):
    """
    How a command ended and what it said.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was printed
        """
        What was printed, as one JSON document.
        """
        return json.loads(self.out)


Touchstone = Callable[..., Ran]


def command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *first: str,
    last: Sequence[str] = (),
) -> Touchstone:
    """
    Runs ``touchstone FIRST ... LAST`` inside the test; the words between are given with each call, paths among them.
    """

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["touchstone", *first, *map(str, arguments), *last])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, said.out, said.err)

    return run
