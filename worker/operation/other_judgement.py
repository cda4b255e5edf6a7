"""
A bank's references under another judgement that was fitted to them: candidate heads without a bank of their own.

How a judgement is fitted and written is ``worker.fitting.bank_fit``; who judges by it is ``shadowing.py``.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker.bank.files import read_manifest
from worker.bank.manifest import BankManifest, manifest_sha256
from worker.errors import BankInvalid, ConfigInvalid
from worker.instruments import Instruments
from worker.whole_banks import WholeBank, judgement_of

FITTED_TO: Final = {"question", "counts", "encoder", "preprocess", "views"}
"""What of a manifest, beside the references' own files, a judgement depends on."""


def judged_by(whole: WholeBank, folder: Path, trusted: Collection[str] = ()) -> WholeBank:
    """
    The same references, read already, under the judgement in a folder that ``touchstone fit --out`` left.

    Of the folder only ``manifest.json`` with its checksum and signature and the judgement's two files are read; the
    manifest says to which references it was fitted, and names the result in verdicts. Raises ``BankInvalid`` where
    there is no judgement, where it is damaged, where none of the ``trusted`` keys signed it, and where it was fitted to
    other references, another encoder or other views.
    """
    remedy = f"run `touchstone fit BANK --out {folder}` over the live bank"
    if not folder.is_dir():
        raise BankInvalid(f"{folder}: found no directory, expected a fitted judgement; {remedy}")
    manifest, live = read_manifest(folder, trusted), whole.stored.manifest
    if manifest.judgement is None:
        raise BankInvalid(f"{folder}: its manifest names no judgement, expected a fitted one; {remedy}")
    if differing := list(_differing(live, manifest)):
        raise BankInvalid(
            f"{folder}: its judgement was fitted to bank {manifest.id} {manifest.version}, which is not made of the "
            f"references of the live bank {live.id} {live.version}: {'; '.join(differing)}. For heads over these "
            f"references {remedy}; a bank of other references is named by shadow.bank_path"
        )
    stored = replace(whole.stored, manifest=manifest, manifest_sha256=manifest_sha256(manifest))
    return WholeBank(stored, judgement_of(stored, folder))


def require_asked(candidate: Instruments) -> None:
    """
    Refuse a policy by which the candidate's judgement would say nothing. Raises ``ConfigInvalid``.
    """
    if candidate.fitted is None:
        policy = candidate.policy
        raise ConfigInvalid(
            f"policy {policy.id} {policy.version} has rule.name {policy.rule.name}, which asks no judgement; expected "
            "auto or fused. Set it, or name another policy with shadow.policy_path"
        )


def _differing(live: BankManifest, fitted: BankManifest) -> Iterator[str]:
    for name, digest in live.checksums.items():
        if fitted.checksums[name] != digest:
            yield f"{name} has sha256 {fitted.checksums[name]}, expected {digest}"
    found = fitted.model_dump(mode="json", include=FITTED_TO)
    for part, fields in live.model_dump(mode="json", include=FITTED_TO).items():
        for name, value in fields.items():
            if found[part][name] != value:
                yield f"{part}.{name} is {found[part][name]}, expected {value}"
