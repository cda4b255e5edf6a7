"""
The data set, the control, near-duplicates, perturbations and teaching, each alone.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.evaluation_parts import (
    a_nearest_fit,
    a_sample,
    a_table,
    drawn_picture,
    references_of,
    write_evaluation_csv,
)
from tests.fake_encoder import FakeEncoder, fake_decoder
from worker.bank.embedding import ReferenceEmbedder
from worker.errors import ConfigInvalid
from worker.evaluation.control import control_scores, original_columns, reencoded_columns
from worker.evaluation.dataset import Sample, load_dataset
from worker.evaluation.duplicates import without_near_duplicates
from worker.evaluation.embedding import Embedder, embedded
from worker.evaluation.perturbations import PERTURBATIONS, partial_edit
from worker.evaluation.splits import Fold, by_source
from worker.evaluation.teaching import Pupils, teach
from worker.heads.features import References
from worker.views import ViewSpec


def test_a_csv_file_with_tiers(tmp_path: Path) -> None:
    """
    Tier, header and hash of every file; the same bytes are taken once and named.
    """
    file = write_evaluation_csv(tmp_path, each=2)
    (tmp_path / "real/left-1.png").write_bytes((tmp_path / "real/left-0.png").read_bytes())
    found = load_dataset(file)
    first = found.samples[0]

    assert len(found) == 11
    assert found.duplicates == (("real/left-1.png", "real/left-0.png"),)
    assert ("PNG", 64, 48) == (first.facts.format, first.facts.width, first.facts.height)
    assert {"matched", "single-class"} == {sample.tier for sample in found.samples}
    assert all(len(sample.content) == 64 for sample in found.samples)


def stored(name: str, generator: str | None, source: str, side: int, file_format: str) -> Sample:
    """
    A sample whose header says this.
    """
    sample = a_sample(name, generator=generator, source=source)
    return replace(sample, facts=replace(sample.facts, width=side, height=side, format=file_format))


def test_the_control_finds_what_formats_give_away_and_nothing_else() -> None:
    """
    Generated PNG against real JPEG is told perfectly by the files, and not at all once all are stored alike.
    """
    samples = [
        stored(f"{source}{kind}{n}", "g" if kind else None, source, 300 + n, "PNG" if kind else "JPEG")
        for source in "abc"
        for kind in (0, 1)
        for n in range(30)
    ]
    folds = by_source(samples).folds
    positive = np.array([sample.positive for sample in samples])
    original = control_scores(original_columns(samples), positive, folds, seed=0)
    alike = control_scores(reencoded_columns(samples, 256), positive, folds, seed=0)

    assert roc_auc_score(positive, original) == 1.0
    assert roc_auc_score(positive, alike) == 0.5
    assert np.all(reencoded_columns(samples, 256)[:, :2] == 256)


def test_a_near_duplicate_is_taken_out_of_training(tmp_path: Path) -> None:
    """
    Another file of the same picture is confirmed by its hash; a picture that only embeds alike is not.
    """
    # PDQ asks for structure at the scale of a picture: smooth clouds alone are too plain for it.
    noise = np.random.default_rng(0).uniform(0, 255, (16, 16, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST)
    other = Image.fromarray(noise[::-1, ::-1]).rotate(90).resize((128, 128), Image.Resampling.NEAREST)
    for name, made, quality in (("judged", picture, 95), ("copy", picture, 60), ("other", other, 95)):
        made.save(tmp_path / f"{name}.jpg", quality=quality)
    samples = [
        replace(sample, reference=replace(sample.reference, path=tmp_path / sample.reference.name))
        for sample in (a_sample("judged.jpg"), a_sample("copy.jpg"), a_sample("other.jpg"), a_sample("missing.jpg"))
    ]
    unit = np.full((4, 4), 0.5, np.float32)
    (fold,), check = without_near_duplicates([Fold("f", np.arange(1, 4), np.arange(1))], samples, unit)

    assert fold.train.tolist() == [2, 3]
    assert check.suspects == 3
    assert [("judged.jpg", "copy.jpg", True)] == [(one.judged, one.trained, one.same_label) for one in check.confirmed]


def test_pictures_that_lie_apart_are_not_looked_at() -> None:
    """
    Below the suspicious cosine no file is opened.
    """
    folds = [Fold("f", np.arange(1, 3), np.arange(1))]
    (fold,), check = without_near_duplicates(folds, [a_sample(str(n)) for n in range(3)], np.eye(3, dtype=np.float32))

    assert fold.train.tolist() == [1, 2]
    assert check.suspects == 0


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_is_a_picture_and_repeats(name: str) -> None:
    """
    The same seed gives the same bytes, and the picture is not the one it was.
    """
    picture = drawn_picture("checker", seed=1)
    first, again = (PERTURBATIONS[name](picture, np.random.default_rng(5)) for _ in range(2))
    with Image.open(io.BytesIO(first)) as opened:
        seen = opened.convert("RGB")

    assert first == again
    assert seen.size != picture.size or not np.array_equal(np.asarray(seen), np.asarray(picture))


def test_a_partial_edit_changes_a_quarter() -> None:
    """
    Of a black picture a quarter turns white.
    """
    data = partial_edit(Image.new("RGB", (80, 60)), Image.new("RGB", (9, 9), "white"), np.random.default_rng(0))
    with Image.open(io.BytesIO(data)) as edited:
        white = np.asarray(edited.convert("L")) > 127

    assert np.mean(white) == pytest.approx(0.25)


def test_teaching_judges_the_same_pictures_at_every_step() -> None:
    """
    A generator on its own side of the space is missed before and told after a few of it were added.
    """
    rng = np.random.default_rng(0)
    middle = {"r": (1.0, 0.0, 0.2), "g": (0.0, 1.0, 0.0), "new": (0.75, 0.1, -0.65)}
    kinds = ["r"] * 100 + ["g"] * 30 + ["new"] * 40
    samples = [a_sample(f"{kind}{at}", generator=None if kind == "r" else kind) for at, kind in enumerate(kinds)]
    unit = np.array([middle[kind] for kind in kinds]) + rng.normal(0, 0.05, (170, 3))
    found = teach(references_of(samples, a_table(unit)), samples, a_nearest_fit)
    new = next(curve for curve in found.curves if curve.generator == "new")

    assert ["new", "g"] == [curve.generator for curve in found.curves]
    assert [0, 10, 50, 100] == [step.taught for step in new.steps]
    assert [True, True, False, False] == [step.recall is not None for step in new.steps]
    assert new.judged == 30
    assert (new.steps[0].recall or 0) < (new.steps[1].recall or 0)
    assert all(step.real_accuracy == 1.0 for step in new.steps if step.recall is not None)
    assert found.notes == ()


def a_few(counts: dict[str, int]) -> tuple[References, list[Sample]]:
    """
    Thirty reals and so many pictures of each generator, all anywhere.
    """
    names = [None] * 30 + [name for name, count in counts.items() for _ in range(count)]
    samples = [a_sample(str(at), generator=name) for at, name in enumerate(names)]
    unit = np.random.default_rng(0).normal(size=(len(names), 4))
    return references_of(samples, a_table(unit)), samples


def test_the_largest_generators_are_taught_or_those_that_are_named() -> None:
    """
    Two by their number of pictures alone; a name that no picture has is refused, with those that there are.
    """
    references, samples = a_few({"small": 21, "large": 25, "larger": 30})
    largest = teach(references, samples, a_nearest_fit)
    named = teach(references, samples, a_nearest_fit, pupils=Pupils(named=("small",)))

    assert ["larger", "large"] == [curve.generator for curve in largest.curves]
    assert ["small"] == [curve.generator for curve in named.curves]
    with pytest.raises(ConfigInvalid, match="--teach nobody: no picture names it; there are larger, large, small"):
        teach(references, samples, a_nearest_fit, pupils=Pupils(named=("nobody",)))


def test_where_nobody_can_be_taught_the_reason_is_given() -> None:
    """
    Too few pictures of each, or one generator only: no curve, and never silence.
    """
    few = teach(*a_few({"a": 12, "b": 9}), a_nearest_fit)
    single = teach(*a_few({"a": 40}), a_nearest_fit)

    assert few.curves == ()
    assert "a has 12 pictures: too few to teach it, which takes at least 20" in few.notes
    assert single.curves == ()
    assert "another is needed" in single.notes[0]


def test_embeddings_are_found_again(tmp_path: Path) -> None:
    """
    A second run encodes nothing; other views, or one file more, are embedded anew.
    """
    dataset = load_dataset(write_evaluation_csv(tmp_path, each=2))
    encoder = FakeEncoder()

    def run(views: ViewSpec, rows: range) -> int:
        before = encoder.encoded
        embedder = ReferenceEmbedder(encoder, fake_decoder(views), threads=1, views=views)
        usable, references = embedded(dataset.take(rows), Embedder(embedder, tmp_path / "work"), "them")
        assert [sample.content for sample in usable.samples] == list(references.content)
        return encoder.encoded - before

    first, again = run(ViewSpec(), range(11)), run(ViewSpec(), range(11))

    assert first >= 11
    assert again == 0
    assert run(ViewSpec(reencode_quality=50), range(11)) >= 11
    assert run(ViewSpec(), range(12)) >= 12
