"""How a teacher is called: what it is handed for a batch of images, and where its scores are.

A teacher is handed float32 images ``(N, C, H, W)`` in ``[0, 1]`` and answers with scores
``(N, K)``. :class:`Calling` describes a teacher that wants or answers something else, as far as a
word can say it: another order of axes, another range of pixels, one output among several.

>>> calling = Calling(layout="nhwc", scale="uint8")
>>> images = calling.images(torch.ones(2, 3, 8, 8))
>>> images.shape, images.dtype
(torch.Size([2, 8, 8, 3]), torch.uint8)
>>> calling.scores(torch.zeros(2, 10, 1, 1)).shape
torch.Size([2, 10])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dpsd.errors import Setting, TeacherError
from dpsd.privacy.answers import AnswerCheckError

Layout: TypeAlias = Literal["auto", "nchw", "nhwc", "flat"]
InputScale: TypeAlias = Literal["1", "255", "uint8"]
Column: TypeAlias = Literal["probability", "logit"]

#: The attribute in which Hugging Face's models answer.
_LOGITS = "logits"


@dataclass(frozen=True)
class Calling:
    """How a teacher is called.

    Args:
        layout: the order of an image's axes: ``"nchw"``, ``"nhwc"``, or ``"flat"`` for images that
            are flattened to ``(N, C * H * W)``; ``"auto"`` is ``"nchw"``, and ``"flat"`` for a
            teacher that takes nothing else.
        scale: the range of the pixels: ``"1"`` for ``[0, 1]``, ``"255"`` for ``[0, 255]`` in
            floating point, ``"uint8"`` for whole numbers.
        output: the name or the index of the output that holds the scores, for a teacher that
            returns several.
        column: what a single column ``(N, 1)`` says of the second of two classes; ``None`` if there
            are as many columns as classes.
    """

    layout: Layout = "auto"
    scale: InputScale = "1"
    output: str | None = None
    column: Column | None = None
    found: dict[str, None] = field(default_factory=dict, compare=False, repr=False)
    """What was found in the answers and adapted to, each a sentence, in order."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, ("auto", "nchw", "nhwc", "flat")),
            ("input_scale", self.scale, ("1", "255", "uint8")),
        ):
            if value not in known:
                raise TeacherError(
                    Setting(name), f" must be one of {', '.join(known)}, not {value!r}"
                )

    @property
    def has_channels_first(self) -> bool:
        """Whether images reach the teacher as ``(N, C, H, W)``."""
        return self.layout in ("auto", "nchw")

    def images(self, images: Tensor) -> Tensor:
        """Return what the teacher is handed for images ``(N, C, H, W)`` in [0, 1]."""
        if self.scale != "1":
            images = images * 255
        if self.scale == "uint8":
            images = images.round().clamp(0, 255).to(torch.uint8)
        if self.layout == "nhwc":
            # The same place in memory for each pixel, in whatever layout the images come.
            return images.contiguous().permute(0, 2, 3, 1)
        return images.flatten(1) if self.layout == "flat" else images

    def scores(self, answer: object) -> object:
        """Return the scores in what a teacher answered, ``(N, K)`` if it answers with any.

        Whatever is not recognised is returned unchanged, for the check of the answers to refuse.

        Raises:
            AnswerCheckError: there is no output of the given name.
        """
        found = self._chosen(answer)
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(found)
        if not isinstance(found, Tensor):
            return found
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            self.found["its scores (N, K, 1, 1) are taken as (N, K)"] = None
            found = found.flatten(1)
        if self.column is not None and found.ndim == 2 and found.shape[1] == 1:
            rest = torch.zeros_like(found) if self.column == "logit" else 1 - found
            found = torch.cat([rest, found], dim=1)
        return found

    def _chosen(self, answer: object) -> object:
        if self.output is not None:
            return _named(answer, self.output)
        if isinstance(answer, Tensor | np.ndarray):
            return answer
        if isinstance(answer, tuple | list) and len(answer) == 1:
            self.found[f"its scores are taken out of a {type(answer).__name__} of one"] = None
            return answer[0]
        logits = getattr(answer, _LOGITS, None)
        if logits is None:
            return answer
        self.found[f"its scores are the .{_LOGITS} of the {type(answer).__name__} it returns"] = (
            None
        )
        return logits


def outputs_of(answer: object) -> dict[str, Any]:
    """Return the outputs in an answer by the names under which ``output`` finds them.

    >>> list(outputs_of({"logits": 1, "embedding": 2})), list(outputs_of((1, 2)))
    (['logits', 'embedding'], ['0', '1'])
    """
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items()}
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return {str(index): value for index, value in enumerate(answer)}
    named = getattr(answer, "__dict__", {})
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _named(answer: object, name: str) -> object:
    known = outputs_of(answer)
    if name in known:
        return known[name]
    if isinstance(answer, Tensor | np.ndarray):
        raise AnswerCheckError(f"a single tensor, and no output {name!r}: leave out output")
    raise AnswerCheckError(
        f"no output {name!r}", seen=f"no output {name!r}, but {', '.join(known) or 'none'}"
    )
