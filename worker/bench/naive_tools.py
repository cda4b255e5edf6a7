"""
What both naive loops are made of: the clients and libraries as their manuals open them, with no setting changed.

The loops are ``naive.py`` and ``naive_batched.py``. Nothing here is Touchstone's but the bank's files.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import open_clip
import torch
from kafka import KafkaConsumer, KafkaProducer
from numpy.typing import NDArray
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from PIL import Image
from redis import Redis
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from worker.bank.manifest import ENTRIES, VECTORS

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NaiveJob:
    """
    What a naive loop is told: the topics, where pictures, weights and references lie, and how many go together.
    """

    bootstrap_servers: str
    uploads: str
    verdicts: str
    group_id: str
    redis_url: str
    namespace: str
    file_root: str
    model_folder: str
    bank: str
    k: int
    batch: int
    device: str
    """What the worker's encoder computes on, by torch's name for it."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        The job that ``as_json`` wrote.
        """
        return cls(**json.loads(text))

    def as_json(self) -> str:
        """
        For the command line of the loop's process.
        """
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Embedder:
    """
    open_clip's model in fp32 on a device, and its own transform.
    """

    model: Any
    transform: Callable[[Image.Image], torch.Tensor]
    device: str

    @classmethod
    def load(cls, folder: Path, device: str) -> Self:
        """
        The model of a folder; of its weights the image tower's alone, which is all that pictures need.
        """
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
        tensors = load_file(folder / HF_SAFE_WEIGHTS_NAME)
        visual = {name.removeprefix("visual."): one for name, one in tensors.items() if name.startswith("visual.")}
        model.visual.load_state_dict(visual)
        model.to(device).eval()
        return cls(model, transform, device)

    def tensor_of(self, data: bytes) -> torch.Tensor:
        """
        One picture as the model's input, float32[3, size, size].
        """
        return self.transform(Image.open(io.BytesIO(data)).convert("RGB"))

    def vectors_of(self, tensors: Sequence[torch.Tensor]) -> Vectors:
        """
        Unit vectors, float32[n, dim].
        """
        with torch.no_grad():
            images = torch.stack(list(tensors)).to(self.device)
            features: Vectors = self.model.encode_image(images, normalize=True).cpu().numpy()
        return features


@dataclass(frozen=True, slots=True)
class References:
    """
    The bank in a flat FAISS index, with the label of each row.
    """

    index: Any
    labels: Sequence[str]
    ids: Sequence[str] = field(repr=False)

    @classmethod
    def load(cls, bank: Path) -> Self:
        """
        All references of a bank directory.
        """
        vectors = load_arrays(bank / VECTORS)["vectors"].astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        entries = [json.loads(line) for line in (bank / ENTRIES).read_text(encoding="utf-8").splitlines()]
        return cls(index, [entry["label"] for entry in entries], [entry["id"] for entry in entries])

    def nearest(self, vectors: Vectors, k: int) -> list[list[tuple[str, str, float]]]:
        """
        For each vector the id, the label and the cosine of its k nearest references, nearest first.
        """
        cosines, rows = self.index.search(vectors, min(k, len(self.labels)))
        return [
            [(self.ids[row], self.labels[row], float(cosine)) for row, cosine in zip(found, near, strict=True)]
            for found, near in zip(rows, cosines, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class NaiveTools:
    """
    Everything that a loop holds while it runs.
    """

    job: NaiveJob
    consumer: Any
    producer: Any
    redis: Any
    embedder: Embedder
    references: References

    @classmethod
    def open(cls, job: NaiveJob) -> Self:
        """
        Connect and load. The one setting that is not a default: offsets are committed by the loop, after it has sent.
        """
        consumer = KafkaConsumer(
            job.uploads,
            bootstrap_servers=job.bootstrap_servers,
            group_id=job.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        return cls(
            job,
            consumer,
            KafkaProducer(bootstrap_servers=job.bootstrap_servers),
            Redis.from_url(job.redis_url),
            Embedder.load(Path(job.model_folder), job.device),
            References.load(Path(job.bank)),
        )

    def read(self, event: Any) -> bytes:  # noqa: ANN401 - JSON
        """
        The bytes of an upload's picture.
        """
        path = str(event["image"]["ref"]["path"])
        return (Path(self.job.file_root) / path).read_bytes()


def verdict_of(content_id: str, nearest: Sequence[tuple[str, str, float]]) -> bytes:
    """
    A vote of the nearest references.
    """
    generated = sum(label == "ai_generated" for _, label, _ in nearest)
    score = generated / len(nearest) if nearest else 0.0
    label = "ai_generated" if score > 0.5 else "real"  # noqa: PLR2004 - a majority
    neighbours = [{"id": name, "label": told, "similarity": cosine} for name, told, cosine in nearest]
    verdict = {"content_id": content_id, "label": label, "score": score, "neighbours": neighbours}
    return json.dumps(verdict).encode()
