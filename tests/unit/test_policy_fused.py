"""
What the policy says of fitted judgements and of credentials, and which banks it refuses.
"""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.verdict import AppliedRule
from tests.builders import a_bank_identity
from worker.domain import Label
from worker.errors import ConfigInvalid
from worker.policy import CredentialsRule, Policy, Rule, RuleName, applied_rule, load_policy, parse_policy

SHIPPED = Path(__file__).parents[2] / "config" / "policy.toml"
THREE = a_bank_identity(sizes={Label("real"): 1, Label("ai_generated"): 1, Label("drawn"): 1})

Change = Callable[[dict[str, Any]], object]


def parsed(change: Change) -> Policy:
    """
    The shipped policy with a change.
    """
    document = copy.deepcopy(tomllib.loads(SHIPPED.read_text(encoding="utf-8")))
    change(document)
    return parse_policy(document, "a test")


def with_rule(name: RuleName) -> Policy:
    """
    The shipped policy with this rule.
    """
    return parsed(lambda document: document["rule"].update(name=name))


def test_the_shipped_numbers_are_the_defaults() -> None:
    """
    A policy file that leaves a key out is applied as the shipped one, which explains it.
    """
    policy = load_policy(SHIPPED)

    assert policy.rule == Rule()
    assert policy.provenance == CredentialsRule()


@pytest.mark.parametrize(
    ("name", "fitted", "applied"),
    [
        ("auto", True, "fused"),
        ("auto", False, "soft_vote"),
        ("fused", True, "fused"),
        ("soft_vote", True, "soft_vote"),
        ("nearest_neighbour", True, "nearest_neighbour"),
        ("nearest_neighbour", False, "nearest_neighbour"),
    ],
)
def test_which_rule_is_applied(name: RuleName, applied: AppliedRule, *, fitted: bool) -> None:
    """
    ``auto`` takes what the bank has; any other name is meant.
    """
    assert applied_rule(with_rule(name), a_bank_identity(), fitted=fitted) == applied


def test_fused_needs_a_fitted_judgement() -> None:
    """
    The refusal names the bank and the command that fits one.
    """
    with pytest.raises(ConfigInvalid, match=r"bank origins 2026\.11\.1 .*no fitted judgement.*touchstone fit BANK"):
        applied_rule(with_rule("fused"), a_bank_identity(), fitted=False)


def test_fused_is_for_two_labels() -> None:
    """
    Auto falls back to the vote, and fused is refused without advice that would not help.
    """
    assert applied_rule(with_rule("auto"), THREE, fitted=True) == "soft_vote"
    with pytest.raises(ConfigInvalid, match="has 3 labels, expected 2") as refusal:
        applied_rule(with_rule("fused"), THREE, fitted=False)
    assert "touchstone fit" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["rule"].update(name="fuse"), "rule.name is 'fuse': .*'fused'"),
        (lambda d: d["rule"].update(alpha=0.0), r"rule\.alpha is 0\.0"),
        (lambda d: d["rule"].update(alpha=1), r"rule\.alpha is 1"),
        (lambda d: d["rule"].update(base_rate=0), r"rule\.base_rate is 0"),
        (lambda d: d["rule"].update(pac_delta=1.0), r"rule\.pac_delta is 1\.0"),
        (lambda d: d["rule"].update(guarantee="every_source"), r"rule\.guarantee is 'every_source': .*'each_source'"),
        (lambda d: d["rule"].update(coverage_alpha=-0.1), r"rule\.coverage_alpha is -0\.1"),
        (lambda d: d["rule"].update(grey_zone=[0.8, 0.2]), "rule.grey_zone .*lower end 0.8 is above the upper end 0.2"),
        (lambda d: d["rule"].update(grey_zone=[0.2, 1.2]), r"rule\.grey_zone\.1 is 1\.2"),
        (lambda d: d["rule"].update(alhpa=0.1), r"rule\.alhpa is no key .* alpha"),
        (lambda d: d["provenance"].update(decide_on="always"), r"provenance\.decide_on is 'always'"),
        (lambda d: d["provenance"].update(decide=1), r"provenance\.decide is no key .* decide_on"),
    ],
)
def test_mistakes_are_named(change: Change, message: str) -> None:
    """
    With their key and what was found.
    """
    with pytest.raises(ConfigInvalid, match=message):
        parsed(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["rule"].update(name="soft_vote"),
        lambda d: d["rule"].update(alpha=0.04),
        lambda d: d["rule"].update(pac_delta=0.1),
        lambda d: d["rule"].update(guarantee="pooled"),
        lambda d: d["rule"].update(base_rate=0.4),
        lambda d: d["rule"].update(coverage_alpha=0.02),
        lambda d: d["rule"].update(grey_zone=[0.3, 0.8]),
        lambda d: d["provenance"].update(decide_on="trusted"),
        lambda d: d["provenance"].update(label="synthetic"),
    ],
)
def test_every_value_changes_the_hash(change: Change) -> None:
    """
    Whatever could change a verdict changes the policy's identity.
    """
    assert parsed(change).sha256 != load_policy(SHIPPED).sha256


def test_what_is_left_out_is_the_default() -> None:
    """
    Written out or not is the same policy.
    """

    def spare(document: dict[str, Any]) -> None:
        del document["provenance"]
        for key in ("name", "alpha", "guarantee", "base_rate", "coverage_alpha", "grey_zone"):
            del document["rule"][key]

    assert parsed(spare).sha256 == load_policy(SHIPPED).sha256
