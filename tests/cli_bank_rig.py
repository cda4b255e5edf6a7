"""
``touchstone bank ...`` run inside a test, with the fake encoder.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_encoder import fake_embedder
from worker.cli import main


@dataclass(frozen=True)
class Ran:
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


def bank_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bank ...`` with the fake encoder in the place of the configured one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("worker.cli.bank._open_embedder", lambda _settings, views: fake_embedder(views=views))

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["touchstone", "bank", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, said.out, said.err)

    return run
