"""
The layout and the rule of UniversalFakeDetect.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation_parts import a_sample, a_table, drawn_picture, references_of
from tests.fake_encoder import FakeEncoder, fake_decoder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import StoredBank, load_bank
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source
from worker.errors import BankInvalid, ConfigInvalid
from worker.evaluation.embedding import Embedder
from worker.evaluation.ufd import KS, PUBLISHED, PUBLISHED_MEAN, evaluate_ufd, nearest_of_both, plain_rule
from worker.evaluation.ufd_sets import sets_below
from worker.heads.knn import Knn
from worker.heads.probe import LegacyProbe
from worker.heads.reference_bank import ExactBank
from worker.views import ViewSpec


def pictures(folder: Path, generator: str, seeds: range) -> None:
    """
    Drawn pictures in a folder.
    """
    folder.mkdir(parents=True)
    for seed in seeds:
        drawn_picture(generator, seed).save(folder / f"{seed}.png")


def a_bank(folder: Path, crops: int) -> StoredBank:
    """
    A bank of two kinds that the fake encoder tells apart.
    """
    pictures(folder / "pictures/real", "", range(12))
    pictures(folder / "pictures/fake/plasma", "plasma", range(100, 112))
    views = ViewSpec(native_crops=crops)
    embedder = ReferenceEmbedder(FakeEncoder(), fake_decoder(views), batch_size=8, threads=1, views=views)
    build_bank(list_source(folder / "pictures", GENERATED), folder / "bank", embedder=embedder, plan=BuildPlan("b"))
    return load_bank(folder / "bank")


def an_embedder(work: Path) -> Embedder:
    """
    The fake encoder, looking at the middle crop.
    """
    views = ViewSpec(native_crops=1)
    return Embedder(ReferenceEmbedder(FakeEncoder(), fake_decoder(views), threads=1, views=views), work)


def test_the_table_in_the_papers_order(tmp_path: Path) -> None:
    """
    Sets with and without classes, in the order of the paper and not of the alphabet; what is not there is named.
    """
    root = tmp_path / "sets"
    pictures(root / "ldm_200/0_real", "", range(200, 204))
    pictures(root / "ldm_200/1_fake", "plasma", range(300, 304))
    pictures(root / "biggan/0_real", "", range(400, 403))
    pictures(root / "biggan/1_fake", "plasma", range(500, 503))
    pictures(root / "progan/cat/0_real", "", range(600, 602))
    pictures(root / "progan/dog/1_fake", "plasma", range(700, 703))
    table = evaluate_ufd((root,), a_bank(tmp_path, 1), an_embedder(tmp_path / "work"))

    assert ["progan", "biggan", "ldm_200"] == [row.name for row in table.rows]
    assert [(2, 3), (3, 3), (4, 4)] == [(row.n_real, row.n_ai) for row in table.rows]
    assert len(PUBLISHED) - 3 == len(table.absent)
    assert all(set(KS) == set(row.accuracy) for row in table.rows)
    assert all(table.mean[k] == pytest.approx(np.mean([row.accuracy[k] for row in table.rows])) for k in KS)
    assert table.rows[0].published == PUBLISHED["progan"]


def test_the_authors_layout(tmp_path: Path) -> None:
    """
    Diffusion sets without reals are judged with the shared ones, GAN sets lie elsewhere, a lone set is not there.
    """
    diffusion, gans = tmp_path / "diffusion_datasets", tmp_path / "CNN_synth_testset"
    pictures(diffusion / "imagenet/0_real", "", range(200, 203))
    pictures(diffusion / "laion/0_real", "", range(210, 214))
    for at, name in enumerate(("guided", "ldm_200", "glide_100_10", "dalle")):
        pictures(diffusion / name / "1_fake", "plasma", range(300 + 10 * at, 302 + at + 10 * at))
    pictures(gans / "progan/cat/0_real", "", range(600, 602))
    pictures(gans / "progan/cat/1_fake", "plasma", range(700, 703))
    pictures(gans / "san/1_fake", "plasma", range(800, 803))
    (gans / "crn/0_real").mkdir(parents=True)
    (gans / "imle/0_real").mkdir(parents=True)
    (gans / "imle/0_real/1.png").write_bytes(b"no picture")
    pictures(gans / "imle/1_fake", "plasma", range(810, 812))
    work = tmp_path / "work"
    probe = LegacyProbe(np.zeros(FakeEncoder().fingerprint.dim), -1.0, "0" * 64)
    table = evaluate_ufd((diffusion, gans), a_bank(tmp_path, 1), an_embedder(work), probe=probe)
    rows = {row.name: row for row in table.rows}

    assert ["progan", "guided", "ldm_200", "glide_100_10", "dalle"] == list(rows)
    assert (3, 2) == (rows["guided"].n_real, rows["guided"].n_ai)
    assert (4, 3) == (rows["ldm_200"].n_real, rows["ldm_200"].n_ai)
    assert (4, 5) == (rows["dalle"].n_real, rows["dalle"].n_ai)
    assert rows["dalle"].probe == pytest.approx(100 * 4 / 9)
    assert len(PUBLISHED) - 5 == len(table.absent)
    assert "san holds only 1_fake" == table.absent["san"]
    assert "no folder crn" in table.absent["crn"]
    assert "imle" in table.absent
    # One folder for progan, one for imagenet's sets, one for laion's: the shared reals are embedded once.
    assert 3 <= len(list(work.glob("embedded-*"))) <= 4


def test_fakes_without_the_shared_reals_are_not_there(tmp_path: Path) -> None:
    """
    The reason names where the reals were expected.
    """
    pictures(tmp_path / "sets/ldm_200/1_fake", "plasma", range(2))
    pictures(tmp_path / "sets/biggan/0_real", "", range(4, 6))
    pictures(tmp_path / "sets/biggan/1_fake", "plasma", range(6, 8))
    found = sets_below((tmp_path / "sets",), tuple(PUBLISHED))

    assert ["biggan"] == list(found.listings)
    assert "ldm_200 holds only 1_fake, and there are no pictures in laion/0_real" == found.absent["ldm_200"]


def test_a_bank_without_crops_is_refused(tmp_path: Path) -> None:
    """
    The paper's rule compares crops that were not resized.
    """
    pictures(tmp_path / "sets/progan/0_real", "", range(2))
    pictures(tmp_path / "sets/progan/1_fake", "plasma", range(2, 4))

    with pytest.raises(BankInvalid, match=r"native crops.*--crops 1"):
        evaluate_ufd((tmp_path / "sets",), a_bank(tmp_path, 0), an_embedder(tmp_path / "work"))


def test_no_set_at_all_is_refused(tmp_path: Path) -> None:
    """
    The message shows what was expected.
    """
    with pytest.raises(ConfigInvalid, match="progan/cat/0_real"):
        sets_below((tmp_path,), tuple(PUBLISHED))


@pytest.mark.parametrize("k", KS)
def test_the_rule_is_that_of_the_knn_head(k: int) -> None:
    """
    Brute force in parts agrees with the head's own reading of the paper's rule.
    """
    rng = np.random.default_rng(k)
    samples = [a_sample(str(n), generator="g" if n % 3 else None) for n in range(90)]
    references = references_of(samples, a_table(rng.normal(size=(90, 6))))
    queries = a_table(rng.normal(size=(70, 6)))
    nearest = nearest_of_both(queries.unit, references.features.unit, references.positive, 9)
    head = Knn().read(queries, ExactBank(references)).parts[f"min_distance_k{k}"]

    assert np.array_equal(plain_rule(nearest, k) > 0, head > 0)


def test_published_rows_average_to_what_the_paper_says() -> None:
    """
    Nineteen recalled rows; their means are the paper's averages.
    """
    assert len(PUBLISHED) == 19
    for name in ("k1", "k9", "linear"):
        mean = np.mean([getattr(row, name) for row in PUBLISHED.values()])
        assert mean == pytest.approx(getattr(PUBLISHED_MEAN, name), abs=0.01)
