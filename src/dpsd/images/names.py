"""Types for shapes of images and names of augmentations, without importing torch.

>>> from typing import get_args
>>> get_args(Augmentation)
('none', 'shift', 'shift-flip')
"""

from __future__ import annotations

from typing import Literal, TypeAlias

#: Augmentations, which do not change an image's class; see :mod:`dpsd.images.augmentation`.
Augmentation: TypeAlias = Literal["none", "shift", "shift-flip"]

#: The channels, height and width of an image.
Shape: TypeAlias = tuple[int, int, int]
