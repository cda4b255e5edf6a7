"""
A bank released again with an approximate index: made, tried at several depths against exact search, and put in place.

Who makes and who searches it is told as callables, so that nothing here knows FAISS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from worker.bank.canary_files import has_canaries, read_canaries
from worker.bank.files import StoredBank, load_bank, sha256_of, sync, write_manifest
from worker.bank.full_disk import writing
from worker.bank.manifest import CANARY_FILES, MIN_SEARCH_QUALITY, SEARCH, BankManifest, SearchRecord
from worker.bank.own_folder import own_folder
from worker.bank.release import changed_version, link_or_copy, place_of
from worker.bank.search_cells import SearchCells, write_cells
from worker.bank.search_quality import (
    SAMPLE,
    SearchQuality,
    compared,
    default_depth,
    neighbourhoods,
    sample_of,
    strangers_of,
)
from worker.bank.survey import Progress, no_progress
from worker.bank.swap import put_in_place, refusal, require_replaceable
from worker.domain import Embedding
from worker.errors import EXIT_FOUND, BankInvalid
from worker.ports import Bank

DEPTHS: Final = ((8, 2), (16, 2), (32, 2), (64, 2), (128, 2), (256, 2), (256, 4), (512, 4), (1024, 8))
"""Cells looked at, and candidates compared for each that is wanted: tried in this order, each dearer than the last."""

ENOUGH: Final = 0.997
"""Recall and agreement at which no dearer depth is tried: above the least that is loaded, since uploads are others."""

BETTER: Final = 0.0005
"""What a dearer depth must find beyond a cheaper one to be taken where neither finds enough."""

MOST_UNSURE: Final = 0.1
"""Of searches for references, the share that may need every cell: with more, the next depth costs less than they do."""

_FOLDER_MODE: Final = 0o755


class IndexTooPoor(BankInvalid):
    """
    No depth reached the least quality; nothing was changed.
    """

    exit_code = EXIT_FOUND


@dataclass(frozen=True, slots=True)
class IndexTools:
    """
    Who makes cells of a bank, who opens it exactly and through the cells that it carries, and what that software is.

    ``unsure`` is for what share of some embeddings, in the worst label, the nearest cells of a bank do not suffice.
    """

    make: Callable[[StoredBank, Progress], SearchCells]
    open_exact: Callable[[StoredBank], Bank]
    open_carried: Callable[[StoredBank], Bank]
    unsure: Callable[[Bank, Sequence[Embedding], int], float]
    built_with: str


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """
    Where the bank goes (in place of the old where ``out`` is None), under which version, and how many queries try it.
    """

    version: str | None = None
    out: Path | None = None
    replace: bool = False
    sample: int = SAMPLE


def index_bank(path: Path, *, plan: IndexPlan, tools: IndexTools, progress: Progress = no_progress) -> StoredBank:
    """
    The same references, and the judgement fitted to them, with an index made for them; in place in one step.

    Raises ``IndexTooPoor`` where no depth finds enough; ``BankInvalid`` where the bank is unsound, ``plan.out`` is
    there already and may not be replaced, or the version would not change; ``CannotStart`` when the disk is full.
    Canaries that lie in the bank go with it: its encoder and views are the same.
    """
    bank = load_bank(path)
    canaries = CANARY_FILES if has_canaries(path) and read_canaries(path, bank.manifest) else ()
    version = changed_version(bank.manifest, plan.version, path)
    target = place_of(plan.out or path)
    if target.exists() and not (plan.replace or plan.out is None):
        raise BankInvalid(refusal(target))
    require_replaceable(target)
    cells = tools.make(bank, progress)
    record = tried(bank, cells, tools=tools, sample=plan.sample, progress=progress)
    manifest = bank.manifest.model_copy(update={"version": version})
    with writing(target), own_folder(target.with_name(f"{target.name}.indexing")) as folder:
        fresh = folder / "bank"
        fresh.mkdir()
        fresh.chmod(_FOLDER_MODE)
        for name in (*manifest.model_copy(update={"search": None}).file_checksums, *canaries):
            link_or_copy(path / name, fresh / name)
        write_cells(fresh, cells)
        sync(fresh / SEARCH)
        files = {SEARCH: sha256_of(fresh / SEARCH)}
        write_manifest(fresh, manifest.model_copy(update={"search": record.model_copy(update={"files": files})}))
        sealed = load_bank(fresh)
        put_in_place(fresh, target, replace=plan.replace or plan.out is None)
    return sealed


def tried(
    bank: StoredBank, cells: SearchCells, *, tools: IndexTools, sample: int, progress: Progress = no_progress
) -> SearchRecord:
    """
    The cheapest depth that finds enough, as the manifest tells it but for the file's hash.

    Half of the queries are references, half are like none; the worse half counts. Raises ``IndexTooPoor`` where no
    depth finds enough.
    """
    exactly = tools.open_exact(replace(bank, search=None))
    depth = default_depth(exactly)
    kinds = (sample_of(bank, (sample + 1) // 2), strangers_of(bank, sample // 2))
    truths = [neighbourhoods(exactly, asked, depth=depth, progress=progress) for asked in kinds]
    del exactly
    best: tuple[SearchRecord, SearchQuality] | None = None
    for number, reach in enumerate(DEPTHS):
        record = _record(bank.manifest, cells, reach, tools.built_with).model_copy(update={"depth": depth})
        carried = replace(bank, manifest=bank.manifest.model_copy(update={"search": record}), search=cells)
        searched = tools.open_carried(carried)
        found = [neighbourhoods(searched, asked, depth=depth) for asked in kinds]
        of_kinds = [compared(truth, one, depth=depth) for truth, one in zip(truths, found, strict=True)]
        quality = of_kinds[0].worse(of_kinds[1])
        progress("trying depths", number + 1, len(DEPTHS))
        if best is None or _worth(quality, best[1]):
            best = record, quality
        if _least(quality) >= ENOUGH and tools.unsure(searched, kinds[0].embeddings, depth) <= MOST_UNSURE:
            break
    if best is None or _least(best[1]) < MIN_SEARCH_QUALITY:
        raise IndexTooPoor(_too_poor(bank.manifest, None if best is None else best[1]))
    record, quality = best
    told = {"recall": quality.recall, "agreement": quality.agreement, "depth": depth, "queries": quality.queries}
    return record.model_copy(update=told)


def _worth(quality: SearchQuality, cheaper: SearchQuality) -> bool:
    """
    Whether what was found is worth a dearer depth.

    Who is unlike the bank is searched further in any case, so that a greater depth may find hardly more.
    """
    found, before = _least(quality), _least(cheaper)
    return found >= ENOUGH or found > before + BETTER or before < MIN_SEARCH_QUALITY <= found


def _least(quality: SearchQuality) -> float:
    return min(quality.recall, quality.agreement)


def _record(manifest: BankManifest, cells: SearchCells, depth: tuple[int, int], built_with: str) -> SearchRecord:
    return SearchRecord(
        cells={label: len(cells.labels[label].centres) for label in cells.labels},
        probes=depth[0],
        pool=depth[1],
        recall=1.0,
        agreement=1.0,
        depth=1,
        queries=1,
        built_with=built_with,
        files={SEARCH: manifest.encoder.id},
    )


def _too_poor(manifest: BankManifest, best: SearchQuality | None) -> str:
    found = "nothing" if best is None else f"recall {best.recall:.4f} and equal decisions {best.agreement:.4f}"
    return (
        f"bank {manifest.id} {manifest.version}: the best index tried reaches {found} against exact search, "
        f"expected {MIN_SEARCH_QUALITY} of each; nothing was changed, and the bank is searched exactly as before"
    )
