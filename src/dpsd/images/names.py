"""What is said of images where torch is not imported: their shape, and names of augmentations.

>>> from typing import get_args
>>> get_args(Augmentation)
('none', 'shift', 'shift-flip')
"""

from __future__ import annotations

from typing import Literal, TypeAlias

#: Moves that leave an image's class what it was; see :mod:`dpsd.images.augmentation`.
Augmentation: TypeAlias = Literal["none", "shift", "shift-flip"]

#: Channels, height and width of an image.
Shape: TypeAlias = tuple[int, int, int]
