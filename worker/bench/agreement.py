"""
Whether two encoders judge alike: the same pictures through both, against one bank, under one policy.

Speed is no matter here. The reference is the encoder that is trusted, the candidate one that computes otherwise from
the same weights, in another backend or precision, or is shown pictures that were brought to its input otherwise.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import numpy as np

from worker.bank.fit import MIN_PROBE_COSINE, check_space, embed_probe
from worker.bench.corpus import Kind, picture
from worker.decoders import open_decoder
from worker.domain import ContentHash, Embedding, EncoderFingerprint, Judgement, PreprocessSpec
from worker.encoders import load_encoder
from worker.errors import ConfigInvalid, UploadFailed
from worker.fingerprint import space_of
from worker.flow.bank_judge import BankJudge
from worker.instruments import Beside, open_beside, policy_path, trial_judge
from worker.operation.one_picture import judged_picture
from worker.policy import load_policy
from worker.ports import Encoder, PictureDecoder
from worker.settings.tree import EncoderSettings, Settings
from worker.stages.match import find_neighbours
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import DecodedPicture, ViewSpec
from worker.whole_banks import configured_bank

NAMED: Final = 20
"""Of the verdicts that differ, so many are told one by one."""

Sample = tuple[str, Callable[[], bytes]]
"""A picture: what it is called, and how to come by its bytes."""


@dataclass(frozen=True, slots=True)
class Compared:
    """
    One picture, seen by both: the cosine of its embeddings, and the share of the reference's neighbours found by both.

    These two are of the view of the whole picture; the judgements are of all views that the bank asks for.
    """

    name: str
    cosine: float
    recall: float
    reference: Judgement
    candidate: Judgement

    @property
    def agrees(self) -> bool:
        """
        Whether an upload would have been treated alike.
        """
        return _decision(self.reference) == _decision(self.candidate)

    def told(self) -> dict[str, object]:
        """
        For JSON.
        """
        return {
            "name": self.name,
            "cosine": round(self.cosine, 6),
            "reference": _told(self.reference),
            "candidate": _told(self.candidate),
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """
    All pictures that were compared, and the names of those that could not be. Encoders are told by their precision.

    ``probe_cosine`` is that of the candidate with the bank's probe, by which a worker would take or refuse the bank,
    where it does not refuse it at once: ``preprocessed_alike`` says whether the candidate is shown what the bank's
    references were.
    """

    model: str
    reference: str
    candidate: str
    bank: str
    probe_cosine: float
    compared: Sequence[Compared]
    unreadable: Sequence[str]
    preprocessed_alike: bool = True

    @property
    def agreement(self) -> float:
        """
        The share of pictures on which both come to the same status, label and action, 0 to 1.
        """
        return fmean(one.agrees for one in self.compared)

    def as_object(self) -> dict[str, object]:
        """
        For JSON.
        """
        cosines = [one.cosine for one in self.compared]
        moved = [abs(one.reference.score - one.candidate.score) for one in self.compared]
        flips = [one for one in self.compared if not one.agrees]
        return {
            "model": self.model,
            "reference": self.reference,
            "candidate": self.candidate,
            "bank": self.bank,
            "pictures": len(self.compared),
            "unreadable": len(self.unreadable),
            "agreement": round(self.agreement, 6),
            "flips": len(flips),
            "cosines_and_recall_of": "the view of the whole picture alone",
            "cosine_min": round(min(cosines), 6),
            "cosine_p01": round(float(np.quantile(cosines, 0.01)), 6),
            "cosine_median": round(median(cosines), 6),
            "neighbour_recall": round(fmean(one.recall for one in self.compared), 6),
            "score_moved_median": round(median(moved), 6),
            "score_moved_most": round(max(moved), 6),
            "probe_cosine": round(self.probe_cosine, 6),
            "preprocessed_alike": self.preprocessed_alike,
            "bank_serves_candidate": self.preprocessed_alike and self.probe_cosine >= MIN_PROBE_COSINE,
            "flipped": [one.told() for one in flips[:NAMED]],
        }


def files_below(paths: Iterable[Path], count: int | None) -> list[Sample]:
    """
    The files that are named and all below the folders that are, sorted, hidden ones left out.

    With ``count`` at most so many, spread over all. Raises ``ConfigInvalid`` where there is none.
    """
    files = [file for path in paths for file in (_below(path) if path.is_dir() else [path])]
    if not files:
        raise ConfigInvalid("found no file to compare encoders on; name pictures, or folders that hold some")
    taken = files if count is None or count >= len(files) else [files[at * len(files) // count] for at in range(count)]
    return [(file.name, file.read_bytes) for file in taken]


def drawn(kind: Kind, count: int) -> list[Sample]:
    """
    So many pictures drawn from a seed: they exercise encoders, and look like no photograph.
    """
    return [(f"{kind.name}-{number}", partial(picture, number, kind)) for number in range(count)]


def run_agreement(
    settings: Settings,
    candidate: EncoderSettings,
    samples: Sequence[Sample],
    *,
    progress: Callable[[str, int, int], None],
) -> Agreement:
    """
    Compare the encoder of the settings with the candidate, over the bank and under the policy of the settings.

    Raises ``BankInvalid`` where the reference does not fit the bank, or the candidate's weights are others; and
    ``ConfigInvalid`` where the two are one, or not one picture could be compared.
    """
    whole = configured_bank(settings)
    trusted = load_encoder(settings.encoder, InMemoryRecorder())
    other = load_encoder(candidate, InMemoryRecorder())
    alike = other.fingerprint.preprocess == trusted.fingerprint.preprocess
    check_space(whole.stored.manifest, _shown_as(other.fingerprint, trusted.fingerprint.preprocess))
    if trusted.fingerprint.id == other.fingerprint.id:
        raise ConfigInvalid(
            f"configured and candidate come to one encoder here, {other.fingerprint.precision}: name another backend "
            "or precision, or another --resize, as one encoder always agrees with itself"
        )
    views = whole.stored.views
    decoder = open_decoder(settings, trusted, views)
    others = decoder if alike else open_decoder(settings, other, views)
    beside = Beside(trusted, decoder, load_policy(policy_path(settings.policy)), views)
    judge = trial_judge(open_beside(beside, settings, whole=whole))
    bench = _Bench(judge, trusted, other, views, settings.batch.size)
    compared, unreadable = bench.run(samples, (decoder, others), progress)
    if not compared:
        raise ConfigInvalid(f"none of {len(samples)} files could be compared, such as {unreadable[0]}; name pictures")
    manifest = whole.stored.manifest
    probe = embed_probe(whole.stored.probe_png, other, others)
    return Agreement(
        model=trusted.fingerprint.model,
        reference=trusted.fingerprint.precision,
        candidate=other.fingerprint.precision,
        bank=f"{manifest.id} {manifest.version}",
        probe_cosine=_cosine(probe, Embedding.from_features(whole.stored.probe)),
        compared=compared,
        unreadable=unreadable,
        preprocessed_alike=alike,
    )


def _shown_as(fingerprint: EncoderFingerprint, preprocess: PreprocessSpec) -> EncoderFingerprint:
    """
    The encoder as it would be with another preprocessing: its id is not told anew.
    """
    space = space_of(fingerprint.architecture_sha256, fingerprint.weights_sha256, preprocess)
    return replace(fingerprint, preprocess=preprocess, space=space)


@dataclass(frozen=True, slots=True)
class _Bench:
    judge: BankJudge
    reference: Encoder
    candidate: Encoder
    views: ViewSpec
    batch_size: int

    def run(
        self,
        samples: Sequence[Sample],
        decoders: tuple[PictureDecoder, PictureDecoder],
        progress: Callable[[str, int, int], None],
    ) -> tuple[list[Compared], list[str]]:
        """
        Each sample, decoded for the reference and for the candidate; one decoder for both is asked once.
        """
        decoder, others = decoders
        compared, unreadable = [], []
        for number, (name, read) in enumerate(samples, 1):
            data = read()
            try:
                content = ContentHash(hashlib.sha256(data).hexdigest())
                decoded = decoder.decode(data, content)
                compared.append(
                    self._compared(name, decoded, decoded if others is decoder else others.decode(data, content))
                )
            except UploadFailed as fault:
                unreadable.append(f"{name} ({fault.code})")
            progress("pictures", number, len(samples))
        return compared, unreadable

    def _compared(self, name: str, *decoded: DecodedPicture) -> Compared:
        """
        Of a picture as decoded for the reference, and for the candidate.
        """
        shown = list(zip((self.reference, self.candidate), decoded, strict=True))
        judged = [
            judged_picture(one, self.judge, encoder, views=self.views, batch_size=self.batch_size)
            for encoder, one in shown
        ]
        embeddings = [Embedding.from_features(encoder.encode([one.pixels])[0]) for encoder, one in shown]
        near = find_neighbours(self.judge.bank, embeddings, k=self.judge.policy.rule.k)
        found = [{one.entry.id for each in hood.nearest.values() for one in each} for hood in near]
        recall = len(found[0] & found[1]) / len(found[0]) if found[0] else 1.0
        return Compared(name, _cosine(*embeddings), recall, *judged)


def _below(folder: Path) -> Iterator[Path]:
    for within, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(within, name) for name in sorted(names) if not name.startswith("."))


def _cosine(left: Embedding, right: Embedding) -> float:
    one, other = left.vector.astype(np.float64), right.vector.astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _decision(judgement: Judgement) -> tuple[Any, ...]:
    return (judgement.status, judgement.label, judgement.action)


def _told(judgement: Judgement) -> dict[str, object]:
    return {
        "status": judgement.status,
        "label": judgement.label,
        "action": judgement.action,
        "score": round(judgement.score, 6),
    }
