"""How a model arranges the numbers of an image: channels first, channels last, or in a row.

>>> layout = Layout.of((28, 28, 1), None, where="the model")
>>> layout.shape, layout.arranged(torch.zeros(2, 1, 28, 28)).shape
((1, 28, 28), (2, 28, 28, 1))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.errors import Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.record import checked_shape

#: Numbers of channels by which a shape with channels last is told from one with channels first.
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Layout:
    """The arrangement of an image's numbers.

    Attributes:
        shape: the shape of an image, ``(channels, height, width)``.
        channels_last: whether the model wants ``(height, width, channels)``.
        dimensions: the sizes that the model wants.
    """

    shape: Shape
    channels_last: bool
    dimensions: tuple[int, ...]

    @classmethod
    def of(cls, stated: tuple[int, ...] | None, declared: Shape | None, *, where: str) -> Layout:
        """Find out the arrangement.

        Args:
            stated: the sizes that the model states, without the batch; -1 is any. ``None`` if it
                states none.
            declared: the shape of an image that the user gave.
            where: the name of the model, for messages.

        Raises:
            TeacherError: the model leaves the shape open and none is given, or the two contradict
                each other.
        """
        if declared is None:
            return cls._stated(stated, where)
        channels, height, width = declared = checked_shape(declared)
        stated = declared if stated is None else stated
        for channels_last, able in (
            (False, declared),
            (True, (height, width, channels)),
            (False, (height, width) if channels == 1 else ()),
            (False, (math.prod(declared),)),
        ):
            if len(able) == len(stated) and all(
                size in (-1, given) for size, given in zip(stated, able, strict=True)
            ):
                return cls(declared, channels_last, able)
        raise TeacherError(
            f"{where} takes images of {_written(stated)}, but ",
            Setting("input_shape"),
            f" {_written(declared)} was given",
        )

    @classmethod
    def _stated(cls, stated: tuple[int, ...] | None, where: str) -> Layout:
        if stated is None or len(stated) not in (2, 3) or min(stated) < 1:
            said = "does not say" if stated is None else f"leaves open ({_written(stated)})"
            raise TeacherError(
                f"{where} {said} what images it takes: give ",
                Setting("input_shape"),
                ", the channels, height and width, as in 1,28,28",
            )
        if len(stated) == 2:
            return cls(checked_shape((1, *stated)), False, stated)
        if stated[2] in _CHANNELS and stated[0] not in _CHANNELS:
            height, width, channels = stated
            return cls(checked_shape((channels, height, width)), True, stated)
        return cls(checked_shape(stated), False, stated)

    def arranged(self, images: Tensor, *, as_bytes: bool = False) -> NDArray[Any]:
        """Return images ``(N, C, H, W)`` as an array ``(N, …)`` in the model's arrangement.

        Args:
            images: the images, float32.
            as_bytes: whether the model takes whole numbers from 0 to 255, for images in [0, 1].
        """
        moved = images.permute(0, 2, 3, 1) if self.channels_last else images
        flat = moved.reshape(len(images), *self.dimensions).cpu()
        if as_bytes:
            flat = (flat * 255).round().clamp(0, 255).to(torch.uint8)
        return flat.contiguous().numpy()


def _written(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))
