"""
Where the test sets of UniversalFakeDetect lie, and which reals belong to which.

A set holds the pair ``0_real`` and ``1_fake``, with or without folders of classes around it. The authors' diffusion
sets hold ``1_fake`` alone: their reals lie once, in ``imagenet/0_real`` for guided and in ``laion/0_real`` for the
others (``dataset_paths.py`` of their code).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.bank.manifest import GENERATED
from worker.bank.sources import BESIDE_REALS, SIDECARS, Listing, Reference
from worker.domain import Label
from worker.errors import ConfigInvalid

SHARED_REALS: Final = {
    "guided": "imagenet",
    "ldm_200": "laion",
    "ldm_200_cfg": "laion",
    "ldm_100": "laion",
    "glide_100_27": "laion",
    "glide_50_27": "laion",
    "glide_100_10": "laion",
    "dalle": "laion",
}
"""Where the reals of a set lie that has none of its own."""


@dataclass(frozen=True, slots=True)
class UfdSets:
    """
    ``listings``: what is embedded together, by the name of its reals. ``members``: the test sets in each.

    Reals that several sets share are listed, and so embedded, once. ``absent``: why a set cannot be measured.
    """

    listings: Mapping[str, Listing] = field(repr=False)
    members: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, str]


def sets_below(roots: Sequence[Path], names: Sequence[str]) -> UfdSets:
    """
    The test sets of these names below one or more folders; the first folder that has one counts.

    Raises ``ConfigInvalid`` where there is none.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigInvalid(f"{root} is no folder; --layout ufd expects folders that hold the test sets")
    listings: dict[str, tuple[Reference, ...]] = {}
    members: dict[str, tuple[str, ...]] = {}
    absent: dict[str, str] = {}
    for name in names:
        found = _references(roots, name)
        has = {str(reference.label) for reference in found}
        home = SHARED_REALS.get(name) if has == {GENERATED.positive} else None
        if not found:
            absent[name] = f"no folder {name} with pictures in 0_real or 1_fake"
        elif len(has) > 1:
            listings[name], members[name] = found, (name,)
        elif home is None:
            absent[name] = f"{name} holds only {'0_real' if GENERATED.positive not in has else '1_fake'}"
        else:
            reals = listings.get(home) or tuple(one for one in _references(roots, home) if not _made(one))
            if not reals:
                absent[name] = f"{name} holds only 1_fake, and there are no pictures in {home}/0_real"
                continue
            listings[home] = (*reals, *found)
            members[home] = (*members.get(home, ()), name)
    if not listings:
        raise ConfigInvalid(
            f"{', '.join(map(str, roots))} holds none of the test sets of UniversalFakeDetect; expected folders "
            f"such as {roots[0]}/progan/cat/0_real with 1_fake beside it, or {roots[0]}/ldm_200/1_fake with "
            f"{roots[0]}/laion/0_real; name further folders with --also DIR"
        )
    return UfdSets({home: Listing("folder", home, found) for home, found in listings.items()}, members, absent)


def _made(reference: Reference) -> bool:
    return reference.label == GENERATED.positive


def _references(roots: Sequence[Path], name: str) -> tuple[Reference, ...]:
    """
    The pictures of a set from the first folder that has any; classes between set and pair are pooled.
    """
    return next((found for root in roots if (found := _pictures(root / name))), ())


def _pictures(folder: Path) -> tuple[Reference, ...]:
    references: list[Reference] = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        label = next((BESIDE_REALS[part] for part in parts[:-1] if part in BESIDE_REALS), None)
        hidden = any(part.startswith(".") for part in parts)
        if label is not None and not hidden and path.is_file() and path.suffix.lower() not in SIDECARS:
            generator = folder.name if label == GENERATED.positive else None
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            references.append(Reference(path, name, Label(label), generator=generator, source=folder.name))
    return tuple(references)
