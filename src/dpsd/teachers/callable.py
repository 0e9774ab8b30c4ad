"""Teachers that are Python functions: a remote service, another framework, an ensemble.

>>> import numpy
>>> teacher = CallableTeacher(
...     lambda images: numpy.full((len(images), 3), 1 / 3), input_shape=(1, 8, 8), name="thirds"
... )
>>> teacher.scores, teacher.fingerprint
('probabilities', 'callable:thirds')
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dpsd.images.names import Shape
from dpsd.teachers.base import DeclaredScores, Normalization, Teacher
from dpsd.teachers.calling import Calling


class CallableTeacher(Teacher):
    """A teacher that is a function from images to scores.

    A function has no content to hash, so its fingerprint is ``"callable:" + name``: give two
    different teachers two different names, and the same teacher always the same one, or their
    privacy budgets get mixed up.

    Args:
        function: a function that takes a float32 tensor ``(N, C, H, W)`` in ``[0, 1]`` on the
            student's device and returns scores ``(N, K)`` as a tensor or a NumPy array.
        input_shape: the shape of an image, ``(C, H, W)``.
        num_classes: the number of classes K; taken from a probe's answers if ``None``.
        scores: ``"logits"``, ``"probabilities"`` or ``"auto"``.
        normalization: ``(means, deviations)`` applied to the images first.
        calling: what the function is handed, and where its scores are.
        name: the name under which the budget is kept; by default, the function's qualified name.

    Raises:
        TeacherError: the function does not answer with class scores.
    """

    def __init__(
        self,
        function: Callable[[Tensor], object],
        *,
        input_shape: Shape,
        num_classes: int | None = None,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        calling: Calling | None = None,
        name: str | None = None,
    ) -> None:
        self._function = function
        self.is_free = False  # it may be a service that is paid for
        name = name or _qualified_name(function)
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            fingerprint=f"callable:{name}",
            description=f"callable {name}",
            scores=scores,
            normalization=normalization,
            calling=calling,
        )

    def _scores(self, images: Tensor) -> object:
        return self.calling.scores(self._function(images.contiguous()))


def _qualified_name(function: Callable[..., object]) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
