"""
Fingerprints: canonical, and different wherever an encoder is.
"""

from tests.pictures import spec_of
from worker.fingerprint import canonical_sha256, id_of, space_of


def test_the_canonical_form_does_not_depend_on_order() -> None:
    """
    Objects are hashed by content, whatever the order in which their keys were written; tuples are lists.
    """
    assert canonical_sha256({"a": 1, "b": [1.5, "é"]}) == canonical_sha256({"b": (1.5, "é"), "a": 1})
    assert canonical_sha256([1, 2]) != canonical_sha256([2, 1])


def test_the_canonical_form_never_changes() -> None:
    """
    The hash of a known value, as sha256sum computes it: a change here would orphan every bank and every cache.
    """
    value = {"rules": "touchstone-decode-1", "mean": (0.48145466, 0.5), "size": 224}

    assert "86d3268175e2c4292c37bc3accde93a25c98c2bd0c1bed061e1fdf18624b3167" == canonical_sha256(value)


def test_every_part_of_an_encoder_moves_its_identity() -> None:
    """
    Architecture, weights and preprocessing make the space; the precision makes the id.
    """
    spec, other = spec_of(224), spec_of(336)
    spaces = [space_of("a", "w", spec), space_of("b", "w", spec), space_of("a", "v", spec), space_of("a", "w", other)]

    assert 4 == len(set(spaces))
    assert id_of(spaces[0], "fp32") != id_of(spaces[0], "bf16")
    assert id_of(spaces[0], "fp32") == id_of(space_of("a", "w", spec_of(224)), "fp32")
