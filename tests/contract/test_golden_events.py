"""
The golden events of every released version of the contract are read and written as they always were.
"""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from schemas import SCHEMA_VERSION
from schemas.export import examples
from tests.golden_events import GOLDEN, example_documents, golden_documents, ids_of, record_of
from tests.peers import assert_valid

UPLOADS = sorted(GOLDEN.glob("*/upload_*.json"))
MESSAGES = sorted({*GOLDEN.glob("*/*.json")} - {*UPLOADS})


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_upload_is_read_as_ever(path: Path) -> None:
    """
    Envelope, event id and both verdict ids of a golden upload never change.
    """
    golden = json.loads(path.read_text(encoding="utf-8"))

    assert golden["expected"] == ids_of(record_of(golden["record"]))


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_upload_satisfies_the_schema_that_producers_are_given(path: Path) -> None:
    """
    What we read is what the exported schema allows.
    """
    value = json.loads(path.read_text(encoding="utf-8"))["record"]["value"]
    data = b64decode(value["data_base64"]) if "data_base64" in value else value.get("data", value)

    assert assert_valid("image.uploaded.v1", data)["content_id"] == "post-8843"


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_message_of_any_version_satisfies_the_schema_of_today(path: Path) -> None:
    """
    A consumer with today's schema can read a topic that holds messages of every version of this major.
    """
    message = json.loads(path.read_text(encoding="utf-8"))

    assert_valid(message["headers"]["ce_type"], message["value"])


def test_the_sources_still_make_the_golden_events() -> None:
    """
    What is written today, byte for byte but for spaces, is what the files of this version hold, with none left over.
    """
    files = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (GOLDEN / SCHEMA_VERSION).glob("*.json")
    }

    assert files == golden_documents()


def test_the_examples_of_the_contract_are_golden_events() -> None:
    """
    The AsyncAPI document shows uploads, verdicts and dead letters that were really read and written.

    What operators and reviewers write has no ids of ours, and is held by its schema alone.
    """
    written_by_people = ("bankControl.", "imageDeleted.", "imageFeedback.")
    shown = {name: example for name, example in examples().items() if not name.startswith(written_by_people)}

    assert example_documents(golden_documents()) == shown


def test_the_ids_of_one_event_are_these() -> None:
    """
    The ids that the first golden event had on the first day, written down once more where no script reaches them.
    """
    expected = golden_documents()["upload_https_binary"]["expected"]

    assert expected["verdict_id"] == "772eea74-f97b-58f8-981e-3d1453be8299"
    assert expected["decision_id"] == "2b0dc3a1-080e-557b-b4ca-e3151911e58f"
