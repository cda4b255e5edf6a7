"""
What a process was told to forget: in turns, bounded, and in doubt as forgotten.
"""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.sightings import a_hash
from worker.flow.forgotten import ForgottenLately

CAT, DOG = a_hash("cat"), a_hash("dog")


def test_only_what_was_asked_for_before_is_forgotten() -> None:
    """
    An upload of the turn before must not be kept, one of the turn after may; each telling counts anew.
    """
    lately = ForgottenLately()
    before = lately.turn
    lately.tell([CAT])
    between = lately.turn
    at_first = [lately.since(name, turn) for name in (CAT, DOG) for turn in (before, between)]
    lately.tell([CAT, DOG])
    then = [lately.since(name, turn) for name in (CAT, DOG) for turn in (between, lately.turn)]

    assert [True, False, False, False] == at_first
    assert [True, False, True, False] == then


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), max_size=12),
    st.integers(1, 4),
    st.sampled_from("abcdef"),
)
def test_no_bound_makes_the_forgotten_known(tellings: Sequence[Sequence[str]], most: int, asked: str) -> None:
    """
    However few hashes are remembered, whatever was forgotten since a turn is told so; and nothing since the last turn.
    """
    bounded, boundless = ForgottenLately(most=most), ForgottenLately()
    for telling in tellings:
        for lately in (bounded, boundless):
            lately.tell(map(a_hash, telling))
    turns = range(boundless.turn + 1)
    missed = [turn for turn in turns if boundless.since(a_hash(asked), turn) and not bounded.since(a_hash(asked), turn)]

    assert boundless.turn == bounded.turn == len(tellings)
    assert [] == missed
    assert not bounded.since(a_hash(asked), bounded.turn)
