"""
Is a bank what its manifest says, and can it be believed: every check, each finding one line.

Searching is done by whoever opens the bank (a callable), so that nothing here knows FAISS.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.bank.files import StoredBank, load_bank
from worker.bank.fit import check_fit
from worker.bank.near_duplicates import NearDuplicates, near_duplicates
from worker.bank.survey import Progress, no_progress
from worker.bank.vectors import unit_rows
from worker.domain import Embedding, Label
from worker.errors import BankInvalid, CannotStart
from worker.heads.features import Mask, Matrix, Rows
from worker.heads.reference_bank import ReferenceBank
from worker.ports import Bank, Encoder, PictureDecoder
from worker.views import ViewSpec

MIN_RECALL: Final = 0.95
"""Of the true nearest references, the share that the configured index must find."""

RECALL_K: Final = 10
SAMPLE: Final = 500
"""References asked for in the recall check; brute force over a million takes a minute or two with these."""

_ROWS_AT_ONCE: Final = 65_536
_NAMED: Final = 20
_WARNED: Final = 5
_SEED: Final = 7
_ROUNDING: Final = 1e-5
_REMEDY: Final = "raise bank.hnsw_ef_search or bank.ivf_probes, or set bank.index to flat"
_REMEDY_OF_CARRIED: Final = "run `touchstone bank index` again, or set bank.index to flat"

Searched = TypeVar("Searched", bound=Bank)
OpenEncoder = Callable[[ViewSpec], tuple[Encoder, PictureDecoder]]
"""Opens an encoder, and the decoder of these views."""


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something wrong; ``check`` names the check, ``message`` says what was found.
    """

    check: str
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What was checked, what was measured, and what is wrong; without findings the bank is sound.

    ``native_recall`` is None where the bank has no native crops. ``warnings`` make no bank unsound: they tell of near
    duplicates across sources. Those within a source are counted in pairs, None where nothing could be loaded.
    """

    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    recall: float | None = None
    self_retrieval: float | None = None
    probe_cosine: float | None = None
    native_recall: float | None = None
    warnings: tuple[str, ...] = ()
    near_duplicates_within_source: int | None = None


def verify_bank(
    path: Path,
    *,
    open_bank: Callable[[StoredBank], Searched],
    open_references: Callable[[Searched, StoredBank], ReferenceBank] | None = None,
    open_encoder: OpenEncoder | None = None,
    progress: Progress = no_progress,
    trusted: Collection[str] = (),
) -> Verification:
    """
    Every check of a bank directory: files, repeated and doubtful references, the index, and the probe with an encoder.

    With ``open_references`` the index of the native crops is checked too, where the bank has any. Blocks; the check for
    near duplicates searches once for each reference. With ``trusted`` keys the signature is
    a check of the files. Never raises for what is wrong with the
    bank: it is in the findings, and so is an encoder that cannot be opened.
    """
    try:
        bank = load_bank(path, trusted)
    except BankInvalid as fault:
        return Verification(("files",), tuple(Finding("files", line) for line in str(fault).splitlines()))
    searched = open_bank(bank)
    recall, self_retrieval = _recall(bank, searched)
    near = near_duplicates(bank, searched, progress)
    findings = [
        *_repeated(bank),
        *_near_duplicate_findings(near.across_labels),
        *_index_findings(searched.identity.index, recall, self_retrieval),
    ]
    checks, cosine, native = ["files", "repeated references", "near duplicates", "index"], None, None
    if trusted:
        # Without a trusted signature nothing was loaded: it is among the findings of the files.
        checks.append("signature")
    if open_references is not None and len(bank.stored.native):
        checks.append("native index")
        native = _native_recall(bank, open_references(searched, bank))
        findings.extend(_native_findings(searched.identity.index, native))
    if open_encoder is not None:
        checks.append("probe")
        try:
            cosine = check_fit(bank, *open_encoder(bank.views))
        except CannotStart as fault:
            findings.append(Finding("probe", str(fault)))
    return Verification(
        tuple(checks),
        tuple(findings),
        recall,
        self_retrieval,
        probe_cosine=cosine,
        native_recall=native,
        warnings=tuple(_warnings(near)),
        near_duplicates_within_source=near.within_source,
    )


def _repeated(bank: StoredBank) -> Iterator[Finding]:
    first: dict[str, tuple[str, Label]] = {}
    for entry in bank.entries:
        if entry.sha256 not in first:
            first[entry.sha256] = (entry.id, entry.label)
            continue
        id_, label = first[entry.sha256]
        if label == entry.label:
            yield Finding("repeated references", f"{id_} and {entry.id} are the same bytes and vote twice")
        else:
            yield Finding(
                "repeated references", f"{id_} is {label} and {entry.id} is {entry.label}, but they are the same bytes"
            )


def _near_duplicate_findings(pairs: Sequence[str]) -> Iterator[Finding]:
    for message in pairs[:_NAMED]:
        yield Finding("near duplicates", message)
    if len(pairs) > _NAMED:
        yield Finding("near duplicates", f"and {len(pairs) - _NAMED} more pairs of one picture under two labels")


def _warnings(near: NearDuplicates) -> Iterator[str]:
    pairs = near.across_sources
    if pairs:
        yield (
            f"{len(pairs)} pairs of references of one label are one picture from two sources: figures that are made by "
            "holding out a source are too good. Leave one of each pair out, or give both one source"
        )
        yield from pairs[:_WARNED]
    if len(pairs) > _WARNED:
        yield f"and {len(pairs) - _WARNED} more pairs of one picture from two sources"


def _recall(bank: StoredBank, searched: Bank) -> tuple[float, float]:
    """
    Over a fixed sample of references: the share of the true nearest that is found, and of those that find themselves.

    Found is whoever is as similar as the true k-th, so that equal references may stand in for each other.
    """
    count = len(bank.entries)
    sample = np.sort(np.random.default_rng(_SEED).permutation(count)[:SAMPLE])
    found = searched.nearest(_embeddings(bank, sample), RECALL_K)
    hits = wanted = selves = 0
    for label in bank.sizes:
        rows = bank.entries.rows_of(label)
        depth = min(RECALL_K, len(rows))
        least = _kth_similarity(bank.vectors, rows, sample, depth)
        for at, row in enumerate(sample):
            similarities = [neighbour.similarity for neighbour in found[at].nearest[label]]
            wanted += depth
            hits += min(depth, sum(similarity >= least[at] - _ROUNDING for similarity in similarities))
            if bank.entries.entry(int(row)).label == label:
                selves += bool(similarities) and similarities[0] >= 1 - _ROUNDING
    return hits / wanted, selves / len(sample)


def _native_recall(bank: StoredBank, references: ReferenceBank) -> float:
    """
    Over a fixed sample of crops: the share of the true nearest crops of either class that is found.
    """
    native = bank.stored.native
    sample = np.sort(np.random.default_rng(_SEED).permutation(len(native))[:SAMPLE])
    found = references.nearest("native", unit_rows(native[sample]), RECALL_K)
    positive = _positive_crops(bank)
    hits = wanted = 0
    for side, members in ((found.positive, positive), (found.negative, ~positive)):
        rows = np.flatnonzero(members)
        if not len(rows):
            continue
        depth = min(RECALL_K, len(rows))
        least = _kth_similarity(native, rows, sample, depth)
        wanted += depth * len(sample)
        hits += int(np.minimum(depth, (side.similarity >= least[:, None] - _ROUNDING).sum(axis=1)).sum())
    return hits / wanted


def _positive_crops(bank: StoredBank) -> Mask:
    positive = np.zeros(len(bank.entries), dtype=np.bool_)
    positive[bank.entries.rows_of(Label(bank.manifest.question.positive))] = True
    crops: Mask = positive[bank.stored.native_owner]
    return crops


def _kth_similarity(vectors: NDArray[np.float16], rows: Rows, sample: Rows, depth: int) -> NDArray[np.float64]:
    """
    By brute force: for each sampled row the cosine of its ``depth``-th nearest among ``rows``.
    """
    queries = unit_rows(vectors[sample])
    best: Matrix = np.empty((len(sample), 0), dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = queries @ unit_rows(vectors[rows[start : start + _ROWS_AT_ONCE]]).T
        best = np.concatenate([best, block], axis=1)
        if best.shape[1] > depth:
            best = np.partition(best, best.shape[1] - depth, axis=1)[:, -depth:]
    least: NDArray[np.float64] = best.min(axis=1).astype(np.float64)
    return least


def _index_findings(index: str, recall: float, self_retrieval: float) -> Iterator[Finding]:
    remedy = _REMEDY_OF_CARRIED if index.startswith("cells(") else _REMEDY
    if recall < MIN_RECALL:
        yield Finding(
            "index", f"{index} finds {recall:.1%} of the {RECALL_K} nearest, wanted {MIN_RECALL:.0%}: {remedy}"
        )
    if self_retrieval < MIN_RECALL:
        yield Finding(
            "index", f"through {index} {self_retrieval:.1%} find themselves, wanted {MIN_RECALL:.0%}: {remedy}"
        )


def _native_findings(index: str, recall: float) -> Iterator[Finding]:
    if recall < MIN_RECALL:
        yield Finding(
            "native index", f"{index} finds {recall:.1%} of the {RECALL_K} nearest, wanted {MIN_RECALL:.0%}: {_REMEDY}"
        )


def _embeddings(bank: StoredBank, rows: NDArray[np.int64]) -> list[Embedding]:
    return [Embedding.from_half(bank.vectors[row]) for row in rows]
