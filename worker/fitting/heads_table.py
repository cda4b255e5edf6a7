"""
Which heads there are, what each must have measured, and how each is fitted. One row per head.

What needs torch is imported when it is called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.errors import ConfigInvalid
from worker.fitting.plain import fit_global_local, fit_knn, fit_perturbation, fit_realism
from worker.fitting.probe import fit_probe
from worker.fitting.real_only import fit_real_only
from worker.heads.features import Mask, References
from worker.heads.head import Head

Fit = Callable[[References, int], Head]


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    One head: its name, the views that it cannot do without, and its fitter, called with references and a seed.

    The fitter raises ``ValueError`` when the references are too few for it.
    """

    name: str
    needs: tuple[str, ...]
    fit: Fit


def _natural_traces(references: References, seed: int) -> Head:
    from worker.fitting.contrastive_traces import fit_natural_traces  # noqa: PLC0415 - torch takes seconds to import

    return fit_natural_traces(references, seed=seed)


def _style(references: References, seed: int) -> Head:
    from worker.fitting.contrastive_style import fit_style  # noqa: PLC0415 - torch takes seconds to import

    return fit_style(references, seed=seed)


RECIPES: Final = (
    Recipe("knn", ("global",), lambda references, seed: fit_knn(references, seed=seed)),
    Recipe("probe", ("global",), lambda references, seed: fit_probe(references, seed=seed)),
    Recipe("natural_traces", ("global",), _natural_traces),
    Recipe("real_only", ("global",), lambda references, seed: fit_real_only(references, seed=seed)),
    Recipe("perturbation", ("perturbation",), lambda references, seed: fit_perturbation(references, seed=seed)),
    Recipe("global_local", ("global", "native"), lambda references, seed: fit_global_local(references, seed=seed)),
    Recipe("style", ("global",), _style),
    Recipe("realism", ("realism",), lambda references, seed: fit_realism(references, seed=seed)),
)
"""In the order in which tables show them."""


def measured_views(references: References) -> frozenset[str]:
    """
    The views that were measured of at least one reference of either label.
    """
    features, positive = references.features, references.positive
    of_crops = np.zeros(len(references), dtype=np.bool_)
    of_crops[features.native_owner] = True
    columns: dict[str, Mask] = {
        "global": np.ones(len(references), dtype=np.bool_),
        "native": of_crops,
        "realism": np.asarray(np.isfinite(features.realism).all(axis=1)),
        "perturbation": np.asarray(np.isfinite(features.shift).any(axis=1)),
    }
    return frozenset(name for name, known in columns.items() if known[positive].any() and known[~positive].any())


def usable_recipes(
    references: References, wanted: Sequence[str] | None = None, recipes: Sequence[Recipe] = RECIPES
) -> tuple[tuple[Recipe, ...], tuple[str, ...]]:
    """
    The recipes whose views were measured, and a note for each that is left out.

    ``wanted`` names the heads to include, None all. Raises ``ConfigInvalid`` for a name that no head has, and when
    nothing is left.
    """
    known = [recipe.name for recipe in recipes]
    if strangers := [name for name in wanted or () if name not in known]:
        raise ConfigInvalid(f"no head is called {', '.join(strangers)}; expected some of {', '.join(known)}")
    views = measured_views(references)
    chosen = [recipe for recipe in recipes if wanted is None or recipe.name in wanted]
    usable = tuple(recipe for recipe in chosen if set(recipe.needs) <= views)
    notes = tuple(
        f"head {recipe.name} is left out: no reference has the view {' or '.join(sorted(set(recipe.needs) - views))}, "
        "with which a bank is built only when asked"
        for recipe in chosen
        if recipe not in usable
    )
    if not usable:
        raise ConfigInvalid(f"no head can be fitted: {'; '.join(notes) or 'none was asked for'}")
    return usable, notes
