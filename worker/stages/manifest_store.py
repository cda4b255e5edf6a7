"""
What a C2PA manifest store says of a picture's origin, from the JSON that a validating reader makes of it.

The reader's word on the active manifest is taken; what an ingredient's manifest says counts only where that one held
too, which the reader's overall state does not tell. Validating is ``worker/adapters/content_credentials.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from schemas.verdict import ContentCredentials
from worker.stages.provenance import PART, WHOLE, term_of

State = Literal["invalid", "valid", "trusted"]

MAX_MANIFESTS: Final = 64
"""So many manifests of ingredients are looked at, each once; an honest history of editing has fewer."""

_STATES: Final[dict[str, State]] = {"Valid": "valid", "Trusted": "trusted"}
_UNTRUSTED: Final = "signingCredential.untrusted"
_TRUSTED: Final = "signingCredential.trusted"
_OF_THE_WHOLE: Final = ("c2pa.created", "c2pa.opened")
_MAX_TEXT: Final = 256
_COMPOSITE: Final = "composite"
_COMPOSITE_WITH_TRAINED: Final = "compositeWithTrainedAlgorithmicMedia"
_COMPOSITE_SYNTHETIC: Final = "compositeSynthetic"


@dataclass(frozen=True, slots=True)
class _Said:
    """
    A digital source type, and the labels of the ingredients' manifests that it rests on.
    """

    term: str | None
    through: frozenset[str] = frozenset()

    @property
    def generated(self) -> bool:
        return self.term in WHOLE or self.term in PART


class _Store:
    """
    The manifests of one file, and what the reader found out about those of the ingredients.
    """

    def __init__(self, store: Mapping[str, Any]) -> None:
        self.manifests = _mapping(store.get("manifests"))
        self._broken: set[str] = set()
        self._trusted: set[str] = set()
        for recorded in self._recorded():
            self._learn(recorded)
        # The reader's own findings come last: they are told only where they differ from what was recorded.
        for delta in _mappings(_mapping(store.get("validation_results")).get("ingredientDeltas")):
            self._learn(_mapping(delta.get("validationDeltas")))

    def holds(self, label: str) -> bool:
        return label in self.manifests and label not in self._broken

    def trusts(self, labels: frozenset[str]) -> bool:
        return labels <= self._trusted

    def _recorded(self) -> Iterator[Mapping[str, Any]]:
        for manifest in self.manifests.values():
            for ingredient in _mappings(_mapping(manifest).get("ingredients")):
                results = _mapping(ingredient.get("validation_results"))
                yield _mapping(results.get("activeManifest"))
                for delta in _mappings(results.get("ingredientDeltas")):
                    yield _mapping(delta.get("validationDeltas"))
                # Claims of version 1 recorded failures only, in one list.
                yield {"failure": ingredient.get("validation_status")}

    def _learn(self, codes: Mapping[str, Any]) -> None:
        for status in _mappings(codes.get("success")):
            if status.get("code") == _TRUSTED:
                self._trusted.add(_label_in(status.get("url")))
        for status in _mappings(codes.get("failure")):
            label = _label_in(status.get("url"))
            if status.get("code") == _UNTRUSTED:
                self._trusted.discard(label)
            else:
                self._broken.add(label)


def credentials_of(store: Mapping[str, Any]) -> ContentCredentials:
    """
    The credentials of a file whose manifest store could be read.

    ``digital_source_type`` is that of the active manifest's actions, or of the manifest of the picture that it was
    opened from; ``compositeSynthetic`` where the active one says ``composite`` and one of its components was made by a
    trained model; ``compositeWithTrainedAlgorithmicMedia`` where only an editing action says that a model was used.
    State ``trusted`` needs every signer on that way to be trusted. Of an invalid one nothing but the state is told.
    Known hole: what other assertions say, such as IPTC metadata inside a manifest, is not looked at.
    """
    state = _STATES.get(str(store.get("validation_state")), "invalid")
    found = _Store(store)
    label = store.get("active_manifest")
    if state == "invalid" or not isinstance(label, str) or label not in found.manifests:
        return ContentCredentials(state="invalid")
    said = _said_by(found, label, seen={label})
    manifest = _mapping(found.manifests[label])
    return ContentCredentials(
        state=state if found.trusts(said.through) else "valid",
        digital_source_type=said.term,
        issuer=_printable(_mapping(manifest.get("signature_info")).get("issuer")),
        claim_generator=_claim_generator(manifest),
    )


def _said_by(store: _Store, label: str, *, seen: set[str]) -> _Said:
    manifest = _mapping(store.manifests[label])
    said = list(_terms(manifest))
    first = _first_term(said)
    own = _own_word(said)
    if own.generated:
        return own
    parents = list(_of_ingredients(store, manifest, "parentOf", seen=seen))
    if generated := [parent for parent in parents if parent.generated]:
        return generated[0]
    if any(term == _COMPOSITE for _, term in said):
        for part in _of_ingredients(store, manifest, "componentOf", seen=seen):
            if part.generated:
                return replace(part, term=_COMPOSITE_SYNTHETIC)
    known = [parent for parent in parents if parent.term is not None]
    return _Said(first) if first is not None or not known else known[0]


def _own_word(said: Sequence[tuple[str, str]]) -> _Said:
    """
    What a manifest's own actions say of a trained model; no term where they say nothing of one.
    """
    for action, term in said:
        if term in WHOLE and action in _OF_THE_WHOLE:
            return _Said(term)
    for _, term in said:
        if term in PART:
            return _Said(term)
    used = any(term in WHOLE for _, term in said)
    return _Said(_COMPOSITE_WITH_TRAINED if used else None)


def _first_term(said: Sequence[tuple[str, str]]) -> str | None:
    of_the_whole = [term for action, term in said if action in _OF_THE_WHOLE]
    return next(iter([*of_the_whole, *(term for _, term in said)]), None)


def _terms(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """
    The actions of a manifest that name a digital source type, each with its term, in order.
    """
    for assertion in _mappings(manifest.get("assertions")):
        # c2pa.actions, c2pa.actions.v2, and with __1 and so on behind where there are several.
        if not str(assertion.get("label")).startswith("c2pa.actions"):
            continue
        for action in _mappings(_mapping(assertion.get("data")).get("actions")):
            term = term_of(action.get("digitalSourceType"))
            if term is not None:
                yield str(action.get("action")), term


def _of_ingredients(
    store: _Store, manifest: Mapping[str, Any], relationship: str, *, seen: set[str]
) -> Iterator[_Said]:
    for ingredient in _mappings(manifest.get("ingredients")):
        label = ingredient.get("active_manifest")
        if ingredient.get("relationship") != relationship or not isinstance(label, str) or label in seen:
            continue
        if store.holds(label) and len(seen) <= MAX_MANIFESTS:
            seen.add(label)
            said = _said_by(store, label, seen=seen)
            yield replace(said, through=said.through | {label})


def _label_in(url: object) -> str:
    # After /c2pa/ comes the label of the manifest, and then the box in it.
    return str(url).partition("/c2pa/")[2].split("/")[0]


def _claim_generator(manifest: Mapping[str, Any]) -> str | None:
    for program in _mappings(manifest.get("claim_generator_info")):
        named = " ".join(str(program[key]) for key in ("name", "version") if program.get(key))
        return _printable(named)
    return _printable(manifest.get("claim_generator"))


def _printable(text: object) -> str | None:
    if not isinstance(text, str):
        return None
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)[:_MAX_TEXT] or None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
