"""
``touchstone bench agreement``: what two encoders make of the same pictures, added up, and where it ends with 1.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_judgement, an_abstention
from tests.command_line import Touchstone, command_line
from tests.pictures import photograph
from worker.bench.agreement import Agreement, Compared, drawn, files_below
from worker.bench.corpus import KINDS
from worker.errors import ConfigInvalid


@pytest.fixture
def agreement(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Touchstone:
    """
    The command.
    """
    return command_line(monkeypatch, capsys, "bench", "agreement")


def one(name: str, *, cosine: float = 1.0, recall: float = 1.0, **candidate: Any) -> Compared:  # noqa: ANN401 - any field
    """
    A picture on which both come to the same, but for what is given of the candidate's judgement.
    """
    return Compared(name, cosine, recall, a_judgement(), a_judgement(**candidate))


def of(*compared: Compared, probe_cosine: float = 1.0) -> Agreement:
    """
    So many pictures compared.
    """
    return Agreement("small", "fp32", "int8-onnxruntime", "bank 1", probe_cosine, compared, ["torn.jpg"])


def test_verdicts_agree_in_status_label_and_action() -> None:
    """
    A score that moves is no flip; another label, another action and an abstention are, and are told by name.
    """
    abstained = Compared("c", 0.9, 0.5, a_judgement(), an_abstention())
    found = of(one("a", score=a_judgement().score - 0.01), one("b", label=None), abstained, one("d")).as_object()

    assert (4, 1, 0.5, 2) == (found["pictures"], found["unreadable"], found["agreement"], found["flips"])
    assert ["b", "c"] == [flip["name"] for flip in found["flipped"]]  # type: ignore[attr-defined]  # a list of them
    assert "the view of the whole picture alone" == found["cosines_and_recall_of"]
    assert (0.9, 1.0, 0.875) == (found["cosine_min"], found["cosine_median"], found["neighbour_recall"])


@pytest.mark.parametrize(("cosine", "serves"), [(0.9990001, True), (0.99899, False)])
def test_it_says_whether_a_worker_would_take_the_bank(cosine: float, serves: bool) -> None:
    """
    By the bank's own rule for its probe picture.
    """
    assert serves is of(one("a"), probe_cosine=cosine).as_object()["bank_serves_candidate"]


def test_a_sample_of_files_is_spread_over_all(tmp_path: Path) -> None:
    """
    Of many sorted folders not only the first is looked at; hidden files are left out, named ones taken.
    """
    for folder in "abc":
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"{folder}{number}").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")

    assert 12 == len(files_below([tmp_path], None))
    assert ["a0", "b0", "c0"] == [name for name, _ in files_below([tmp_path], 3)]
    assert ["b1"] == [name for name, _ in files_below([tmp_path / "b" / "b1"], 5)]
    with pytest.raises(ConfigInvalid, match="found no file"):
        files_below([], None)


def test_drawn_pictures_are_always_the_same() -> None:
    """
    Two runs compare on the same pictures.
    """
    first, second = ([read() for _, read in drawn(KINDS["20kb"], 2)] for _ in range(2))

    assert first == second
    assert first[0] != first[1]


def test_a_bound_that_is_missed_exits_with_1(agreement: Touchstone, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    At the bound the command is content, below it says what was found and what to do.
    """
    monkeypatch.setattr("worker.bench.agreement.run_agreement", lambda *_, **__: of(one("a"), one("b", label=None)))
    asked = ("--backend", "onnxruntime", "--count", 2, "--min-agreement")
    met, missed = agreement(*asked, 0.5), agreement(*asked, 0.51)

    assert (0, "") == (met.code, met.err)
    assert "flipped" in met.out
    assert 1 == missed.code
    assert "0.5000 of the verdicts agree, --min-agreement asks for 0.51" in missed.err


def test_the_starter_in_bf16_beside_fp32(agreement: Touchstone, tmp_path: Path) -> None:
    """
    Through the whole of it, over the shipped bank; what is no picture is counted and no more.
    """
    for seed in range(3):
        photograph(320, 240, seed=seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    sets = ("--set", "encoder.device=cpu", "--set", "decode.isolation=threads")
    ran = agreement(tmp_path, "--precision", "bf16", "--json", *sets)

    assert 0 == ran.code, ran.err
    found = ran.json
    assert (3, 1) == (found["pictures"], found["unreadable"])
    assert ("starter", "fp32", "bf16") == (found["model"], found["reference"], found["candidate"])
    assert found["cosine_min"] >= 0.999
    assert 0 <= found["agreement"] <= 1


def test_pictures_resized_otherwise_beside_the_configured(agreement: Touchstone, tmp_path: Path) -> None:
    """
    Each encoder sees what its own decoder makes of a file; that the bank would be refused to a worker is said.
    """
    photograph(640, 480).save(tmp_path / "0.png")
    sets = ("--set", "encoder.device=cpu", "--set", "decode.isolation=threads")
    ran = agreement(tmp_path, "--resize", "torch", "--json", *sets)

    assert 0 == ran.code, ran.err
    assert 1 == ran.json["pictures"]
    assert 0.99 < ran.json["cosine_min"] <= 1.0
    assert (False, False) == (ran.json["preprocessed_alike"], ran.json["bank_serves_candidate"])


def test_an_encoder_is_not_compared_with_itself(agreement: Touchstone) -> None:
    """
    Where the automatic precision comes to the one that is named, all would agree, and nothing would be shown by it.
    """
    ran = agreement("--precision", "fp32", "--count", 1, "--set", "encoder.device=cpu")

    assert 2 == ran.code
    assert "come to one encoder here, fp32" in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --backend, --precision, --resize"),
        (("--backend", "torch"), "name another"),
        (("--precision", "int8"), "backend torch has the precisions fp32, bf16, fp16, found int8"),
    ],
)
def test_a_candidate_must_be_another_that_can_be(options: tuple[str, ...], said: str, agreement: Touchstone) -> None:
    """
    Nothing is loaded before the command line has been understood.
    """
    ran = agreement(*options)

    assert 2 == ran.code
    assert said in ran.err
    assert "pydantic" not in ran.err
