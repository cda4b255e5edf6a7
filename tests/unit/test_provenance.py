"""
What credentials and plain metadata say of a generator, and which of it is believed.
"""

from typing import Any, Literal

import pytest

from schemas.verdict import ContentCredentials
from worker.stages.manifest_store import MAX_MANIFESTS, credentials_of
from worker.stages.provenance import DecideOn, Extent, asserts_generated, term_of
from worker.stages.unsigned_metadata import MAX_PACKET_BYTES, unsigned_digital_source_type

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
Spoken = dict[str, Any]


def credentials(state: Literal["invalid", "valid", "trusted"], term: str | None) -> ContentCredentials:
    """
    Credentials in this state that say this.
    """
    return ContentCredentials(state=state, digital_source_type=term)


@pytest.mark.parametrize(
    ("term", "extent"),
    [
        ("trainedAlgorithmicMedia", "whole"),
        (IPTC + "trainedAlgorithmicMedia", "whole"),
        ("compositeWithTrainedAlgorithmicMedia", "part"),
        ("compositeSynthetic", "part"),
        ("composite", None),
        ("algorithmicMedia", None),
        ("trainedAlgorithmicData", None),
        ("digitalCapture", None),
        (None, None),
    ],
)
def test_which_terms_say_generated(term: str | None, extent: Extent | None) -> None:
    """
    All of the picture, a part of it, or nothing of the kind.
    """
    assert asserts_generated(credentials("valid", term), "valid") == extent


@pytest.mark.parametrize(
    ("state", "decide_on", "believed"),
    [
        ("invalid", "valid", False),
        ("invalid", "trusted", False),
        ("valid", "valid", True),
        ("valid", "trusted", False),
        ("valid", "never", False),
        ("trusted", "valid", True),
        ("trusted", "trusted", True),
        ("trusted", "never", False),
    ],
)
def test_which_credentials_are_believed(
    state: Literal["invalid", "valid", "trusted"], decide_on: DecideOn, *, believed: bool
) -> None:
    """
    Those that are at least as good as the policy asks.
    """
    found = asserts_generated(credentials(state, "trainedAlgorithmicMedia"), decide_on)

    assert found == ("whole" if believed else None)


def test_unsigned_metadata_and_absence_are_never_believed() -> None:
    """
    Anybody can write the one and bring about the other.
    """
    hint = ContentCredentials(state=None, unsigned_digital_source_type="trainedAlgorithmicMedia")

    assert asserts_generated(hint, "valid") is None
    assert asserts_generated(None, "valid") is None


@pytest.mark.parametrize(
    ("address", "term"),
    [
        (IPTC + "digitalCapture", "digitalCapture"),
        ("http://c2pa.org/digitalsourcetype/trainedAlgorithmicData/", "trainedAlgorithmicData"),
        (" composite ", "composite"),
        ("http://c2pa.org/\x1b[31m", None),
        ("", None),
        ("x" * 65, None),
        (7, None),
    ],
)
def test_terms_of_addresses(address: object, term: str | None) -> None:
    """
    The last part of an address, if it is a word that a terminal and a log can hold.
    """
    assert term_of(address) == term


@pytest.mark.parametrize(
    "property_",
    [
        f'Iptc4xmpExt:DigitalSourceType="{IPTC}trainedAlgorithmicMedia"',
        f"Iptc4xmpExt:DigitalSourceType = '{IPTC}trainedAlgorithmicMedia'",
        f"><Iptc4xmpExt:DigitalSourceType>{IPTC}trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType",
        f'><Iptc4xmpExt:DigitalSourceType rdf:resource="{IPTC}trainedAlgorithmicMedia"/',
        "><Iptc4xmpExt:DigitalSourceType>\n trainedAlgorithmicMedia\n</Iptc4xmpExt:DigitalSourceType",
    ],
)
def test_plain_xmp(property_: str) -> None:
    """
    An attribute, an element's text or a resource, as writers have it.
    """
    packet = f"noise<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description {property_}></x:xmpmeta>noise"

    assert unsigned_digital_source_type(packet.encode()) == "trainedAlgorithmicMedia"


@pytest.mark.parametrize(
    "data",
    [
        f'Iptc4xmpExt:DigitalSourceType="{IPTC}composite"',
        f'<x:xmpmeta></x:xmpmeta>Iptc4xmpExt:DigitalSourceType="{IPTC}composite"',
        '<x:xmpmeta Iptc4xmpExt:DigitalSourceType="&entity;">',
        f'<x:xmpmeta{" " * MAX_PACKET_BYTES}Iptc4xmpExt:DigitalSourceType="composite"',
    ],
    ids=["no packet", "after the packet", "an entity", "too far in"],
)
def test_what_is_no_plain_xmp(data: str) -> None:
    """
    Nothing outside a packet, nothing that would have to be expanded, and nothing beyond the limit.
    """
    assert unsigned_digital_source_type(data.encode()) is None


def manifest(*actions: tuple[str, str | None], **ingredients: str) -> Spoken:
    """
    A manifest with these actions and source types; ``ingredients`` are labels of others, by their relationship.
    """
    spoken = [
        {"action": name} if term is None else {"action": name, "digitalSourceType": IPTC + term}
        for name, term in actions
    ]
    return {
        "assertions": [{"label": "c2pa.actions.v2__1", "data": {"actions": spoken}}],
        "ingredients": [{"relationship": way, "active_manifest": label} for way, label in ingredients.items()],
    }


def said(active: Spoken, **others: Spoken) -> str | None:
    """
    The source type of a file with these manifests.
    """
    store = {"validation_state": "Valid", "active_manifest": "active", "manifests": {"active": active, **others}}
    return credentials_of(store).digital_source_type


def test_the_creating_action_speaks_first() -> None:
    """
    Before an edit, whatever the order; and a model that was used in an edit makes a composite.
    """
    captured, edited = ("c2pa.created", "digitalCapture"), ("c2pa.edited", "humanEdits")
    filled, partly = ("c2pa.edited", "trainedAlgorithmicMedia"), ("c2pa.edited", "compositeWithTrainedAlgorithmicMedia")

    assert said(manifest(edited, captured)) == "digitalCapture"
    assert said(manifest(captured, filled)) == "compositeWithTrainedAlgorithmicMedia"
    assert said(manifest(captured, partly)) == "compositeWithTrainedAlgorithmicMedia"
    assert said(manifest(partly, ("c2pa.created", "trainedAlgorithmicMedia"))) == "trainedAlgorithmicMedia"
    assert said(manifest(("c2pa.cropped", None))) is None


def test_what_was_opened_speaks_where_the_editor_does_not() -> None:
    """
    Over any number of editors; what only was an input of a model, or merely stands in the file, does not.
    """
    generated = manifest(("c2pa.created", "trainedAlgorithmicMedia"))
    opened = manifest(("c2pa.opened", None), parentOf="first")
    again = manifest(("c2pa.opened", None), parentOf="second")

    assert said(again, second=opened, first=generated) == "trainedAlgorithmicMedia"
    assert said(opened, first=manifest(("c2pa.created", "digitalCapture"))) == "digitalCapture"
    assert said(manifest(("c2pa.opened", None), inputTo="first"), first=generated) is None
    assert said(manifest(("c2pa.created", "digitalCapture")), first=generated) == "digitalCapture"
    assert said(manifest(("c2pa.opened", None), parentOf="missing")) is None


def test_circles_and_crowds_of_ingredients_come_to_an_end() -> None:
    """
    Each manifest is looked at once, and not more than a limit of them.
    """
    opened = ("c2pa.opened", None)
    circle = {"a": manifest(opened, parentOf="b"), "b": manifest(opened, parentOf="active")}
    chain = {f"m{n}": manifest(opened, parentOf=f"m{n + 1}") for n in range(2 * MAX_MANIFESTS)}
    chain[f"m{2 * MAX_MANIFESTS}"] = manifest(("c2pa.created", "trainedAlgorithmicMedia"))

    assert said(manifest(opened, parentOf="a"), **circle) is None
    assert said(manifest(opened, parentOf="m0"), **chain) is None
    assert said(manifest(opened, parentOf=f"m{MAX_MANIFESTS + 3}"), **chain) == "trainedAlgorithmicMedia"


def test_failures_that_claims_of_version_1_recorded() -> None:
    """
    An ingredient that its editor found broken says nothing, in the old list of failures as in the new one.
    """
    status = [{"code": "assertion.dataHash.mismatch", "url": "self#jumbf=/c2pa/first/c2pa.assertions/c2pa.hash.data"}]
    opened = manifest(("c2pa.opened", None), parentOf="first")
    opened["ingredients"][0]["validation_status"] = status

    assert said(opened, first=manifest(("c2pa.created", "trainedAlgorithmicMedia"))) is None


def test_names_are_cleaned_and_cut() -> None:
    """
    A signer chooses its name: no control codes, and not more than the contract holds.
    """
    active = manifest(("c2pa.created", "digitalCapture"))
    active |= {"signature_info": {"issuer": "\x1b[31mMill" + "l" * 300}, "claim_generator": "old\nprogram"}
    found = credentials_of(
        {"validation_state": "Trusted", "active_manifest": "active", "manifests": {"active": active}}
    )

    assert found.issuer == "\ufffd[31mMill" + "l" * 247
    assert found.claim_generator == "old\ufffdprogram"
    assert found.state == "trusted"
