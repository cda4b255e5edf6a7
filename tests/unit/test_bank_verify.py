"""
Verifying and describing: every fault has its line, and a sound bank has none.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bank_builders import GENERATED, NOON, REAL, a_source, a_stored_bank, an_entry, sha, write_pictures
from tests.brute_force_bank import BruteForceBank
from tests.fake_encoder import FakeEncoder, fake_decoder, fake_embedder
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_references import FaissReferences
from worker.bank.build import BuildPlan, build_bank
from worker.bank.describe import balanced_accuracy, describe
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank, counts_of, load_bank, write_contents, write_manifest
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.sources import list_source
from worker.bank.verify import Finding, verify_bank
from worker.domain import BankEntry, Embedding, Label, Neighbourhood
from worker.errors import BankInvalid, EncoderInvalid
from worker.heads.features import Matrix
from worker.heads.reference_bank import ExactBank, Nearest, NearestOfClass, Projection, View
from worker.settings.tree import BankSettings
from worker.stages.decode import PillowDecoder
from worker.views import ViewSpec


def flat(stored: StoredBank) -> FaissBank:
    """
    The default index.
    """
    return FaissBank(stored, BankSettings(index="flat"))


def write(path: Path, stored: StoredBank, entries: Sequence[BankEntry] | None = None) -> Path:
    """
    A bank in memory, on disk, with other entries if given.
    """
    rows = list(stored.entries if entries is None else entries)
    path.mkdir()
    checksums = write_contents(path, rows, stored=stored.stored, probe=stored.probe, probe_png=stored.probe_png)
    changed = stored.manifest.model_copy(update={"checksums": checksums, "counts": counts_of(rows)})
    write_manifest(path, changed)
    return path


def random_bank(reals: int = 60, fakes: int = 40) -> dict[str, NDArray[np.float64]]:
    """
    References anywhere.
    """
    rng = np.random.default_rng(11)
    return {"real": rng.normal(size=(reals, 16)), "ai_generated": rng.normal(size=(fakes, 16))}


def test_a_sound_bank_has_no_findings(tmp_path: Path) -> None:
    """
    Files, references, index and probe are checked, and what was measured is told.
    """
    listing = list_source(a_source(tmp_path / "source"), SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    path = build_bank(listing, tmp_path / "bank", embedder=fake_embedder(), plan=plan).path
    verification = verify_bank(path, open_bank=flat, open_encoder=lambda views: (FakeEncoder(), fake_decoder(views)))

    assert verification.findings == ()
    assert verification.checks == ("files", "repeated references", "near duplicates", "index", "probe")
    assert (verification.recall, verification.self_retrieval) == (1.0, 1.0)
    assert verification.probe_cosine == pytest.approx(1)


def test_damaged_files_are_findings(tmp_path: Path) -> None:
    """
    One each, and nothing else is tried on what cannot be trusted.
    """
    path = write(tmp_path / "bank", a_stored_bank(random_bank()))
    (path / "probe.png").write_bytes(b"")
    (path / "vectors.safetensors").write_bytes(b"")
    verification = verify_bank(path, open_bank=flat)

    assert [finding.check for finding in verification.findings] == ["files", "files"]
    assert verification.checks == ("files",)
    assert verification.recall is None


def test_an_encoder_that_does_not_fit_is_a_finding(tmp_path: Path) -> None:
    """
    In the words in which the worker would refuse to start.
    """
    listing = list_source(a_source(tmp_path / "source"), SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    path = build_bank(listing, tmp_path / "bank", embedder=fake_embedder(), plan=plan).path
    verification = verify_bank(
        path, open_bank=flat, open_encoder=lambda views: (FakeEncoder(weights=2), fake_decoder(views))
    )

    assert [finding.check for finding in verification.findings] == ["probe"]
    assert "weights is" in verification.findings[0].message


def test_an_encoder_that_cannot_be_opened_is_a_finding(tmp_path: Path) -> None:
    """
    A probe that was not checked must not look like one that was; everything else is checked all the same.
    """

    def open_encoder(_views: ViewSpec) -> tuple[FakeEncoder, PillowDecoder]:
        raise EncoderInvalid("no weights here")

    path = write(tmp_path / "bank", a_stored_bank(random_bank()))
    verification = verify_bank(path, open_bank=flat, open_encoder=open_encoder)

    assert verification.findings == (Finding("probe", "no weights here"),)
    assert verification.recall == 1.0


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (REAL, "one and two are the same bytes and vote twice"),
        (GENERATED, "one is real and two is ai_generated, but they are the same bytes"),
    ],
)
def test_repeated_references_are_findings(tmp_path: Path, label: Label, message: str) -> None:
    """
    Under one label they vote twice, under two they contradict.
    """
    stored = a_stored_bank(random_bank(3, 3))
    entries = list(stored.entries)
    entries[0] = replace(entries[0], id="one", sha256=sha("twin"))
    at = 1 if label == REAL else 3
    entries[at] = replace(entries[at], id="two", sha256=sha("twin"))
    path = write(tmp_path / "bank", stored, entries)

    assert verify_bank(path, open_bank=flat).findings == (Finding("repeated references", message),)


def test_one_picture_under_two_labels_is_a_finding(tmp_path: Path) -> None:
    """
    Not the same bytes, but the same to the encoder: re-encoded, say. Once per pair.
    """
    vectors = random_bank(8, 5)
    vectors["ai_generated"][2] = vectors["real"][4] + 1e-3
    stored = a_stored_bank(vectors)
    [finding] = verify_bank(write(tmp_path / "bank", stored), open_bank=flat).findings
    pair = sorted(f"{stored.entries.entry(row).id} is {stored.entries.entry(row).label}" for row in (4, 10))

    assert finding.check == "near duplicates"
    assert finding.message.startswith(f"{pair[0]} and {pair[1]}, with cosine 1.0")


def test_near_duplicates_are_found_between_any_two_labels(tmp_path: Path) -> None:
    """
    Of three labels none is left out, and long lists are cut with a count.
    """
    rng = np.random.default_rng(4)
    many, few = rng.normal(size=(30, 16)), rng.normal(size=(4, 16))
    stored = a_stored_bank({"cat": many, "dog": np.concatenate([many[:25], few]), "cow": few})
    findings = verify_bank(write(tmp_path / "bank", stored), open_bank=flat).findings

    assert len(findings) == 21
    assert findings[-1].message == "and 9 more pairs of one picture under two labels"


class Forgetful(BruteForceBank):
    """
    An index that loses the nearest of everything.
    """

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        All but the best half.
        """
        found = super().nearest(embeddings, 2 * k)
        return [replace(one, nearest={label: n[len(n) // 2 :] for label, n in one.nearest.items()}) for one in found]


def test_an_index_that_misses_is_a_finding(tmp_path: Path) -> None:
    """
    With what to turn, for recall and for references that do not find themselves.
    """
    path = write(tmp_path / "bank", a_stored_bank(random_bank()))
    verification = verify_bank(path, open_bank=Forgetful)

    assert [finding.check for finding in verification.findings] == ["index", "index"]
    assert "brute force finds 0.0% of the 10 nearest, wanted 95%: raise bank.hnsw_ef_search" in str(
        verification.findings[0]
    )
    assert (verification.recall, verification.self_retrieval) == (0.0, 0.0)


def with_crops(reals: int = 60, fakes: int = 40) -> StoredBank:
    """
    References anywhere, with two crops each.
    """
    return a_stored_bank(random_bank(reals, fakes), crops=[2] * (reals + fakes))


def test_the_native_view_is_checked(tmp_path: Path) -> None:
    """
    Where there are crops and somebody to search them; otherwise nothing is claimed of it.
    """
    path = write(tmp_path / "bank", with_crops())
    plain = write(tmp_path / "plain", a_stored_bank(random_bank()))
    verification = verify_bank(path, open_bank=flat, open_references=FaissReferences)
    without = verify_bank(plain, open_bank=flat, open_references=FaissReferences)

    assert (verification.findings, verification.native_recall) == ((), 1.0)
    assert "native index" in verification.checks
    assert without.native_recall is None
    assert "native index" not in without.checks


class ForgetfulReferences(ExactBank):
    """
    A bank of the heads that loses the nearest crops of everything.
    """

    def __init__(self, _searched: FaissBank, stored: StoredBank) -> None:
        super().__init__(stored.references())

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        All but the best half.
        """
        found = super().nearest(view, queries, 2 * k, projection)
        sides = [NearestOfClass(side.similarity[:, k:], side.rows[:, k:]) for side in (found.positive, found.negative)]
        return Nearest(*sides)


def test_a_native_index_that_misses_is_a_finding(tmp_path: Path) -> None:
    """
    With what to turn.
    """
    path = write(tmp_path / "bank", with_crops())
    [finding] = verify_bank(path, open_bank=flat, open_references=ForgetfulReferences).findings

    assert finding.check == "native index"
    assert "flat finds 0.0% of the 10 nearest, wanted 95%: raise bank.hnsw_ef_search" in finding.message


@pytest.mark.parametrize(
    ("settings", "sound"),
    [
        (BankSettings(index="hnsw"), True),
        (BankSettings(index="ivf", ivf_lists=20, ivf_probes=20), True),
        (BankSettings(index="ivf", ivf_lists=20, ivf_probes=1), False),
    ],
)
def test_the_configured_index_is_the_one_checked(tmp_path: Path, settings: BankSettings, *, sound: bool) -> None:
    """
    With too few probes a real index is found wanting, with enough it is not.
    """
    path = write(tmp_path / "bank", a_stored_bank(random_bank(900, 800)))
    verification = verify_bank(path, open_bank=lambda stored: FaissBank(stored, settings))

    assert (not verification.findings) == sound


def test_a_description_counts(tmp_path: Path) -> None:
    """
    Per label generators, formats, licences and quartiles of sizes; and what lies on disk.
    """
    source = a_source(tmp_path / "source", reals=3, fakes=3)
    write_pictures(source, "real/x.jpg", "fake/loom/y.webp", first_seed=50)
    listing = list_source(source, SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    path = build_bank(listing, tmp_path / "bank", embedder=fake_embedder(), plan=plan).path
    description = describe(path, load_bank(path))

    assert description.labels[GENERATED].generators == {"mill": 3, "loom": 1}
    assert description.labels[REAL].formats == {"PNG": 3, "JPEG": 1}
    assert description.labels[REAL].licences == {"unknown": 4}
    assert description.labels[REAL].short_side_px == (40, 40, 40)
    assert description.disk_bytes == sum(file.stat().st_size for file in path.iterdir())
    assert description.warnings == ()


def with_entries(change: Callable[[BankEntry], BankEntry], reals: int = 6, fakes: int = 4) -> StoredBank:
    """
    A bank in memory whose entries were changed.
    """
    stored = a_stored_bank(random_bank(reals, fakes))
    return replace(stored, entries=EntryTable([change(entry) for entry in stored.entries]))


def test_a_format_that_gives_the_label_away_is_warned_of(tmp_path: Path) -> None:
    """
    All photographs JPEG and all fakes PNG: such a bank looks good and may know nothing but that.
    """
    stored = with_entries(lambda entry: replace(entry, format="JPEG" if entry.label == REAL else "PNG"))
    description = describe(write(tmp_path / "bank", stored), stored)

    assert description.giveaways["format"] == 1.0
    assert any("the format of the files alone" in warning for warning in description.warnings)
    assert not any("the size" in warning for warning in description.warnings)


def test_a_size_that_gives_the_label_away_is_warned_of(tmp_path: Path) -> None:
    """
    Generators make 1024 x 1024, cameras do not.
    """
    stored = with_entries(lambda entry: replace(entry, width=1024, height=1024 if entry.label == GENERATED else 683))
    description = describe(write(tmp_path / "bank", stored), stored)

    assert description.giveaways == {"format": 0.5, "size": 1.0}
    assert any("the size of the files alone" in warning for warning in description.warnings)


def test_an_unbalanced_bank_is_warned_of(tmp_path: Path) -> None:
    """
    Saying to which label references should be added.
    """
    stored = with_entries(lambda entry: entry, reals=4, fakes=20)
    first, *_ = describe(write(tmp_path / "bank", stored), stored).warnings

    assert "ai_generated has 5.0 times as many references as real" in first


def test_balanced_accuracy_by_hand() -> None:
    """
    Nine of ten photographs and two of ten fakes are JPEG: guessing by that is right 85 times in a hundred.
    """
    counts = {REAL: Counter(JPEG=9, PNG=1), GENERATED: Counter(JPEG=2, PNG=8)}

    assert balanced_accuracy(counts) == pytest.approx(0.85)
    assert balanced_accuracy({REAL: Counter(PNG=3), GENERATED: Counter(PNG=300)}) == pytest.approx(0.5)


def test_unknown_sizes_are_unknown(tmp_path: Path) -> None:
    """
    A listing need not know them, and nothing is made up.
    """
    stored = with_entries(lambda entry: replace(an_entry(entry.id, entry.label), width=None, byte_length=None))
    summary = describe(write(tmp_path / "bank", stored), stored).labels[REAL]

    assert summary.short_side_px is None
    assert summary.file_bytes is None


@pytest.mark.parametrize("name", ["nowhere", "photo.png"])
def test_what_is_no_directory_is_no_bank(tmp_path: Path, name: str) -> None:
    """
    And the message says how to make one.
    """
    (tmp_path / "photo.png").write_bytes(b"")

    with pytest.raises(BankInvalid, match="touchstone bank build"):
        load_bank(tmp_path / name)
