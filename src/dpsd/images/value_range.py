"""The range of stored values that is shown as black to white, as a user declares it.

>>> parsed_range("0,4095")
(0.0, 4095.0)
>>> stated_range((-1000.0, 400.0))
'-1000,400'
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from dpsd.errors import ConfigError, Setting

#: The stored values that are black and white; the first is the smaller one.
ValueRange: TypeAlias = tuple[float, float]


def parsed_range(text: str) -> ValueRange:
    """Parse what a user wrote, as in ``"0,4095"``.

    Raises:
        ConfigError: it is not two numbers of which the first is smaller.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise _not_a_range(text) from None
    return checked_range((low, high))


def checked_range(values: Any) -> ValueRange:
    """Return a range as two numbers, if it is one.

    Raises:
        ConfigError: it is not two finite numbers of which the first is smaller.

    >>> checked_range([4095, 0])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: value_range is '4095,0'; give the values that are black and white, ...
    """
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise _not_a_range(str(values)) from None
    if not (math.isfinite(high - low) and low < high):  # neither is infinite, nor their distance
        raise _not_a_range(stated_range((low, high)))
    return low, high


def stated_range(values: ValueRange) -> str:
    """Return a range as a user writes it."""
    return f"{values[0]:.15g},{values[1]:.15g}"


def _not_a_range(text: str) -> ConfigError:
    return ConfigError(
        Setting("value_range"),
        f" is {text!r}; give the values that are black and white, the smaller first, as in 0,4095",
    )
