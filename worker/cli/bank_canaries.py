"""
The canaries of a release that is about to be published: embedded, written, and judged by the bank as a worker would.

What the command prints and when it refuses is in ``worker.cli.bank_releases``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.embedders import open_embedder
from worker.cli.progress_bars import progress_bars
from worker.errors import BankInvalid
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.canary_files import Canary
    from worker.bank.embedding import ReferenceEmbedder


@dataclass(frozen=True, slots=True)
class TriedCanaries:
    """
    The files by name, how many canaries are in them, and the refusal that a worker would give; None where it would not.

    ``right`` of them were judged as expected; None where they were not judged.
    """

    files: dict[str, Path]
    total: int
    right: int | None = None
    refusal: str | None = None


def made_canaries(
    bank: Path, source: Path, folder: Path, settings: Settings, *, judged: bool, shown: bool
) -> TriedCanaries:
    """
    The canaries of ``source`` in a folder, with the configured encoder, and what the bank makes of them if ``judged``.

    Judged is by the configured policy, and held against ``bank.canary_agreement``. Raises ``BankInvalid`` for a bank or
    a picture that cannot be used, ``ConfigInvalid`` for a policy that does not fit.
    """
    from worker.bank.canary_files import embed_canaries, write_canaries  # noqa: PLC0415 - numpy; --help needs none
    from worker.bank.files import load_bank  # noqa: PLC0415 - likewise
    from worker.bank.fit import check_fit  # noqa: PLC0415 - likewise
    from worker.bank.sources import list_source  # noqa: PLC0415 - likewise

    stored = load_bank(bank, settings.bank.trusted_keys)
    listing = list_source(source, stored.manifest.question)
    embedder = open_embedder(settings, stored.views)
    check_fit(stored, embedder.encoder, embedder.decoder)
    with progress_bars(shown=shown) as progress:
        canaries = embed_canaries(listing, embedder, progress)
    files = write_canaries(folder, canaries, stored.manifest)
    if not judged:
        return TriedCanaries(files, len(canaries))
    right, refusal = _tried(bank, canaries, embedder, settings)
    return TriedCanaries(files, len(canaries), right, refusal)


def _tried(
    bank: Path, canaries: "Sequence[Canary]", embedder: "ReferenceEmbedder", settings: Settings
) -> tuple[int, str | None]:
    from worker.bank.leaving_out import Without  # noqa: PLC0415 - numpy; --help needs none
    from worker.instruments import Beside, open_release, policy_path, trial_judge  # noqa: PLC0415 - FAISS
    from worker.operation.canaries import canary_misses, require_agreement  # noqa: PLC0415 - numpy
    from worker.policy import load_policy  # noqa: PLC0415 - pydantic models
    from worker.whole_banks import read_bank  # noqa: PLC0415 - likewise

    beside = Beside(embedder.encoder, embedder.decoder, load_policy(policy_path(settings.policy)), embedder.views)
    misses = canary_misses(trial_judge(open_release(beside, settings, read_bank(bank), Without())), canaries)
    try:
        require_agreement(misses, len(canaries), agreement=settings.bank.canary_agreement)
    except BankInvalid as refusal:
        return len(canaries) - len(misses), str(refusal)
    return len(canaries) - len(misses), None
