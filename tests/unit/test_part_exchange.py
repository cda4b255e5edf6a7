"""
What a build and its actors say to each other: it arrives as it was sent, and nothing else is believed.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.bank_builders import a_source
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.manifest import GENERATED
from worker.bank.part_exchange import Answer, answer_of, asked_text, read_answer, read_asked
from worker.bank.sources import Reference, list_source
from worker.bank.survey import Surveyed, survey
from worker.bank.workshop import Workshop
from worker.domain import ContentHash, Label
from worker.errors import WorkerCrashed
from worker.views import ViewSpec

VIEWS = ViewSpec(native_crops=2, realism=True, perturbation=True)


def asked_of(source: Path) -> list[Surveyed]:
    """
    All references of a source, surveyed.
    """
    return list(survey(list_source(source, GENERATED)).unique)


def changed(answer: Answer, change: Callable[[dict[str, Any]], object]) -> Answer:
    """
    The answer with its facts changed.
    """
    facts = json.loads(answer.facts)
    change(facts)
    return replace(answer, facts=json.dumps(facts))


@pytest.fixture
def asked(tmp_path: Path) -> list[Surveyed]:
    """
    Four references, the last of which is no picture.
    """
    source = a_source(tmp_path / "source", reals=2, fakes=1)
    (source / "real/none.png").write_bytes(b"no picture")
    return asked_of(source)


@pytest.fixture
def embedder() -> ReferenceEmbedder:
    """
    One that looks at everything.
    """
    return fake_embedder(views=VIEWS)


@pytest.fixture
def answer(asked: list[Surveyed], embedder: ReferenceEmbedder) -> Answer:
    """
    What an actor answers to them.
    """
    (part,) = embedder.parts(asked)
    return answer_of(part, embedder)


def test_references_arrive_whatever_their_names() -> None:
    """
    Also those whose names are no UTF-8, or have line ends; a relative path is made absolute.
    """
    odd = os.fsdecode(b"caf\xe9\n\xff.png")
    sent = Surveyed(Reference(Path(odd), odd, Label("real")), ContentHash("ab" * 32))
    text = asked_text([sent])
    (arrived,) = read_asked(text)

    assert text.isascii()
    assert (odd, Path.cwd() / odd) == (arrived.reference.name, arrived.reference.path)
    assert (sent.content_hash, "real") == (arrived.content_hash, arrived.reference.label)


def test_an_answer_is_kept_as_a_build_here_keeps_it(
    asked: list[Surveyed], embedder: ReferenceEmbedder, answer: Answer, tmp_path: Path
) -> None:
    """
    Through the messages and into the workshop: the same file, bit for bit, and the same skipped reference.
    """
    (part,) = embedder.parts(asked)
    arrived = read_answer(answer, asked, embedder)
    files = []
    for name, finished in (("here", part.finished), ("sent", arrived.finished)):
        with Workshop(tmp_path / name, embedder.encoder.fingerprint, views=VIEWS, restart=False) as workshop:
            workshop.keep(finished)
        files.append((tmp_path / f"{name}.partial/part-000000.safetensors").read_bytes())

    assert files[0] == files[1]
    assert (4, part.skipped) == (arrived.references, arrived.skipped)
    assert ["real/none.png"] == [one.name for one in arrived.skipped]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda facts: facts.update(encoder_id="ff" * 32), "made by encoder f+, expected"),
        (lambda facts: facts["records"].reverse(), None),
        (lambda facts: facts["records"].pop(), "vectors is float16"),
        (lambda facts: facts["records"][0].update(content_hash="00" * 32), "for other references than the 4"),
        (lambda facts: facts["records"][0].update(width="40"), "valid integer"),
        (lambda facts: facts["skipped"].clear(), "for other references than the 4"),
        (lambda facts: facts["skipped"].append(facts["skipped"][0]), "for other references than the 4"),
        (lambda facts: facts["skipped"][0].update(code="NO_SUCH_CODE"), "NO_SUCH_CODE"),
        (lambda facts: facts.update(more=1), "not permitted"),
    ],
)
def test_other_facts_are_refused(
    asked: list[Surveyed],
    embedder: ReferenceEmbedder,
    answer: Answer,
    change: Callable[[dict[str, Any]], object],
    said: str | None,
) -> None:
    """
    One result for each reference that was asked for, by this encoder and with a known reason: anything else ends it.

    Only the order is free: which row is whose is said by the records.
    """
    other = changed(answer, change)
    if said is None:
        assert {one.content_hash for one in asked[:3]} >= set(read_answer(other, asked, embedder).finished)
        return

    with pytest.raises(WorkerCrashed, match=f"an actor's answer for fake/mill/000.png and those.*{said}"):
        read_answer(other, asked, embedder)


def _longer(columns: dict[str, Any]) -> None:
    columns["vectors"] = columns["vectors"] * np.float16(2)


def _infinite(columns: dict[str, Any]) -> None:
    columns["norms"] = np.full_like(columns["norms"], np.inf)


def _wide(columns: dict[str, Any]) -> None:
    columns["vectors"] = columns["vectors"].astype(np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_longer, "vectors are not of norm 1"),
        (_infinite, "norms are not finite"),
        (_wide, "vectors is float32"),
        (lambda columns: columns.pop("shift"), "shift is missing"),
    ],
)
def test_other_numbers_are_refused(
    asked: list[Surveyed],
    embedder: ReferenceEmbedder,
    answer: Answer,
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    """
    Columns of another shape, or that no reference could have measured, are not kept.
    """
    columns = load(answer.tensors)
    change(columns)

    with pytest.raises(WorkerCrashed, match=said):
        read_answer(replace(answer, tensors=save(columns)), asked, embedder)


@pytest.mark.parametrize("tensors", [b"", b"\x80\x04pickled", b"\xff" * 64])
def test_what_is_no_tensor_file_is_refused(
    asked: list[Surveyed], embedder: ReferenceEmbedder, answer: Answer, tensors: bytes
) -> None:
    """
    Bytes of any other kind are told as such, and nothing in them is run.
    """
    with pytest.raises(WorkerCrashed, match="is not usable"):
        read_answer(replace(answer, tensors=tensors), asked, embedder)


def test_an_answer_of_other_views_is_refused(asked: list[Surveyed], answer: Answer) -> None:
    """
    Statistics that the bank does not ask for say that the actor looked otherwise.
    """
    plain = fake_embedder(FakeEncoder(), views=ViewSpec(native_crops=2))

    with pytest.raises(WorkerCrashed, match="although the views of the bank do not measure it"):
        read_answer(answer, asked, plain)
