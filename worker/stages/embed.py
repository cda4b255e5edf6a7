"""
From the encoder's raw features of one picture's views to its sighting.
"""

import numpy as np
from numpy.typing import NDArray

from worker.domain import Embedding, Sighting
from worker.views import DecodedPicture


def sighting_of(decoded: DecodedPicture, features: NDArray[np.float32]) -> Sighting:
    """
    The sighting of one look at a picture, whose shift was not measured; its further looks are left to the caller.

    ``features`` float32[1 + crops, d] are those of the global view and then of the native crops, in order. The norm is
    a float32, so that the cache can hold it. Raises ``ValueError`` when a row is not finite or has no direction.
    """
    if len(features) != 1 + len(decoded.native):
        raise ValueError(f"{len(features)} rows of features for {1 + len(decoded.native)} views of a picture")
    return Sighting(
        embedding=Embedding.from_features(features[0]),
        facts=decoded.facts,
        norm=float(np.linalg.norm(np.asarray(features[0], dtype=np.float32))),
        native=tuple(Embedding.from_features(row) for row in features[1:]),
        realism=decoded.realism,
    )
