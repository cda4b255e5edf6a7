"""
Laws of the vote and of the judgement, over all neighbourhoods.
"""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.verdict import Action, AppliedRule, ImageFacts
from tests.bank_builders import GENERATED, a_neighbourhood, sha
from worker.domain import Label, Neighbour, Neighbourhood
from worker.policy import LabelRule, Rule, SurfacePolicy
from worker.stages.decide import Terms, decide
from worker.stages.vote import nearest_neighbour_weights, soft_vote

FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)

similarity = st.floats(-1, 1, width=32)
some = st.lists(similarity, min_size=1, max_size=12)
ks = st.integers(1, 12)
temperatures = st.sampled_from([0.001, 0.02, 0.07, 0.5, 10.0])
labelled = st.dictionaries(st.sampled_from(["real", "ai_generated", "cat", "dog"]), some, min_size=2)
shipped = st.fixed_dictionaries({"real": some, "ai_generated": some})
unit = st.floats(0, 1)


@st.composite
def neighbourhoods(draw: st.DrawFn, of: st.SearchStrategy[dict[str, list[float]]] = labelled) -> Neighbourhood:
    """
    Some labels, some neighbours each, in a bank at least as large.
    """
    found = draw(of)
    sizes = {label: len(values) + draw(st.integers(0, 500)) for label, values in found.items()}
    return a_neighbourhood(found, sizes)


def a_surface(threshold: float, min_margin: float, min_similarity: float) -> SurfacePolicy:
    """
    A surface with these limits for both labels.
    """
    rule = LabelRule(threshold=threshold, action=Action.NONE)
    return SurfacePolicy(
        min_similarity=min_similarity,
        min_margin=min_margin,
        min_side_px=1,
        max_aspect=100,
        abstained=Action.REVIEW,
        failed=Action.REVIEW,
        labels={"real": rule, "ai_generated": rule},
    )


@given(neighbourhoods(), ks, temperatures)
def test_shares_sum_to_one(neighbourhood: Neighbourhood, k: int, temperature: float) -> None:
    """
    Of both rules, over the labels; and over the voters the shares never exceed their label's.
    """
    vote = soft_vote(neighbourhood, k=k, temperature=temperature)

    assert sum(vote.shares.values()) == pytest.approx(1)
    assert sum(nearest_neighbour_weights(neighbourhood, temperature=temperature).values()) == pytest.approx(1)
    for label, share in vote.shares.items():
        assert sum(voter.share for voter in vote.voters if voter.label == label) <= share + 1e-9


@given(some, some, st.data(), ks, temperatures)
def test_a_nearer_reference_never_weakens_its_label(
    reals: list[float], fakes: list[float], data: st.DataObject, k: int, temperature: float
) -> None:
    """
    Both rules grow with the similarity of a label's reference, as long as all of the bank votes.

    Where only the K most similar vote this need not hold: a reference that enters the vote raises the K-th similarity,
    and with it what the pseudo-neighbours of the others weigh.
    """
    k = max(k, min(len(reals), len(fakes)))
    moved = data.draw(st.integers(0, len(fakes) - 1))
    nearer = data.draw(st.floats(min(1.0, fakes[moved]), 1, width=32))
    raised = [nearer if number == moved else value for number, value in enumerate(fakes)]
    # The pseudo-neighbours stand at the least similarity of all: it must be another's.
    assume(min([*reals, *fakes]) == min([*reals, *raised]))
    before, after = (a_neighbourhood({"real": reals, "ai_generated": found}) for found in (fakes, raised))

    for rule in (_vote_share, _nearest_weight):
        assert rule(after, k, temperature) >= rule(before, k, temperature) - 1e-9


@given(neighbourhoods(), ks, temperatures, st.randoms(use_true_random=False))
def test_the_order_of_labels_and_names_of_entries_do_not_matter(
    neighbourhood: Neighbourhood, k: int, temperature: float, random: object
) -> None:
    """
    The shares are the same however the bank is written down.
    """
    labels = list(neighbourhood.sizes)
    random.shuffle(labels)  # type: ignore[attr-defined] # hypothesis' Random
    shuffled = Neighbourhood(
        nearest={
            label: tuple(
                Neighbour(replace(one.entry, id=f"{len(neighbourhood.nearest[label]) - at:04d}"), one.similarity)
                for at, one in enumerate(neighbourhood.nearest[label])
            )
            for label in labels
        },
        sizes={label: neighbourhood.sizes[label] for label in labels},
    )
    before = soft_vote(neighbourhood, k=k, temperature=temperature).shares
    after = soft_vote(shuffled, k=k, temperature=temperature).shares

    for label in labels:
        assert before[label] == pytest.approx(after[label])


@given(st.lists(some, min_size=2, max_size=2), temperatures)
def test_doubling_the_entries_of_a_label_does_not_move_the_vote(both: list[list[float]], temperature: float) -> None:
    """
    1 / N_c: every reference of the larger label twice in the bank, and every share stays where it was.
    """
    reals, fakes = sorted(both, key=len)
    k = len(reals)  # so that all of the bank votes, before and after
    once = a_neighbourhood({"real": reals, "ai_generated": fakes})
    twice = a_neighbourhood({"real": reals, "ai_generated": fakes * 2})

    assert _vote_share(twice, k, temperature) == pytest.approx(_vote_share(once, k, temperature))


@given(st.lists(similarity, min_size=1, max_size=12), temperatures, ks)
def test_equal_densities_are_a_tie_however_unequal_the_bank(
    values: list[float], temperature: float, copies: int
) -> None:
    """
    A label whose references lie just like the other's, only more of them, gets half the vote: no more and no less.
    """
    neighbourhood = a_neighbourhood({"real": values, "ai_generated": values * copies})

    assert _vote_share(neighbourhood, len(values), temperature) == pytest.approx(0.5)


@given(neighbourhoods(), ks, temperatures, st.sampled_from(["soft_vote", "nearest_neighbour"]))
def test_swapping_the_labels_swaps_the_vote(
    neighbourhood: Neighbourhood, k: int, temperature: float, rule: AppliedRule
) -> None:
    """
    No label is favoured for its name or its place.
    """
    one, other = list(neighbourhood.sizes)[:2]
    names = {one: other, other: one}
    swapped = Neighbourhood(
        nearest={names.get(label, label): found for label, found in neighbourhood.nearest.items()},
        sizes={names.get(label, label): size for label, size in neighbourhood.sizes.items()},
    )
    weigh = _vote_share if rule == "soft_vote" else _nearest_weight

    assert weigh(swapped, k, temperature, other) == pytest.approx(weigh(neighbourhood, k, temperature, one))


@given(some, some, st.tuples(unit, unit, similarity), st.tuples(unit, unit, similarity))
def test_a_stricter_policy_never_decides_more(
    reals: list[float], fakes: list[float], one: tuple[float, float, float], other: tuple[float, float, float]
) -> None:
    """
    Raising thresholds turns decisions into abstentions and never into another label.
    """
    neighbourhood = a_neighbourhood({"real": reals, "ai_generated": fakes})
    lax, strict = (
        decide(
            neighbourhood,
            FACTS,
            terms=Terms(Rule(), a_surface(*(pick(pair) for pair in zip(one, other, strict=True))), GENERATED),
        )
        for pick in (min, max)
    )

    assert strict.status == "abstained" or strict.label == lax.label
    assert lax.score == strict.score


@given(neighbourhoods(shipped), ks, temperatures, st.integers(0, 32))
def test_the_evidence_is_sorted_and_capped(
    neighbourhood: Neighbourhood, k: int, temperature: float, limit: int
) -> None:
    """
    Most similar first, ranks from one, no more than asked for, and every label accounted for.
    """
    rule = Rule(k=k, temperature=temperature, max_neighbours=limit)
    judgement = decide(neighbourhood, FACTS, terms=Terms(rule, a_surface(0, 0, -1), GENERATED))
    evidence = judgement.evidence
    shown = [one.similarity for one in evidence.neighbours]

    assert shown == sorted(shown, reverse=True)
    assert [one.rank for one in evidence.neighbours] == list(range(1, min(limit, evidence.voted) + 1))
    assert sum(label.votes for label in evidence.per_label.values()) == evidence.voted
    assert (judgement.label is None) == (judgement.status == "abstained")


def _vote_share(neighbourhood: Neighbourhood, k: int, temperature: float, label: Label = GENERATED) -> float:
    return soft_vote(neighbourhood, k=k, temperature=temperature).shares[label]


def _nearest_weight(neighbourhood: Neighbourhood, k: int, temperature: float, label: Label = GENERATED) -> float:
    assert k >= 1
    return nearest_neighbour_weights(neighbourhood, temperature=temperature)[label]
