"""
What is said of a sighting does not depend on who is judged with it, nor on how the bank is searched, nor on the day.
"""

import hashlib
import json
from functools import cache

import numpy as np
import pytest

from schemas.envelope import write_binary
from tests.bank_builders import GENERATED, REAL, a_stored_bank
from tests.builders import a_raw_event, facts, upload_attributes, upload_data, versions
from tests.fake_outcomes import ManualClock
from tests.loop_rig import ROUTE, shipped_policy
from tests.sightings import a_hash
from worker.adapters.faiss_bank import FaissBank
from worker.bank.files import StoredBank
from worker.domain import Embedding, Provenance, Sighting
from worker.flow.bank_judge import BankJudge
from worker.flow.lines import Slot
from worker.flow.travellers import Known, Passenger
from worker.outcomes import Message
from worker.settings.tree import BankSettings
from worker.stages.intake import read_event
from worker.stages.serialise import to_message
from worker.telemetry.metrics import InMemoryRecorder

DIM = 48
PER_LABEL = 640
EVERY_KIND = 7
JUDGED = ("outcome", "scores", "evidence", "timing", "cache", "audit")
AS_EVER = "d897d9b57502048fcb84fee05e5bd2fdf0634544a5646fb8cb5c24156955b434"
"""Of what 96 verdicts say, written down before sightings were settled together; a sum in another order changes it."""


@pytest.mark.parametrize("scan", ["single", "half"])
def test_verdicts_are_as_ever(scan: str) -> None:
    """
    To the last digit, of pictures that lie anywhere, near to a reference, on it, and among equal ones.
    """
    said = [json.loads(message.value) for message in judged_in_batches(scan, 96)]

    found = json.dumps([[one[part] for part in JUDGED] for one in said]).encode()
    assert hashlib.sha256(found).hexdigest() == AS_EVER
    codes = {reason["code"] for one in said for reason in one["outcome"]["reasons"]}
    assert {"NEAREST_NEIGHBOURS", "EXACT_MATCH", "LOW_COVERAGE", "LOW_MARGIN"} <= codes


@pytest.mark.parametrize("scan", ["single", "half"])
def test_a_batch_is_judged_as_its_uploads_would_be_alone(scan: str) -> None:
    """
    The same messages, byte for byte, whether one is judged at a time, a few, or all.
    """
    alone = judged_in_batches(scan, 1)

    assert alone == judged_in_batches(scan, 7)
    assert alone == judged_in_batches(scan, 96)


@cache
def judged_in_batches(scan: str, size: int) -> list[Message]:
    """
    The verdicts on 96 uploads, so many judged together.
    """
    stored = a_crowded_bank()
    bank = FaissBank(stored, BankSettings.model_validate({"index": "flat", "flat_scan": scan}))
    judge = BankJudge(bank, shipped_policy(), versions(), ManualClock(), InMemoryRecorder())
    known = [an_upload_of(stored, number) for number in range(96)]
    outcomes = [one for start in range(0, 96, size) for one in judge.judge(known[start : start + size])]
    return [to_message(outcome, ROUTE) for outcome in outcomes]


@cache
def a_crowded_bank() -> StoredBank:
    """
    Pictures of both labels around a few places, each place with some that are equal.
    """
    rng = np.random.default_rng(9)
    places = rng.normal(size=(12, DIM))
    rows = places[rng.integers(0, 12, 2 * PER_LABEL)] + rng.normal(size=(2 * PER_LABEL, DIM))
    rows[::40] = places[0]
    return a_stored_bank({REAL: rows[:PER_LABEL], GENERATED: rows[PER_LABEL:]})


def an_upload_of(stored: StoredBank, number: int) -> Known:
    """
    The upload of this number, its picture recalled from Redis; the kinds of pictures take turns.
    """
    name = f"content-{number}"
    row = (37 * number) % len(stored.entries)
    anywhere, near = np.random.default_rng([9, number]).normal(size=(2, DIM)), stored.vectors[row].astype(np.float64)
    directions = [anywhere[0], near, near + 0.02 * anywhere[0], near + 0.2 * anywhere[1], stored.vectors[0]]
    sha256 = stored.entries.entry(row).sha256 if number % EVERY_KIND == 1 else a_hash(name)
    headers = write_binary(upload_attributes(id=name, subject=name))
    raw = a_raw_event(upload_data(content_id=name), offset=number, key=name.encode(), headers=headers)
    sighting = Sighting(
        Embedding.from_features(np.asarray(directions[number % len(directions)])), facts(sha256=sha256), norm=10.0
    )
    passenger = Passenger(Slot(raw), read_event(raw, max_event_bytes=1 << 20), a_hash(name), 20_480, 0.123456789)
    return Known(passenger, sighting, Provenance("hit", "redis"))
