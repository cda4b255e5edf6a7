"""
The laws of single flight: one leader per flight, every follower served once, and a memory that is bounded.
"""

import threading
from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.verdict import ImageFacts
from tests.fake_outcomes import ManualClock
from worker.domain import ContentHash, Embedding, Sighting
from worker.flow.single_flight import Boarding, SingleFlight

HASHES = [ContentHash(letter * 64) for letter in "abcd"]

deeds = st.lists(
    st.tuples(st.sampled_from(["board", "board", "board", "land", "fail"]), st.sampled_from(HASHES)), max_size=60
)


def a_sighting(content_hash: ContentHash) -> Sighting:
    """
    Something that one can tell apart by identity.
    """
    return Sighting(Embedding.from_features(np.ones(4)), ImageFacts(sha256=content_hash, byte_length=1))


@given(deeds=deeds, recent=st.integers(0, 3))
def test_flights_behave_like_their_description(deeds: list[tuple[str, ContentHash]], recent: int) -> None:
    """
    The first to board leads, the others follow until the landing hands them over in order.

    What landed well is known for so many hashes, of which the one not asked for longest goes first; a failure is not.
    """
    flights: SingleFlight[int] = SingleFlight(ManualClock(), recent=recent)
    followers: dict[ContentHash, list[int]] = {}
    known: OrderedDict[ContentHash, Sighting] = OrderedDict()
    for passenger, (deed, content_hash) in enumerate(deeds):
        if deed == "board":
            boarding = flights.board(content_hash, passenger)
            if content_hash in known:
                known.move_to_end(content_hash)
                assert known[content_hash] is boarding
            elif content_hash in followers:
                followers[content_hash].append(passenger)
                assert Boarding.FOLLOWER is boarding
            else:
                followers[content_hash] = []
                assert Boarding.LEADER is boarding
        elif content_hash in followers:
            sighting = a_sighting(content_hash) if deed == "land" else None
            assert followers.pop(content_hash) == flights.land(content_hash, sighting)
            if sighting is not None:
                known[content_hash] = sighting
                while len(known) > recent:
                    known.popitem(last=False)
        assert list(known) == list(flights._landed)


@settings(max_examples=25, deadline=None)
@given(passengers=st.integers(2, 12), fails=st.booleans(), twins=st.integers(1, 2))
def test_of_threads_that_board_at_once_one_leads(passengers: int, fails: bool, twins: int) -> None:
    """
    However threads meet, each passenger leads, is handed to its leader, or is given the sighting: one of the three.
    """
    flights: SingleFlight[int] = SingleFlight(ManualClock(), recent=4)
    together = threading.Barrier(passengers)
    led: list[int] = []
    served: list[int] = []
    given_at_once: list[int] = []

    def fly(passenger: int) -> None:
        content_hash = HASHES[passenger % twins]
        together.wait(60)
        boarding = flights.board(content_hash, passenger)
        if boarding is Boarding.LEADER:
            led.append(passenger)
            served.extend(flights.land(content_hash, None if fails else a_sighting(content_hash)))
        elif isinstance(boarding, Sighting):
            given_at_once.append(passenger)

    threads = [threading.Thread(target=fly, args=(passenger,)) for passenger in range(passengers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert list(range(passengers)) == sorted(led + served + given_at_once)
    assert len(led) >= twins
    assert fails or len(led) == twins
