"""
Whatever bytes come, reading their credentials ends in a value: never in an exception, and never in more trust.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.verdict import ContentCredentials
from tests.signed_pictures import MEDIA_TYPES, a_signed_picture, a_signer
from worker.adapters.content_credentials import MARKER, credentials_reader
from worker.stages.manifest_store import credentials_of

read = credentials_reader(a_signer().anchor)

names = st.sampled_from(sorted(MEDIA_TYPES))
keys = st.sampled_from(
    [
        "manifests",
        "active_manifest",
        "m",
        "ingredients",
        "assertions",
        "label",
        "data",
        "actions",
        "relationship",
        "signature_info",
        "claim_generator_info",
        "validation_results",
        "ingredientDeltas",
    ]
)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["m", "c2pa.actions", "parentOf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | keys, inner, max_size=4),
    max_leaves=20,
)


@given(name=names)
def test_the_first_look_misses_no_signed_picture(name: str) -> None:
    """
    In each format the marker lies in the file as it is.
    """
    assert MARKER in a_signed_picture(name)


@settings(max_examples=120, deadline=None)
@given(name=names, share=st.floats(0, 1))
def test_files_cut_short(name: str, share: float) -> None:
    """
    A file that ends anywhere before its end has no credentials that hold.
    """
    data = a_signed_picture(name)
    found = read(data[: int(share * (len(data) - 1))])

    assert found in (None, ContentCredentials(state="invalid"))


@settings(max_examples=80, deadline=None)
@given(name=names, changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 255)), min_size=1, max_size=8))
def test_damaged_manifests(name: str, changes: list[tuple[int, int]]) -> None:
    """
    Bytes changed in and around the manifest: it holds no longer, or what it says is unchanged.
    """
    data = bytearray(a_signed_picture(name))
    start = data.find(MARKER) - 20
    for offset, change in changes:
        data[min(start + offset, len(data) - 1)] ^= change
    found = read(bytes(data))

    assert found is None or found.state == "invalid" or found == read(a_signed_picture(name))


@given(data=st.binary(max_size=300), name=names)
def test_the_marker_among_anything(data: bytes, name: str) -> None:
    """
    The beginning of a format, the marker, and noise.
    """
    found = read(a_signed_picture(name)[:16] + MARKER + data)

    assert found in (None, ContentCredentials(state="invalid"))


@settings(max_examples=60)
@given(document=st.dictionaries(keys, documents, max_size=6))
def test_reports_of_any_shape(document: dict[str, object]) -> None:
    """
    What the library reports is read without trusting its shape; what is there is a value of the contract.
    """
    found = credentials_of({"validation_state": "Valid", "active_manifest": "m", **document})

    assert found.state in {"valid", "invalid"}
    assert found.digital_source_type is None or found.state == "valid"
