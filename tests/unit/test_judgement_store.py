"""
A judgement as files: what was read is what was fitted, and anything else is refused by name.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.judgement_worlds import CHEAP, KNOWN, LEAN, NOISE, some_references
from worker.errors import BankInvalid
from worker.fitting.fit import FitPlan, fit_judgement
from worker.heads.reference_bank import ExactBank
from worker.judgement.model import FittedJudgement, HowFitted
from worker.judgement.sources import OTHER_SOURCES
from worker.judgement.store import SETTINGS_FILE, TENSORS_FILE, identified, judgement_files, read_judgement


@pytest.fixture(scope="module")
def judgement() -> FittedJudgement:
    """
    Any fitted judgement.
    """
    return fit_judgement(some_references(), plan=CHEAP).judgement


@pytest.fixture(scope="module")
def files(judgement: FittedJudgement) -> Mapping[str, bytes]:
    """
    Its files.
    """
    return judgement_files(judgement)


def _changed(files: Mapping[str, bytes], **changes: object) -> dict[str, bytes]:
    settings = {**json.loads(files[SETTINGS_FILE]), **changes}
    return {**files, SETTINGS_FILE: json.dumps(settings).encode()}


def test_read_is_what_was_fitted(judgement: FittedJudgement, files: Mapping[str, bytes], tmp_path: Path) -> None:
    """
    The same id, the same files again, and the same assessments to the last bit; from memory and from a folder.
    """
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    read, of_folder = read_judgement(files, heads=KNOWN), read_judgement(tmp_path, heads=KNOWN)
    bank, asked = ExactBank(some_references()), some_references(seed=4).features.take(range(0, 600, 100))

    assert judgement.id == read.id == of_folder.id
    assert files == judgement_files(read)
    assert judgement.assess(asked, bank) == read.assess(asked, bank)


def test_what_a_fit_was_asked_for_is_kept() -> None:
    """
    With it a bank can be fitted again alike; a judgement of before it was kept reads as one that does not say.
    """
    plan = FitPlan(seed=3, heads=("lean", "noise"), alpha=0.2, delta=0.1, recipes=(LEAN, NOISE))
    fitted = fit_judgement(some_references(each=20), plan=plan).judgement
    older = identified(replace(fitted, asked=None))

    assert HowFitted(("lean", "noise"), 3, 0.2, 0.1) == fitted.asked
    assert fitted.asked == read_judgement(judgement_files(fitted), heads=KNOWN).asked
    assert "asked" not in json.loads(judgement_files(older)[SETTINGS_FILE])
    assert read_judgement(judgement_files(older), heads=KNOWN).asked is None


def test_sources_of_reals_are_kept(judgement: FittedJudgement, files: Mapping[str, bytes]) -> None:
    """
    By name, those that are not known too.
    """
    source = (None, *judgement.reals.source[1:])
    partly = identified(replace(judgement, reals=replace(judgement.reals, source=source)))

    assert {f"camera-{number}" for number in range(5)} == set(judgement.reals.source)
    assert judgement.reals.source == read_judgement(files, heads=KNOWN).reals.source
    assert source == read_judgement(judgement_files(partly), heads=KNOWN).reals.source
    assert partly.id != judgement.id


def test_a_judgement_of_before_sources_were_kept(judgement: FittedJudgement) -> None:
    """
    Reads as one whose reals are all of one group, under the id that it always had.
    """
    older = identified(replace(judgement, reals=replace(judgement.reals, source=())))
    written = judgement_files(older)
    read = read_judgement(written, heads=KNOWN)

    assert {"kinds", "kind"} == set(json.loads(written[SETTINGS_FILE])["reals"])
    assert (older.id, ()) == (read.id, read.reals.source)
    assert [(OTHER_SOURCES, 300)] == [(group.name, len(group.rows)) for group in read.reals.groups]
    assert 0 == read.reals.sources


def test_a_source_that_is_not_in_the_list(files: Mapping[str, bytes]) -> None:
    """
    Whoever made the hash fit: such a file is refused, not read half.
    """
    settings = json.loads(files[SETTINGS_FILE])
    settings["reals"]["source"][0] = 99
    wrong = {**files, SETTINGS_FILE: json.dumps(settings).encode()}
    with pytest.raises(BankInvalid, match=r"hash to ([0-9a-f]{64})") as refused:
        read_judgement(wrong, heads=KNOWN)
    found = re.search(r"hash to ([0-9a-f]{64})", str(refused.value))
    assert found is not None
    with pytest.raises(BankInvalid, match=r"do not hold what a judgement of version 1 needs \(IndexError"):
        read_judgement(_changed(wrong, id=found.group(1)), heads=KNOWN)


def test_every_kind_of_fusion_and_calibration() -> None:
    """
    The averaged and the isotonic come back too.
    """
    few = fit_judgement(some_references(each=20), plan=CHEAP).judgement
    many = fit_judgement(some_references(each=200, generators=5), plan=FitPlan(recipes=(LEAN, NOISE))).judgement

    for judgement in (few, many):
        read = read_judgement(judgement_files(judgement), heads=KNOWN)
        assert judgement.id == read.id
        assert judgement.fusion == read.fusion
        assert type(judgement.calibration) is type(read.calibration)


def test_a_setting_changed_by_hand(files: Mapping[str, bytes]) -> None:
    """
    The hash tells.
    """
    with pytest.raises(BankInvalid, match=r"judgement\.json says id [0-9a-f]{64}, but .* hash to [0-9a-f]{64}"):
        read_judgement(_changed(files, base_rate=0.01), heads=KNOWN)


def test_a_number_changed_by_hand(files: Mapping[str, bytes]) -> None:
    """
    Also among the tensors.
    """
    tensors = dict(load(files[TENSORS_FILE]))
    tensors["reals.full"] = tensors["reals.full"] - 1
    with pytest.raises(BankInvalid, match=r"heads\.safetensors hash to"):
        read_judgement({**files, TENSORS_FILE: save(tensors)}, heads=KNOWN)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (SETTINGS_FILE, b"{", "judgement.json is not JSON"),
        (SETTINGS_FILE, b"[1]", "judgement.json is of version 'None', expected '1'"),
        (SETTINGS_FILE, b"\xff\xfe", "judgement.json is not JSON"),
        (TENSORS_FILE, b"\x80\x04K\x01.", "heads.safetensors is no safetensors file"),
    ],
)
def test_damaged_files(files: Mapping[str, bytes], name: str, content: bytes, said: str) -> None:
    """
    Each is named; nothing in them is run.
    """
    with pytest.raises(BankInvalid, match=said):
        read_judgement({**files, name: content}, heads=KNOWN)


def test_another_version(files: Mapping[str, bytes]) -> None:
    """
    Found and expected are said, and what to do.
    """
    with pytest.raises(BankInvalid, match=r"is of version '99', expected '1'; run `touchstone fit`"):
        read_judgement(_changed(files, version="99"), heads=KNOWN)


def test_missing_files(files: Mapping[str, bytes], tmp_path: Path) -> None:
    """
    By name, in memory and in a folder.
    """
    with pytest.raises(BankInvalid, match=r"found no heads\.safetensors"):
        read_judgement({SETTINGS_FILE: files[SETTINGS_FILE]}, heads=KNOWN)
    with pytest.raises(BankInvalid, match=r"judgement\.json cannot be read"):
        read_judgement(tmp_path, heads=KNOWN)


def test_a_head_that_nobody_knows_here(files: Mapping[str, bytes]) -> None:
    """
    Such as one of a later Touchstone.
    """
    with pytest.raises(BankInvalid, match="head 'lean' is unknown here"):
        read_judgement(files)


def test_no_setting_that_json_cannot_hold(judgement: FittedJudgement, files: Mapping[str, bytes]) -> None:
    """
    Settings are plain JSON: numbers are finite, and no NumPy type hides in them.
    """
    settings = json.loads(files[SETTINGS_FILE], parse_constant=pytest.fail)

    assert judgement.id == settings["id"]
    assert [head.name for head in judgement.heads] == [head["name"] for head in settings["heads"]]
    assert all(np.isfinite(head["scale"]["mean"]) for head in settings["heads"])
