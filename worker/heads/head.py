"""
What every head is: a named, versioned reading of features against a bank, whose parameters can be written down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, FeatureTable
from worker.heads.reference_bank import ReferenceBank

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """
    What a head says of n pictures: ``score`` float64[n], NaN where it cannot say.

    Higher means "more like a generated image" by the head's own source; whether that holds on real data is learnt when
    a judgement is fitted, and the sign is turned where it does not. ``parts`` are further numbers of the same head,
    float64[n] each, for the evaluation's table; they take no part in the fusion.
    """

    score: Column = field(repr=False)
    parts: Mapping[str, Column] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class HeadState:
    """
    A head's learnt parameters, as they are written: arrays into safetensors, the rest into JSON.
    """

    tensors: Mapping[str, NDArray[np.generic]] = field(default_factory=dict, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Head(Protocol):
    """
    A fitted head. Reads never change it, and what it says of a picture does not depend on the picture's companions.
    """

    @property
    def name(self) -> str:
        """
        The name in verdicts and tables, such as ``knn``.
        """

    @property
    def version(self) -> str:
        """
        Raised when the arithmetic changes.
        """

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        The scores of these pictures against this bank.
        """

    def state(self) -> HeadState:
        """
        The parameters that bring this head back through its ``restored``.
        """
