"""
One small evaluation with everything in it, as a JSON object, as tables and as one HTML page.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from tests.evaluation_parts import a_nearest_fit, write_evaluation_csv
from tests.fake_encoder import FakeEncoder, fake_decoder
from worker.bank.embedding import ReferenceEmbedder
from worker.evaluation.dataset import load_dataset
from worker.evaluation.drawing import bootstrap
from worker.evaluation.evaluation import Evaluation
from worker.evaluation.false_positives import flagged_reals
from worker.evaluation.json_view import evaluation_object
from worker.evaluation.perturbations import PERTURBATIONS
from worker.evaluation.report import report_html
from worker.evaluation.run import EvaluationPlan, Tools, evaluate
from worker.evaluation.shipped import outcomes_of, shipped_of
from worker.evaluation.tables import show_evaluation
from worker.views import ViewSpec

ENDS = ("value", "low", "high", "low_sources", "high_sources")
INTERVAL = {
    "type": "object",
    "required": list(ENDS),
    "properties": {name: {"type": ["number", "null"], "minimum": 0, "maximum": 1} for name in ENDS},
}
COLUMN = {
    "type": "object",
    "required": ["ap", "auroc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "tpr_at_fpr", "ece", "brier"],
    "properties": dict.fromkeys(("ap", "auroc", "balanced_accuracy", "real_accuracy", "fake_accuracy"), INTERVAL),
}
SHIPPED = ("real_accuracy", "fake_accuracy", "balanced_accuracy", "tpr_at_alpha", "decided_share")
POOLED = ("pooled_value", "pooled_low", "pooled_high")
SCHEMA = {
    "type": "object",
    "required": ["heads", "fused", "control", "fpr", "n_real", "n_ai", "split"],
    "properties": {
        "heads": {"type": "object", "minProperties": 1, "additionalProperties": COLUMN},
        "rules": {"type": "object", "additionalProperties": COLUMN},
        "peers": {"type": "object", "additionalProperties": COLUMN},
        "fused": {
            "allOf": [COLUMN, {"required": ["shipped"]}],
            "properties": {
                "shipped": {
                    "required": [*SHIPPED, "accuracy_of_decided", "reason"],
                    "properties": dict.fromkeys((*SHIPPED, "accuracy_of_decided"), INTERVAL),
                }
            },
        },
        "control": COLUMN,
        "fpr": {
            "type": "object",
            "required": [
                "alpha",
                "value",
                "low",
                "high",
                *POOLED,
                "low_sources",
                "high_sources",
                "guarantee",
                "promised",
            ],
            "properties": {
                **{name: {"type": "number", "minimum": 0, "maximum": 1} for name in ("alpha", "low", "high")},
                **{name: {"type": ["number", "null"], "minimum": 0, "maximum": 1} for name in POOLED},
                "guarantee": {"enum": ["each_source", "pooled"]},
                "per_source": {
                    "type": "object",
                    "additionalProperties": {"required": ["n", "flagged", "value", "low", "high", "pooled_value"]},
                },
            },
        },
        "n_real": {"type": "integer", "minimum": 1},
        "n_ai": {"type": "integer", "minimum": 1},
        "split": {"enum": ["source", "generator"]},
    },
}
SWEPT = ("jpeg 30", "crop 10 %")
VOID = {"meta", "img", "br"}


class Loudest:
    """
    A peer that calls bright pictures generated.
    """

    name = "peer:brightness"

    def logits(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """
        Brightness above the middle.
        """
        return np.array([float(np.asarray(picture).mean()) - 127.0 for picture in pictures])


class Page(HTMLParser):
    """
    What a page points to, and whether its elements are closed in order.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pointers: list[str] = []
        self.images = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Opens an element.
        """
        self._take(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        An element without an end.
        """
        self._take(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """
        Closes the last element.
        """
        assert self.open.pop() == tag

    def _take(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        self.pointers += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """
    Sixty drawn pictures, the fake encoder and a fit that asks the nearest.
    """
    folder = tmp_path_factory.mktemp("evaluation")
    file = write_evaluation_csv(folder)
    hostile = folder / "real/<script>x<b>.png"
    (folder / "real/left-0.png").rename(hostile)
    file.write_text(file.read_text().replace("real/left-0.png", "real/<script>x<b>.png"))
    encoder = FakeEncoder()

    def opened(views: ViewSpec) -> ReferenceEmbedder:
        return ReferenceEmbedder(encoder, fake_decoder(views), batch_size=16, threads=1, views=views)

    tools = Tools(opened, a_nearest_fit, alpha=0.05, work=folder / "work", peers=(Loudest(),))
    plan = EvaluationPlan(heldout_tier="matched", crops=1, robustness_limit=8, draws=30)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("worker.evaluation.robustness.PERTURBATIONS", {name: PERTURBATIONS[name] for name in SWEPT})
        return evaluate(load_dataset(file), plan, tools)


def as_json(found: Evaluation) -> dict[str, Any]:
    """
    The object after a round through JSON that knows no NaN.
    """
    again: dict[str, Any] = json.loads(json.dumps(evaluation_object(found), allow_nan=False))
    return again


def printed(found: Evaluation) -> str:
    """
    What the terminal shows.
    """
    console = Console(file=io.StringIO(), width=320)
    show_evaluation(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_json_object_has_its_promised_shape(found: Evaluation) -> None:
    """
    Heads, fused and control with their intervals, the false-positive rate, and what was held out.
    """
    shown = as_json(found)
    jsonschema.validate(shown, SCHEMA)

    assert (20, 20, "source") == (shown["n_real"], shown["n_ai"], shown["split"])
    assert {"knn"} == set(shown["heads"])
    assert {"min_distance_k1"} == set(shown["rules"])
    assert {"brightness"} == set(shown["peers"])
    assert {"left", "right"} == {row["name"] for row in shown["folds"]}
    assert shown["fused"]["auroc"]["value"] + shown["rules"]["min_distance_k1"]["auroc"]["value"] == pytest.approx(1)
    assert shown["comparisons"]["knn"]["better_ap"] == "too few to tell"
    assert shown["risk_coverage"]["coverage"][-1] == 1.0
    assert len(shown["risk_coverage"]["risk"]) == 40
    assert shown["teaching"] == []
    assert "plasma has 10 pictures" in " ".join(shown["teaching_notes"])


def test_the_shipped_numbers_are_those_of_the_outcomes(found: Evaluation) -> None:
    """
    By hand from the three words: an undecided picture is half right, and flags alone make the rate at alpha.
    """
    positive = found.judged.positive
    words = np.array(["real", "uncertain", "ai_generated", "ai_generated", "real"] * 8)
    flagged = np.arange(40) % 3 == 0
    scores = replace(found.judged.scores, outcome=tuple(words.tolist()), flagged=flagged)
    shown = shipped_of(scores, positive, bootstrap(positive, 20, 0))
    right = np.where(words == "uncertain", 0.5, (words == "ai_generated") == positive)
    fake, real = right[positive].mean(), right[~positive].mean()
    decided = words != "uncertain"

    assert (fake, real) == pytest.approx((shown.fake_accuracy.value, shown.real_accuracy.value))
    assert (fake + real) / 2 == pytest.approx(shown.balanced_accuracy.value)
    assert shown.decided_share.value == pytest.approx(0.8)
    assert right[decided].mean() == pytest.approx(shown.accuracy_of_decided.value)
    assert flagged[positive].mean() == pytest.approx(shown.tpr_at_alpha.value)
    assert set(SHIPPED) <= set(as_json(found)["fused"]["shipped"])


def test_flagged_reals_source_by_source(found: Evaluation) -> None:
    """
    By hand: in all and of each source, under the policy's guarantee and the pooled one, as JSON, table and page.
    """
    judged = found.judged
    real = ~judged.positive
    left, right = (real & (np.array(judged.clusters) == name) for name in ("left", "right"))
    flagged, pooled = judged.positive.copy(), judged.positive.copy()
    flagged[np.flatnonzero(left)[:1]] = True
    pooled[[*np.flatnonzero(left)[:4], *np.flatnonzero(right)[:2]]] = True
    scores = replace(judged.scores, flagged=flagged, pooled_flagged=pooled, sources=3)
    draws = bootstrap(judged.positive, 200, 0, judged.clusters)
    rate = flagged_reals(scores, judged.positive, judged.clusters, draws, asked=(0.05, "each_source"))
    shown = as_json(replace(found, fpr=rate))["fpr"]
    exact = stats.binomtest(4 + 2, 20).proportion_ci(0.95, method="exact")

    assert (20, 1, 0.05) == (shown["n"], shown["flagged"], shown["value"])
    assert (0.3, exact.low, exact.high) == pytest.approx(tuple(shown[name] for name in POOLED))
    assert {"left": (10, 1, 0.1, 0.4), "right": (10, 0, 0.0, 0.2)} == {
        name: (row["n"], row["flagged"], row["value"], row["pooled_value"]) for name, row in shown["per_source"].items()
    }
    # Drawn anew, both sources may be the left one.
    assert 0.0 == shown["low_sources"] < shown["high_sources"]
    assert "in each of at least 3 calibration sources; of sources never seen, in 3 of 4" in shown["promised"]
    for said in (printed(replace(found, fpr=rate)), report_html(replace(found, fpr=rate))):
        for wanted in (shown["promised"], "bound over all sources", "10.0%", "together instead: 30.0%"):
            assert wanted in said


def test_the_pooled_promise_is_named(found: Evaluation) -> None:
    """
    Under the other guarantee no single source is promised anything.
    """
    draws = bootstrap(found.judged.positive, 20, 0)
    rate = flagged_reals(
        found.judged.scores, found.judged.positive, found.judged.clusters, draws, asked=(0.05, "pooled")
    )

    assert "over all calibration sources together; in one of them it may be more" in printed(replace(found, fpr=rate))
    assert (None, None, None) == (rate.low_sources, rate.pooled_value, rate.sources)


def test_without_a_guarantee_nothing_of_it_is_stated(found: Evaluation) -> None:
    """
    Where a fold could not support alpha, JSON, terminal and page give the reason in place of numbers.
    """
    reason = "fold left: the calibration has 9 reals, but a false-positive rate of 0.05 needs at least 19"
    refused = replace(found.judged.scores, refusals=(reason,))
    without = replace(
        found,
        fpr=flagged_reals(
            refused,
            found.judged.positive,
            found.judged.clusters,
            bootstrap(found.judged.positive, 10, 0),
            asked=(0.05, "each_source"),
        ),
        outcomes=outcomes_of(refused, found.judged.positive),
        shipped=shipped_of(refused, found.judged.positive, bootstrap(found.judged.positive, 10, 0)),
    )
    shown = as_json(without)

    assert [None] * 5 == [shown["fpr"][name] for name in ("value", "low", "high", "flagged", "promised")]
    assert {} == shown["fpr"]["per_source"]
    assert [None] * 3 == [shown["outcomes"][name] for name in ("generated", "uncertain", "abstain_rate")]
    assert all(set(shown["fused"]["shipped"][name].values()) == {None} for name in SHIPPED)
    assert {reason} == {part["reason"] for part in (shown["fpr"], shown["outcomes"], shown["fused"]["shipped"])}
    for said in (printed(without), report_html(without)):
        assert "the calibration has 9 reals" in said
        assert "held-out reals flagged" not in said
        assert "as shipped" not in said


def test_every_perturbation_has_its_row(found: Evaluation) -> None:
    """
    Clean, every perturbation, and partial edits, of which only reals are made.
    """
    rows = {row.name: row for row in found.sweep}

    assert ["clean", *SWEPT, "partial edit"] == list(rows)
    assert (4, 4) == (rows["jpeg 30"].n_real, rows["jpeg 30"].n_ai)
    assert (4, 4) == (rows["partial edit"].n_real, rows["partial edit"].n_ai)
    assert rows["clean"].fpr == rows["partial edit"].fpr


def test_nothing_is_left_but_kept_embeddings(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    The sweep's files and banks are gone; two banks stay for the next run, one per footing.
    """
    work = found.dataset.samples[0].reference.path.parents[1] / "work"

    assert 2 == len([path for path in work.iterdir() if path.name.startswith("embedded-")])
    assert list((work / "perturbed").iterdir()) == []


def test_the_report_needs_nothing_beside_it(found: Evaluation) -> None:
    """
    Every image is inside, nothing points outside, every element is closed, and no file's name becomes markup.
    """
    html = report_html(found)
    page = Page(html)

    assert page.open == []
    assert page.images > 8
    assert all(pointer.startswith(("data:image/jpeg;base64,", "#")) for pointer in page.pointers)
    assert re.search(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:)?//", html) is None
    assert re.search(r"url\((?![\"']?#)", html) is None
    assert "<script" not in html
    assert html.count("<svg") == 7


def test_the_tables_name_every_column(found: Evaluation) -> None:
    """
    Fused, head, rule, controls and peer, with the files as they were beside.
    """
    said = printed(found)
    wanted = ("partial edit", "too few to tell", "held-out reals flagged", "as shipped", "TPR at FPR 1 %", "teaching:")

    for name in (*found.measures, *wanted, "at even odds", "for these sources", "not corrected for being many"):
        assert name in said
    assert found.originals["fused"].ap.value is not None
