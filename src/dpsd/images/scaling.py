"""Scaling stored values to eight bits.

>>> values = np.array([[-50, 0, 50, 100]])
>>> np.asarray(rescaled(Path("scan"), values, 0, 100)).tolist()
[[0, 0, 128, 255]]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpsd.errors import DataError

#: The values that are scaled at once: in double precision, a large image would take eight times the
#: memory that it takes as a picture.
_BLOCK = 1 << 20


def rescaled(
    file: Path,
    values: np.ndarray[Any, Any],
    low: float,
    high: float,
    *,
    is_inverted: bool = False,
) -> Image.Image:
    """Return values ``(height, width)`` as a grey picture of mode ``"L"``.

    Args:
        file: the file that they come from, for the error.
        values: the values, of any numeric type.
        low: the value that becomes 0, as do smaller ones.
        high: the value that becomes 255, as do larger ones.
        is_inverted: whether black and white are exchanged afterwards.

    Raises:
        DataError: a value is not a number.
    """
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        shares = values[start : start + rows].astype(np.float64)
        # Clipped first, as the share of a value far outside could overflow.
        np.clip(shares, low, high, out=shares)
        shares -= low
        shares /= high - low
        if np.isnan(shares).any():
            raise DataError(f"{file} holds values that are not numbers (NaN): replace or remove it")
        shares *= 255
        grey[start : start + rows] = np.floor(shares + 0.5)
    # Inverted as whole numbers, so that an image and its negative remain exact opposites.
    return Image.fromarray(255 - grey if is_inverted else grey)
