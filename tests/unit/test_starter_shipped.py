"""
What ships: the starter encoder and its bank are whole, small, fit each other, and are the defaults.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.small_encoder import CountingRecorder
from worker.adapters.clip_encoder import load_encoder
from worker.bank.files import load_bank, sha256_of
from worker.errors import ConfigInvalid, EncoderInvalid
from worker.instruments import open_instruments
from worker.settings.tree import BankSettings, EncoderSettings, Settings
from worker.shipped import STARTER_BANK, STARTER_MODEL, starter_sha256
from worker.stages.report import RunVersions
from worker.starter.corpus import PERMISSIVE
from worker.starter.make import FROM_LIST
from worker.starter.photographs import LISTING
from worker.whole_banks import bank_path

LIMIT_BYTES = 12_000_000


def test_the_weights_are_those_that_were_made() -> None:
    """
    Their hash stands beside them, and they are small enough to ship.
    """
    weights = STARTER_MODEL / "open_clip_model.safetensors"

    assert starter_sha256() == sha256_of(weights)
    assert weights.stat().st_size <= LIMIT_BYTES


def test_a_changed_weight_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also of what ships: one flipped bit, and the encoder does not start.
    """
    for file in STARTER_MODEL.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr("worker.adapters.clip_source.STARTER_MODEL", tmp_path)

    with pytest.raises(EncoderInvalid, match="sha256"):
        load_encoder(EncoderSettings(), CountingRecorder())


def test_encoder_and_bank_are_the_defaults_and_fit() -> None:
    """
    Settings that nobody touched open the starter, its bank and the bank's fitted judgement.
    """
    instruments = open_instruments(Settings(), CountingRecorder())
    versions: RunVersions = instruments.versions("scan")

    assert "starter" == versions.encoder.model
    assert "starter" == versions.bank.id
    assert instruments.fitted is not None
    assert instruments.views.native_crops > 0


def test_the_bank_holds_vectors_and_no_pictures() -> None:
    """
    Of the references only vectors ship, each with the licence under which it may.
    """
    bank = load_bank(STARTER_BANK)
    pictures = [path for path in STARTER_BANK.iterdir() if path.suffix in {".jpg", ".webp"}]
    licences = {entry.licence for entry in bank.entries}

    assert [] == pictures
    assert all(licence and licence.startswith((*PERMISSIVE, FROM_LIST)) for licence in licences)
    assert set(np.unique(bank.references().positive)) == {False, True}


def test_another_encoder_needs_a_bank_of_its_own() -> None:
    """
    The starter's bank is never searched with another encoder's vectors.
    """
    configured = Settings(encoder=EncoderSettings(model="ViT-B-32/openai"))

    assert STARTER_BANK == bank_path(Settings())
    assert Path("mine") == bank_path(Settings(bank=BankSettings(path=Path("mine"))))
    with pytest.raises(ConfigInvalid, match=r"bank\.path is not set"):
        bank_path(configured)


def test_photographs_are_of_licences_that_allow_it() -> None:
    """
    No share-alike and no copyleft: weights and vectors that are derived from them ship under Apache-2.0.
    """
    with LISTING.open(newline="", encoding="utf-8") as opened:
        licences = {row["licence"] for row in csv.DictReader(opened)}

    assert licences
    assert not {licence for licence in licences if "GPL" in licence or "-SA" in licence or "NC" in licence}
