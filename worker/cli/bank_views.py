"""
What the bank commands show: the same facts as an object for machines and as lines for people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from worker.bank.assemble import BuildReport
from worker.bank.describe import Description, LabelSummary
from worker.bank.manifest import BankManifest
from worker.bank.survey import Skipped
from worker.bank.verify import Verification
from worker.cli.scan import plain

_NAMED: Final = 10


def report_object(report: BuildReport, description: Description) -> dict[str, Any]:
    """
    What ``bank build --json`` and ``bank add --json`` print.
    """
    manifest = report.bank.manifest
    return {
        "path": str(report.path),
        "id": manifest.id,
        "version": manifest.version,
        "manifest_sha256": report.bank.manifest_sha256,
        "counts": manifest.counts.model_dump(),
        "added": report.added,
        "reused": report.reused,
        "ignored": report.ignored,
        "duplicates": [{"name": name, "same_as": first} for name, first in report.duplicates],
        "skipped": [asdict(skipped) for skipped in report.skipped],
        "views": manifest.views.model_dump(),
        "judgement": None if manifest.judgement is None else manifest.judgement.model_dump(),
        "balance": {label: _balance(summary) for label, summary in description.labels.items()},
        "giveaways": dict(description.giveaways),
        "warnings": list(description.warnings),
    }


def show_report(report: BuildReport, description: Description, taught: Sequence[str] = ()) -> None:
    """
    The outcome of a build for people; what was left out is named, and ``taught`` told, on the same screen.
    """
    manifest = report.bank.manifest
    per_label = ", ".join(f"{count} {label}" for label, count in manifest.counts.per_label.items())
    lines = [
        f"bank {manifest.id} {manifest.version} at {report.path}: {manifest.counts.entries} references ({per_label})"
    ]
    if report.reused:
        lines.append(f"{report.reused} embeddings were there from an earlier run")
    if report.duplicates:
        lines.append(f"{len(report.duplicates)} repeated images were taken once")
        lines += [f"  {name} is {first}" for name, first in report.duplicates[:_NAMED]]
    if report.skipped:
        lines += _skipped_lines(report.skipped)
    if report.ignored:
        lines.append(f"{report.ignored} files are no images by their ending and were left alone")
    if max(len(report.duplicates), len(report.skipped)) > _NAMED:
        lines.append(f"(the first {_NAMED} of each; --json names all)")
    lines += [_balance_line(label, summary) for label, summary in description.labels.items()]
    lines += [f"warning: {warning}" for warning in description.warnings]
    lines += [*_judgement_lines(report), *_index_lines(report), *taught]
    _print_lines(lines)


def refusal_object(message: str, skipped: Sequence[Skipped]) -> dict[str, Any]:
    """
    What ``bank build --json`` prints when too many references were unusable.
    """
    return {"path": None, "error": message, "skipped": [asdict(one) for one in skipped]}


def show_refusal(skipped: Sequence[Skipped]) -> None:
    """
    What was unusable, for people; the message itself is the command's.
    """
    _print_lines(_skipped_lines(skipped))


def description_object(description: Description) -> dict[str, Any]:
    """
    What ``bank inspect --json`` prints.
    """
    return {
        "manifest": description.manifest.model_dump(mode="json"),
        "manifest_sha256": description.manifest_sha256,
        "disk_bytes": description.disk_bytes,
        "labels": {label: asdict(summary) for label, summary in description.labels.items()},
        "giveaways": dict(description.giveaways),
        "warnings": list(description.warnings),
    }


def show_description(description: Description) -> None:
    """
    A bank at a glance for people.
    """
    _print_lines(_heading(description))
    for label, summary in description.labels.items():
        _print_lines([f"{label}: {summary.entries} references", *_about(summary)])
    _print_lines([f"{name} alone tells the labels apart: {value:.2f}" for name, value in description.giveaways.items()])
    _print_lines([f"warning: {warning}" for warning in description.warnings])


def verification_object(path: Path, verification: Verification) -> dict[str, Any]:
    """
    What ``bank verify --json`` prints.
    """
    return {"path": str(path), "sound": not verification.findings, **asdict(verification)}


def show_verification(path: Path, verification: Verification) -> None:
    """
    One line per finding, or one that says what was found in order.
    """
    measured = {
        "recall": verification.recall,
        "self-retrieval": verification.self_retrieval,
        "native recall": verification.native_recall,
        "probe cosine": verification.probe_cosine,
    }
    said = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if value is not None)
    lines = [f"{finding.check}: {finding.message}" for finding in verification.findings]
    if not lines:
        lines = [f"{path} is sound: {', '.join(verification.checks)}"]
    lines += [f"warning: {warning}" for warning in verification.warnings]
    if verification.near_duplicates_within_source:
        lines.append(f"{verification.near_duplicates_within_source} pairs of near duplicates lie within one source")
    _print_lines([*lines, *([said] if said else [])])


def _judgement_lines(report: BuildReport) -> list[str]:
    judgement = report.bank.manifest.judgement
    if judgement is not None:
        return [f"judgement {judgement.id[:12]}, fitted to these references by version {judgement.version}"]
    if report.judgement_dropped:
        lost = "the bank's judgement was fitted to other references, so this version has none"
        return [f"{lost}; fit one with `touchstone fit {report.path}`"]
    return []


def _index_lines(report: BuildReport) -> list[str]:
    if not report.index_dropped:
        return []
    lost = "the bank's approximate index is of its earlier references, so this version has none and is searched exactly"
    return [f"{lost}; make one with `touchstone bank index {report.path}`"]


def _balance(summary: LabelSummary) -> dict[str, Any]:
    return {
        "formats": {name: count / summary.entries for name, count in summary.formats.items()},
        "short_side_px": None if summary.short_side_px is None else summary.short_side_px[1],
    }


def _balance_line(label: str, summary: LabelSummary) -> str:
    shares = {name: f"{count / summary.entries:.0%}" for name, count in summary.formats.items()}
    side = "unknown" if summary.short_side_px is None else f"{summary.short_side_px[1]} px"
    return f"{label}: {', '.join(f'{name} {share}' for name, share in shares.items())}; median short side {side}"


def _skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    named = [f"  {one.name}: {one.code}: {one.detail}" for one in skipped[:_NAMED]]
    return [f"{len(skipped)} images could not be used", *named]


def _heading(description: Description) -> list[str]:
    manifest, encoder, preprocess = description.manifest, description.manifest.encoder, description.manifest.preprocess
    built = f"{description.disk_bytes / 1e6:.1f} MB, built {manifest.created_at:%Y-%m-%d %H:%M} by {manifest.built_by}"
    weights = f"{encoder.dim} dimensions, weights {encoder.weights_sha256[:12]}, space {encoder.space[:12]}"
    sizing = f"{preprocess.resize_mode}, {preprocess.interpolation}, {preprocess.sha256[:12]}"
    return [
        f"bank {manifest.id} {manifest.version}, {manifest.counts.entries} references, {built}",
        f"question {' / '.join(manifest.question.labels)}, score speaks of {manifest.question.positive}",
        f"manifest {description.manifest_sha256}",
        f"encoder {encoder.model}, {encoder.precision}, {weights}",
        f"preprocess {preprocess.size} px, {sizing}",
        f"views {_views(manifest)}",
        f"judgement {_judgement(manifest)}",
    ]


def _views(manifest: BankManifest) -> str:
    views = manifest.views
    parts = ["global", f"{views.native_crops} native crops" if views.native_crops else ""]
    parts += ["realism" if views.realism else "", "perturbation" if views.perturbation else ""]
    parts.append("" if views.max_side_px is None else f"at most {views.max_side_px} px a side")
    parts.append("" if views.reencode_quality is None else f"through JPEG of quality {views.reencode_quality}")
    return f"{', '.join(part for part in parts if part)}, {views.sha256[:12]}"


def _judgement(manifest: BankManifest) -> str:
    judgement = manifest.judgement
    return "none fitted" if judgement is None else f"{judgement.id}, version {judgement.version}"


def _about(summary: LabelSummary) -> list[str]:
    kilobytes = None if summary.file_bytes is None else tuple(round(size / 1000) for size in summary.file_bytes)
    return [
        f"  generators  {_counts(summary.generators)}",
        f"  formats     {_counts(summary.formats)}",
        f"  licences    {_counts(summary.licences)}",
        f"  short side  {_quartiles(summary.short_side_px)} px (quartiles)",
        f"  file size   {_quartiles(kilobytes)} kB (quartiles)",
    ]


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:_NAMED]]
    return ", ".join(shown) + (f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else "") or "-"


def _quartiles(values: tuple[int, ...] | None) -> str:
    return "unknown" if values is None else " / ".join(str(value) for value in values)


def _print_lines(lines: list[str]) -> None:
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(plain(line))
