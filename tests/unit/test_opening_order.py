"""
What a start does at the same time, and which of several faults it tells.
"""

from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.bank_builders import a_source, build_small
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder
from tests.release_worlds import BY, WatchedPlace
from worker import instruments as module
from worker.errors import BankInvalid, CannotStart, ConfigInvalid, EncoderInvalid
from worker.instruments import open_instruments
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.whole_banks import WholeBank, read_bank

DEADLINE_S = 60.0


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """
    Six reals and four fakes.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    return tmp_path / "bank"


def settings_of(bank: Path, **changes: object) -> Settings:
    """
    A worker with this bank.
    """
    values: dict[str, object] = {
        "bank": {"path": str(bank)},
        "policy": {"path": str(ROOT / "config" / "policy.toml")},
        "decode": {"credentials": False},
    }
    return Settings.model_validate({**values, **changes})


def no_encoder(*_: object, **__: object) -> FakeEncoder:
    """
    The loading of an encoder that cannot be loaded.
    """
    raise EncoderInvalid("no weights")


def test_the_encoder_is_loaded_while_the_bank_is_read(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Neither begins only when the other is done: each waits here for the other to have begun.
    """
    loading, reading = Event(), Event()

    def load(*_: object, **__: object) -> FakeEncoder:
        loading.set()
        assert reading.wait(DEADLINE_S)
        return FakeEncoder()

    def read(*given: Any) -> WholeBank:  # noqa: ANN401 - as read_bank
        reading.set()
        assert loading.wait(DEADLINE_S)
        return read_bank(*given)

    monkeypatch.setattr(module, "load_encoder", load)
    monkeypatch.setattr(module, "read_bank", read)
    opened = open_instruments(settings_of(bank), InMemoryRecorder())

    assert 10 == opened.bank.identity.entries


def test_the_phases_of_a_start_are_told(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    At level debug, each with its seconds by the clock and of CPU.
    """
    monkeypatch.setattr(module, "load_encoder", lambda *_args, **_kwargs: FakeEncoder())
    with capture_logs() as lines:
        open_instruments(settings_of(bank), InMemoryRecorder())
    told = {line["phase"]: line for line in lines if line["event"] == "start.phase"}

    assert {"bank", "encoder", "index", "probe", "canaries"} == set(told)
    assert all(line["log_level"] == "debug" and line["wall_s"] >= 0 and line["cpu_s"] >= 0 for line in told.values())


def test_the_encoder_is_made_ready_for_the_micro_batches(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is told their size when it is loaded: what it prepares for them, no upload waits for.
    """
    sizes: list[int] = []

    def load(*_: object, batch_size: int, **__: object) -> FakeEncoder:
        sizes.append(batch_size)
        return FakeEncoder()

    monkeypatch.setattr(module, "load_encoder", load)
    open_instruments(settings_of(bank, batch={"size": 19}), InMemoryRecorder())

    assert [19] == sizes


def test_the_bank_s_fault_is_told_before_the_encoder_s(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is cheap to refuse comes first, although both were looked at.
    """
    monkeypatch.setattr(module, "load_encoder", no_encoder)
    (bank / "entries.jsonl").write_bytes(b"{}\n")

    with pytest.raises(BankInvalid, match=r"entries\.jsonl has sha256"):
        open_instruments(settings_of(bank), InMemoryRecorder())


def test_a_bank_that_is_refused_waits_for_no_encoder(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its weights may have to be downloaded first.
    """
    refused = Event()

    def load(*_: object, **__: object) -> FakeEncoder:
        assert refused.wait(DEADLINE_S)
        return FakeEncoder()

    monkeypatch.setattr(module, "load_encoder", load)
    (bank / "entries.jsonl").write_bytes(b"{}\n")
    try:
        with pytest.raises(BankInvalid):
            open_instruments(settings_of(bank), InMemoryRecorder())
    finally:
        refused.set()


def test_the_encoder_s_fault_is_told_of_a_good_bank(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It waits in its thread until it is its turn, and is not lost there.
    """
    monkeypatch.setattr(module, "load_encoder", no_encoder)

    with pytest.raises(EncoderInvalid, match="no weights"):
        open_instruments(settings_of(bank), InMemoryRecorder())


def test_nothing_is_loaded_for_a_policy_that_is_refused(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The policy is looked at before any thread begins.
    """
    loaded: list[object] = []
    monkeypatch.setattr(module, "load_encoder", lambda *given, **_more: loaded.append(given))
    settings = settings_of(bank, policy={"path": str(bank / "no-policy.toml")})
    with pytest.raises(ConfigInvalid):
        open_instruments(settings, InMemoryRecorder())

    assert [] == loaded


def test_an_index_that_cannot_be_built_ends_the_start(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its fault comes out of its thread as it went in.
    """
    monkeypatch.setattr(module, "load_encoder", lambda *_args, **_kwargs: FakeEncoder())

    def fail(*_: object) -> None:
        raise MemoryError("no room for the index")

    monkeypatch.setattr("worker.adapters.faiss_bank.FaissBank", fail)
    with pytest.raises(MemoryError, match="no room"):
        open_instruments(settings_of(bank), InMemoryRecorder())


def test_without_an_encoder_no_release_is_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also where every release is damaged, what is told is that there is no encoder.
    """
    place = WatchedPlace(tmp_path, monkeypatch)
    place.releases.activate("2", BY)
    for release in ("1", "2"):
        with (place.root / release / "vectors.safetensors").open("r+b") as file:
            file.write(b"\xff\xff")
    with pytest.raises(CannotStart, match="release 2"):
        place.open()
    monkeypatch.setattr(module, "load_encoder", no_encoder)

    with pytest.raises(EncoderInvalid, match="no weights"):
        place.open()
