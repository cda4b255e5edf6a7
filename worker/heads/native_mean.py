"""
Per picture, the mean of what was found of its native-resolution crops; pictures without any say nothing.
"""

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, FeatureTable, Rows


def mean_by_owner(values: Column, owner: Rows, *, count: int) -> Column:
    """
    Mean of ``values`` float64[m] per owner, float64[count]; NaN for an owner of none.
    """
    crops = np.bincount(owner, minlength=count)
    sums = np.bincount(owner, weights=values, minlength=count)
    mean: Column = np.divide(sums, crops, out=np.full(count, np.nan), where=crops > 0)
    return mean


def max_by_owner(values: Column, owner: Rows, *, count: int) -> Column:
    """
    Largest known of ``values`` float64[m] per owner, float64[count]; NaN for an owner of none.
    """
    largest = np.full(count, -np.inf)
    np.fmax.at(largest, owner, values)
    found: Column = np.where(np.isneginf(largest), np.nan, largest)
    return found


def mean_crop(features: FeatureTable) -> NDArray[np.float64]:
    """
    The mean of each picture's crop embeddings, float64[n, d], not of length 1; the global view's where it has no crop.
    """
    sums = np.zeros(features.unit.shape, dtype=np.float64)
    np.add.at(sums, features.native_owner, features.native)
    crops = np.bincount(features.native_owner, minlength=len(features))[:, np.newaxis]
    return np.where(crops > 0, sums / np.maximum(crops, 1), features.unit)
