"""Building what a teacher is made of by calling a factory, ``"package.module:factory"``.

>>> build_from_factory("torch.nn:Identity")
Identity()
"""

from __future__ import annotations

import inspect

from torch import nn

from dpsd.errors import ConfigError, TeacherError
from dpsd.images.names import Shape
from dpsd.models import load_factory
from dpsd.teachers.base import Teacher


def build_from_factory(
    path: str, *, input_shape: Shape | None = None, num_classes: int | None = None
) -> object:
    """Import a factory and call it. Both run its code: name only what you trust.

    Args:
        path: ``"package.module:factory"``, or the path of a ready module or teacher.
        input_shape: handed to the factory if given and if its signature names it.
        num_classes: likewise.

    Returns:
        Whatever the factory returned: a module, a teacher or a function from images to scores.

    Raises:
        TeacherError: nothing to import there, or the factory raised.
    """
    try:
        factory = load_factory(path)
    except ConfigError as error:
        raise TeacherError(f"teacher {path!r}: {error}") from None
    if isinstance(factory, nn.Module | Teacher):
        return factory
    try:
        named = set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # some builtins have no signature
        named = set()
    given = {"input_shape": input_shape, "num_classes": num_classes}
    try:
        return factory(**{k: v for k, v in given.items() if v is not None and k in named})
    except Exception as error:
        # No answer exists yet, so the factory's own message may be shown.
        message = " ".join(str(error).split())
        raise TeacherError(f"{path} raised {type(error).__name__}: {message}") from error
