"""
``touchstone bank ...`` run inside a test, with the fake encoder.
"""

from pathlib import Path

import pytest

from tests.command_line import Touchstone, command_line
from tests.fake_encoder import fake_embedder


def bank_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bank ...`` with the fake encoder in the place of the configured one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "worker.cli.embedders.embedder_opener", lambda _settings: lambda views: fake_embedder(views=views)
    )
    return command_line(monkeypatch, capsys, "bank")
