"""Building a teacher's model by calling a factory, ``"package.module:factory"``.

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
    """Import a factory and call it. Both run its code, so name only what you trust.

    Args:
        path: ``"package.module:factory"``, or the path of a ready module or teacher.
        input_shape: the shape of an image, passed to the factory if its signature names it.
        num_classes: the number of classes, passed to the factory if its signature names it.

    Returns:
        Whatever the factory returned: a module, a teacher or a function from images to scores.

    Raises:
        TeacherError: there is nothing to import, or the factory raised an error.
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
    except (Exception, SystemExit) as error:
        # No answer exists yet, so the factory's own message may be shown.
        message = " ".join(str(error).split())
        raise TeacherError(f"{path} raised {type(error).__name__}: {message}") from error
