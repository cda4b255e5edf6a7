"""
The picture on which an exported encoder is compared with torch: the same pixels everywhere, at any size.
"""

import numpy as np

from worker.domain import Pixels


def trial_picture(side: int) -> Pixels:
    """
    uint8[side, side, 3]: gradients, a chequerboard and grain, each channel different; computed in whole numbers.
    """
    y, x = np.mgrid[0:side, 0:side].astype(np.int64)
    red = x * 255 // max(side - 1, 1)
    green = np.where((x // 24 + y // 24) % 2 == 0, 220, 40) * y // max(side - 1, 1)
    blue = (x * 2654435761 + y * 40503 + x * y * 97) // 64 % 256
    return np.stack([red, green, blue], axis=2).astype(np.uint8)
