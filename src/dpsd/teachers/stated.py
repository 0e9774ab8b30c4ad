"""What a file states of its image input, and what that leaves to be declared.

>>> from pathlib import Path
>>> calling, shape = stated_shape(
...     [1, 28, 28], Calling(), declared=None, is_whole=False, path=Path("teacher.onnx")
... )
>>> calling.layout, shape
('nchw', (1, 28, 28))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dpsd.errors import Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.base import agree, checked_shape
from dpsd.teachers.calling import Calling

#: The numbers of channels that images usually have.
_CHANNELS = (1, 3)


def stated_shape(
    sizes: Sequence[object],
    calling: Calling,
    *,
    declared: Shape | None,
    is_whole: bool,
    path: Path,
) -> tuple[Calling, Shape]:
    """Return how a file's model is called, and the shape of an image, ``(C, H, W)``.

    Args:
        sizes: the sizes of its input without the batch, three or one; any but a positive integer
            is open.
        calling: what was declared.
        declared: the shape that was declared, if any.
        is_whole: whether the input is of type uint8.
        path: the path of the file, for messages.

    Raises:
        TeacherError: the file contradicts what was declared, or leaves open what was not.
    """
    if is_whole:
        calling = replace(calling, scale="uint8")
    elif calling.scale == "uint8":
        raise TeacherError(
            f"{path} takes floating-point images, but ", Setting("input_scale"), " uint8 was given"
        )
    fixed = [size if isinstance(size, int) and size > 0 else None for size in sizes]
    declared = declared and checked_shape(declared)
    if len(fixed) == 1:
        return _flat(fixed[0], calling, declared=declared, path=path)
    if calling.layout == "flat":
        raise TeacherError(
            f"{path} takes images with axes {tuple(sizes)}, but ",
            Setting("layout"),
            " flat was given",
        )
    if calling.layout == "auto":
        _require_channels_first(fixed, declared, path)
        calling = replace(calling, layout="nchw")
    if calling.layout == "nhwc":
        fixed = [fixed[2], fixed[0], fixed[1]]
    if declared is None:
        if None in fixed:
            raise TeacherError(
                f"{path} leaves the image shape open ({', '.join(map(str, sizes))}): give ",
                *(Setting("input_shape"), ", as in 1,28,28"),
            )
        return calling, checked_shape([size for size in fixed if size is not None])
    if any(size not in (None, given) for size, given in zip(fixed, declared, strict=True)):
        agree("input_shape", declared, tuple(fixed), where=str(path))
    return calling, declared


def _flat(
    size: int | None, calling: Calling, *, declared: Shape | None, path: Path
) -> tuple[Calling, Shape]:
    if calling.layout not in ("auto", "flat"):
        raise TeacherError(
            f"{path} takes flat inputs, but ", Setting("layout"), f" {calling.layout} was given"
        )
    if declared is None:
        raise TeacherError(
            f"{path} takes flat inputs of {size or 'any'} numbers: say which images they are with ",
            *(Setting("input_shape"), ", as in 1,28,28"),
        )
    if size is not None and size != math.prod(declared):
        raise TeacherError(
            f"{path} takes flat inputs of {size} numbers, but ",
            *(Setting("input_shape"), f" {declared} has {math.prod(declared)}"),
        )
    return replace(calling, layout="flat"), declared


def _require_channels_first(
    fixed: Sequence[int | None], declared: Shape | None, path: Path
) -> None:
    """Refuse an input that can only be channels last, rather than take height for channels."""
    channels, _, last = fixed
    seems_last = last in _CHANNELS and channels not in (*_CHANNELS, None)
    if seems_last or (channels is None and last in _CHANNELS and declared is None):
        listed = ", ".join("?" if size is None else str(size) for size in fixed)
        raise TeacherError(
            f"{path} takes images ({listed}), which seem to be channels last: say ",
            *(Setting("layout"), " nhwc, or ", Setting("layout"), " nchw if they are not"),
        )
