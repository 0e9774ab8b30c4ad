"""What settings choose from, where the code behind the choices takes long to import.

>>> from typing import get_args
>>> get_args(Precision)
('auto', 'float32', 'bfloat16')
"""

from __future__ import annotations

from typing import Literal, TypeAlias

#: Moves that leave an image's class what it was; see :mod:`dpsd.augmentation`.
Augmentation: TypeAlias = Literal["none", "shift", "shift-flip"]

#: Of forward passes; see :mod:`dpsd.execution`.
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
