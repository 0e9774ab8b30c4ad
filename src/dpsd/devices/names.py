"""Names of precisions, for settings that are read before torch is imported.

>>> from typing import get_args
>>> get_args(Precision)
('auto', 'float32', 'bfloat16')
"""

from __future__ import annotations

from typing import Literal, TypeAlias

#: Precision of forward passes; see :mod:`dpsd.devices.execution`.
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
