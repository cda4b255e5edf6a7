"""
The policy file: what it must hold, what it means, and what changes its hash.
"""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.verdict import Action
from tests.bank_builders import GENERATED, REAL
from worker.domain import BankIdentity, Label
from worker.errors import EXIT_USAGE, ConfigInvalid
from worker.policy import RULE_VERSIONS, Policy, check_policy_fits, load_policy, parse_policy

SHIPPED = Path(__file__).parents[2] / "config" / "policy.toml"

Change = Callable[[dict[str, Any]], object]


def raw() -> dict[str, Any]:
    """
    The shipped policy, parsed.
    """
    return tomllib.loads(SHIPPED.read_text())


def parsed(change: Change | None = None) -> Policy:
    """
    The shipped policy with a change.
    """
    document = copy.deepcopy(raw())
    if change is not None:
        change(document)
    return parse_policy(document, "a test")


def a_bank(*labels: Label) -> BankIdentity:
    """
    The identity of a bank with these labels.
    """
    return BankIdentity(
        id="origins",
        version="1",
        manifest_sha256="00" * 32,
        entries=len(labels),
        index="flat",
        sizes=dict.fromkeys(labels, 1),
        positive=labels[-1],
    )


def test_the_shipped_policy_fits_the_shipped_question() -> None:
    """
    What we deliver loads, and has a rule for each label on each surface.
    """
    policy = load_policy(SHIPPED)
    check_policy_fits(policy, a_bank(REAL, GENERATED))

    assert {"default", "avatar", "post", "listing"} <= set(policy.surfaces)
    assert policy.rule.name == "auto"


def test_a_surface_inherits_what_it_does_not_set() -> None:
    """
    Down to one key of one label's rule.
    """
    policy = parsed(
        lambda document: document["surfaces"].update(
            ad={"min_margin": 0.4, "labels": {"ai_generated": {"threshold": 0.9}}}
        )
    )
    default, own = policy.surfaces["default"], policy.surfaces["ad"]

    assert own.min_margin == 0.4
    assert own.min_similarity == default.min_similarity
    assert own.labels["ai_generated"].threshold == 0.9
    assert own.labels["ai_generated"].action == default.labels["ai_generated"].action
    assert own.labels["real"] == default.labels["real"]


@pytest.mark.parametrize("wanted", [None, "unheard-of"])
def test_an_unknown_surface_is_judged_by_the_default(wanted: str | None) -> None:
    """
    And the verdict says so: the name that comes back is the one applied.
    """
    policy = parsed()

    assert policy.for_surface(wanted) == ("default", policy.surfaces["default"])
    assert policy.for_surface("post") == ("post", policy.surfaces["post"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["surfaces"]["default"].update(min_margn=0.1), "surfaces.default.min_margn .* min_margin"),
        (lambda d: d["surfaces"]["avatar"].update(min_sidepx=9), "surfaces.avatar.min_sidepx .* min_side_px"),
        (lambda d: d["rule"].update(temprature=1), "rule.temprature .* temperature"),
        (lambda d: d.update(rules={}), "rules is no key .* rule"),
        (
            lambda d: d["surfaces"]["post"].update(labels={"real": {"acton": "none"}}),
            "surfaces.post.labels.real.acton .* action",
        ),
        (lambda d: d["surfaces"]["default"].pop("failed"), "surfaces.default.failed is missing"),
        (lambda d: d["surfaces"].pop("default"), r"found no \[surfaces.default\]"),
        (lambda d: d.pop("version"), "version is missing"),
        (lambda d: d["surfaces"].update(post=3), "surfaces.post is 3"),
        (lambda d: d["rule"].update(k=0), "rule.k is 0: input should be greater than or equal to 1"),
        (lambda d: d["rule"].update(temperature=0.0), "rule.temperature is 0.0"),
        (lambda d: d["rule"].update(temperature=float("nan")), "rule.temperature is nan"),
        (lambda d: d["rule"].update(max_neighbours=33), "rule.max_neighbours is 33"),
        (lambda d: d["rule"].update(name="majority"), "rule.name is 'majority'"),
        (lambda d: d["surfaces"]["default"].update(min_similarity=1.5), "min_similarity is 1.5"),
        (lambda d: d["surfaces"]["default"].update(max_aspect=0.5), "max_aspect is 0.5"),
        (lambda d: d["surfaces"]["default"].update(abstained="shrug"), "abstained is 'shrug'.*'review'"),
        (lambda d: d["surfaces"]["default"]["labels"].pop("real"), "surfaces.default.labels"),
        (
            lambda d: d["surfaces"]["default"]["labels"]["real"].update(threshold=1.01),
            "surfaces.default.labels.real.threshold is 1.01",
        ),
    ],
)
def test_mistakes_are_named(change: Change, message: str) -> None:
    """
    Each with its key, what was found, and for an unknown key the nearest known one.
    """
    with pytest.raises(ConfigInvalid, match=message) as refusal:
        parsed(change)

    assert refusal.value.exit_code == EXIT_USAGE


def test_a_mistake_in_the_default_is_reported_once() -> None:
    """
    Not once more for each surface that inherits it.
    """
    with pytest.raises(ConfigInvalid) as refusal:
        parsed(lambda document: document["surfaces"]["default"].update(max_aspect=0))

    assert str(refusal.value).count("max_aspect") == 1


def test_every_mistake_is_reported_at_once() -> None:
    """
    One start, one list.
    """

    def spoil(document: dict[str, Any]) -> None:
        document["rule"].update(k=0)
        document["surfaces"]["default"].update(min_margin=2)

    with pytest.raises(ConfigInvalid, match=r"rule\.k.*min_margin"):
        parsed(spoil)


@pytest.mark.parametrize(("content", "message"), [(b"id = ", "is not TOML"), (b"\xff", "is not TOML")])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """
    With the file's name and what the parser said.
    """
    file = tmp_path / "policy.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigInvalid, match=message):
        load_policy(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """
    Saying which setting names it.
    """
    with pytest.raises(ConfigInvalid, match=r"policy\.path"):
        load_policy(tmp_path / "nowhere.toml")


def test_wording_does_not_change_the_hash(tmp_path: Path) -> None:
    """
    Comments, white space, the order of keys, and inherited keys written out are the same policy.
    """
    text = SHIPPED.read_text()
    file = tmp_path / "policy.toml"
    file.write_text("# another comment\n\n" + text.replace("min_margin = 0.3", "min_margin   =  0.30"))

    def spell_out(document: dict[str, Any]) -> None:
        default = document["surfaces"]["default"]
        document["surfaces"]["post"]["min_similarity"] = default["min_similarity"]
        document["surfaces"] = dict(reversed(document["surfaces"].items()))

    assert load_policy(file).sha256 == load_policy(SHIPPED).sha256
    assert parsed(spell_out).sha256 == load_policy(SHIPPED).sha256


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version="another"),
        lambda d: d["rule"].update(k=10),
        lambda d: d["rule"].update(name="nearest_neighbour"),
        lambda d: d["surfaces"]["post"].update(failed="block"),
        lambda d: d["surfaces"]["default"]["labels"]["real"].update(threshold=0.51),
        lambda d: d["surfaces"].update(ad={}),
    ],
)
def test_every_value_changes_the_hash(change: Change) -> None:
    """
    Whatever could change a verdict changes the policy's identity.
    """
    assert parsed(change).sha256 != parsed().sha256


def test_a_rules_arithmetic_is_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A worker that counts differently does not reuse the ids of the verdicts of one that did not.
    """
    before = parsed().sha256
    monkeypatch.setattr("worker.policy.RULE_VERSIONS", {**RULE_VERSIONS, "soft_vote": "2"})

    assert parsed().sha256 != before


def test_labels_of_bank_and_policy_must_be_the_same() -> None:
    """
    A label without a rule and a rule without a label are both named, with their surface.
    """
    policy = parsed(
        lambda document: document["surfaces"]["post"].update(labels={"cat": {"threshold": 0.5, "action": "none"}})
    )

    with pytest.raises(ConfigInvalid, match="surface post has rules for cat, which the bank does not know"):
        check_policy_fits(policy, a_bank(REAL, GENERATED))
    with pytest.raises(ConfigInvalid, match="surface avatar has no rule for dog"):
        check_policy_fits(parsed(), a_bank(REAL, GENERATED, Label("dog")))


def test_the_shipped_policy_recommends_nothing_drastic() -> None:
    """
    Nothing is blocked, and nothing allowed, on the word of an uncalibrated score.
    """
    policy = load_policy(SHIPPED)
    actions = {
        action
        for surface in policy.surfaces.values()
        for action in (surface.abstained, surface.failed, *(rule.action for rule in surface.labels.values()))
    }

    assert actions <= {Action.NONE, Action.LABEL, Action.REVIEW}
