"""
The policy: which rule decides, and for each surface what suffices to decide and which action is recommended.

Read once from a TOML file, validated whole, then a value. Applying it is ``worker.stages.decide``.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.judgement import Guarantee
from schemas.verdict import Action, AppliedRule
from worker.domain import BankIdentity
from worker.errors import ConfigInvalid

DEFAULT_SURFACE: Final = "default"

_FUSED_LABELS: Final = 2

RuleName = Literal["auto", AppliedRule]

RULE_VERSIONS: Final[Mapping[AppliedRule, str]] = MappingProxyType(
    {"fused": "1", "soft_vote": "1", "nearest_neighbour": "1"}
)
"""Raise one when its arithmetic changes: it enters the policy's hash, and so the id of every verdict."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Section(BaseModel):
    """
    A frozen part of the policy; an unknown key is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(Section):
    """
    Which rule decides, and the numbers of each; ``config/policy.toml`` explains them.

    ``k``, ``temperature`` and ``max_neighbours`` are those of the votes and of the evidence that every verdict shows;
    ``base_rate``, ``alpha``, ``guarantee``, ``pac_delta``, ``coverage_alpha`` and ``grey_zone`` are those of ``fused``.
    """

    name: RuleName = "auto"
    k: Annotated[int, Field(ge=1, le=512)] = 9
    temperature: Annotated[float, Field(ge=0.001, le=10, allow_inf_nan=False)] = 0.07
    max_neighbours: Annotated[int, Field(ge=0, le=32)] = 5
    base_rate: Fraction = 0.5
    alpha: Fraction = 0.05
    guarantee: Guarantee = "each_source"
    pac_delta: Fraction | None = None
    coverage_alpha: Unit = 0.01
    grey_zone: tuple[Unit, Unit] = (0.2, 0.8)

    @field_validator("grey_zone")
    @classmethod
    def _ascends(cls, zone: tuple[float, float]) -> tuple[float, float]:
        low, high = zone
        if low > high:
            raise ValueError(f"the lower end {low:g} is above the upper end {high:g}")
        return zone


class CredentialsRule(Section):
    """
    How good Content Credentials must be to decide, and for which label they then do; absent ones say nothing.
    """

    decide_on: Literal["valid", "trusted", "never"] = "valid"
    label: Name = "ai_generated"


class LabelRule(Section):
    """
    The least weight that decides for a label, and the action then recommended.
    """

    threshold: Unit
    action: Action


class SurfacePolicy(Section):
    """
    What suffices to decide about an upload to one surface, and what to recommend.
    """

    min_similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    min_margin: Unit
    min_side_px: Annotated[int, Field(ge=1)]
    max_aspect: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    abstained: Action
    failed: Action
    labels: Annotated[dict[Name, LabelRule], Field(min_length=2)]


class _PolicyFile(Section):
    id: Name
    version: Name
    rule: Rule = Rule()
    provenance: CredentialsRule = CredentialsRule()
    surfaces: dict[Name, SurfacePolicy]


@dataclass(frozen=True, slots=True)
class Policy:
    """
    A validated policy; ``sha256`` covers every effective value and the versions of the rules, not the file's wording.
    """

    id: str
    version: str
    rule: Rule
    provenance: CredentialsRule
    surfaces: Mapping[str, SurfacePolicy]
    sha256: str

    def for_surface(self, wanted: str | None) -> tuple[str, SurfacePolicy]:
        """
        The surface that applies and its name: the wanted one, or ``default`` where it is unknown or none is wanted.
        """
        name = wanted if wanted is not None and wanted in self.surfaces else DEFAULT_SURFACE
        return name, self.surfaces[name]


def shipped_policy() -> Path:
    """
    The policy that ships with Touchstone: inside the package when installed, beside it in a checkout.
    """
    package = Path(__file__).parent
    installed = package / "shipped" / "policy.toml"
    return installed if installed.is_file() else package.parent / "config" / "policy.toml"


def load_policy(path: Path) -> Policy:
    """
    The policy that a TOML file holds.

    Raises ``ConfigInvalid`` with every problem found, each with its key and, for an unknown key, the nearest known one.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigInvalid(
            f"policy {path} cannot be read ({fault.strerror}); set policy.path to a file like config/policy.toml"
        ) from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigInvalid(f"policy {path} is not TOML: {fault}") from fault
    return parse_policy(raw, str(path))


def parse_policy(raw: Mapping[str, Any], origin: str) -> Policy:
    """
    The policy in a parsed TOML document; ``origin`` names it in messages. Raises ``ConfigInvalid``.
    """
    surfaces = raw.get("surfaces")
    if not isinstance(surfaces, Mapping) or not isinstance(surfaces.get(DEFAULT_SURFACE), Mapping):
        raise ConfigInvalid(f"policy {origin}: found no [surfaces.{DEFAULT_SURFACE}]; every other surface inherits it")
    default = surfaces[DEFAULT_SURFACE]
    # The default alone first: a mistake in it would be reported once more for each surface that inherits it.
    _validated({**raw, "surfaces": {DEFAULT_SURFACE: default}}, origin)
    effective = {
        name: _inherit(default, own) if isinstance(own, Mapping) else own
        for name, own in {**surfaces, DEFAULT_SURFACE: default}.items()
    }
    file = _validated({**raw, "surfaces": effective}, origin)
    content = {"algorithms": dict(RULE_VERSIONS), "policy": file.model_dump(mode="json")}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    sha256 = hashlib.sha256(canonical.encode()).hexdigest()
    return Policy(file.id, file.version, file.rule, file.provenance, file.surfaces, sha256)


def check_policy_fits(policy: Policy, bank: BankIdentity) -> None:
    """
    Refuse a policy that does not speak of exactly the bank's labels, on every surface.

    Raises ``ConfigInvalid`` naming surface, missing and unknown labels.
    """
    problems = []
    for name, surface in policy.surfaces.items():
        missing = sorted(set(bank.sizes) - set(surface.labels))
        unknown = sorted(set(surface.labels) - set(bank.sizes))
        if missing:
            problems.append(f"surface {name} has no rule for {', '.join(missing)}")
        if unknown:
            problems.append(f"surface {name} has rules for {', '.join(unknown)}, which the bank does not know")
    if problems:
        raise ConfigInvalid(
            f"policy {policy.id} {policy.version} does not fit bank {bank.id} {bank.version} "
            f"with labels {', '.join(sorted(bank.sizes))}: {'; '.join(problems)}. "
            "Give every surface one [surfaces.NAME.labels.LABEL] for each label of the bank, and none besides."
        )


def applied_rule(policy: Policy, bank: BankIdentity, *, fitted: bool) -> AppliedRule:
    """
    The rule that decides about uploads to this bank, whether or not it carries a ``fitted`` judgement.

    Raises ``ConfigInvalid`` when the policy asks for ``fused`` and the bank cannot give it.
    """
    name = policy.rule.name
    fits = fitted and len(bank.sizes) == _FUSED_LABELS
    if name == "auto":
        return "fused" if fits else "soft_vote"
    if name == "fused" and not fits:
        if len(bank.sizes) != _FUSED_LABELS:
            found = f"it has {len(bank.sizes)} labels, expected {_FUSED_LABELS}. Set"
        else:
            found = "it carries no fitted judgement. Run `touchstone fit BANK` with this bank's directory, or set"
        raise ConfigInvalid(
            f"policy {policy.id} {policy.version} has rule fused, which bank {bank.id} {bank.version} cannot give: "
            f"{found} rule.name to auto or soft_vote."
        )
    return name


def _inherit(default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(default)
    for key, value in own.items():
        inherited = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(inherited, Mapping)
        merged[key] = _inherit(inherited, value) if both else value  # type: ignore[arg-type] # `both` says so
    return merged


def _validated(raw: Mapping[str, Any], origin: str) -> _PolicyFile:
    try:
        return _PolicyFile.model_validate(raw)
    except ValidationError as fault:
        problems = [_problem(error) for error in fault.errors(include_url=False)]
        raise ConfigInvalid(f"policy {origin}: " + "; ".join(problems)) from fault


def _problem(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails, whose type it does not export
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"])
        nearest = get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        return f"{where} is no key of a policy; did you mean {nearest[0]}? (known here: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{where} is missing"
    return f"{where} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    if loc[0] == "rule" and len(loc) > 1:
        return list(Rule.model_fields)
    if loc[0] == "provenance" and len(loc) > 1:
        return list(CredentialsRule.model_fields)
    if loc[0] == "surfaces" and len(loc) > 1:
        return list(LabelRule.model_fields if "labels" in loc else SurfacePolicy.model_fields)
    return list(_PolicyFile.model_fields)
