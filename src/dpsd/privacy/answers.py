"""Sealed raw answers of teachers.

A teacher's raw answers are the one thing here that must not be seen. They travel from the teacher
to the mechanism inside :class:`RawAnswers`, whose contents only ``privacy/mechanisms/`` opens and
whose ``repr`` shows nothing but a shape. Sealing validates the answers, so every mechanism can rely
on finite probabilities of the right shape.

>>> import torch
>>> RawAnswers.seal(torch.tensor([[2.0, 0.0]]), batch=1, num_classes=2, scores="logits")
RawAnswers(shape=(1, 2))
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Scores: TypeAlias = Literal["logits", "probabilities"]


class AnswerCheckError(ValueError):
    """An error that answers are not class scores for the batch; it says why and quotes no answer.

    Args:
        problem: what is wrong, in words that do not depend on any answer.
        seen: what is wrong, including values that the teacher chooses. Only for public probes.
    """

    def __init__(self, problem: str, *, seen: str | None = None) -> None:
        self.problem = problem
        super().__init__(seen or problem)


class RawAnswers:
    """A sealed batch of class probabilities, ``(N, K)`` or ``(teachers, N, K)``."""

    __slots__ = ("__probabilities",)

    def __init__(self, probabilities: Tensor) -> None:
        self.__probabilities = probabilities

    @classmethod
    def seal(
        cls,
        answers: object,
        *,
        batch: int,
        num_classes: int,
        scores: Scores,
        members: int | None = None,
    ) -> RawAnswers:
        """Validate a teacher's answers and seal them as probabilities.

        Args:
            answers: what the teacher returned for the batch, which should be a float tensor
                ``(batch, num_classes)``, or ``(teachers, batch, num_classes)``.
            batch: the number of images asked about.
            num_classes: the number of classes of the teacher.
            scores: ``"logits"`` (a softmax is applied) or ``"probabilities"``.
            members: the number of teachers, if known; a single one has no teacher axis.

        Raises:
            AnswerCheckError: the type or the shape is wrong, or values are not finite or not a
                distribution.
        """
        if not isinstance(answers, Tensor):
            raise AnswerCheckError(
                "no tensor of scores",
                seen=f"a {type(answers).__name__} instead of a tensor of scores",
            )
        shape = tuple(answers.shape)
        if len(shape) not in (2, 3):
            raise AnswerCheckError(
                f"another shape than ({batch}, {num_classes})",
                seen=f"shape {shape} instead of ({batch}, {num_classes})",
            )
        if members is not None and shape[:-2] != (() if members == 1 else (members,)):
            wanted = (batch, num_classes) if members == 1 else (members, batch, num_classes)
            raise AnswerCheckError(
                f"another shape than {wanted}", seen=f"shape {shape} instead of {wanted}"
            )
        if shape[-2] != batch:
            raise AnswerCheckError(
                f"another number of answers than the batch's {batch}",
                seen=f"{shape[-2]} answers for a batch of {batch} images",
            )
        if shape[-1] != num_classes:
            raise AnswerCheckError(
                f"another number of classes than {num_classes}",
                seen=f"{shape[-1]} classes instead of {num_classes}",
            )
        values = answers.detach().float()
        if not torch.isfinite(values).all():
            raise AnswerCheckError("values that are not finite (NaN or infinity)")
        if scores == "logits":
            return cls(values.softmax(-1))
        totals = values.sum(-1)
        if (values < -1e-4).any() or (totals - 1).abs().max() > 1e-2:
            raise AnswerCheckError(
                "values that are not probabilities (negative, or not summing to one); "
                "declare scores='logits' if the teacher returns logits"
            )
        return cls(values.clamp_min(0) / totals.unsqueeze(-1))

    def __repr__(self) -> str:
        return f"RawAnswers(shape={tuple(self.__probabilities.shape)})"

    def __len__(self) -> int:
        return self.__probabilities.shape[-2]

    def __reduce__(self) -> str:
        raise TypeError("raw teacher answers cannot be copied, pickled or saved")


def open_for_mechanism(answers: RawAnswers) -> Tensor:
    """Return the sealed probabilities. Only ``privacy/mechanisms/`` may; a test enforces it."""
    opened: Tensor = answers._RawAnswers__probabilities  # type: ignore[attr-defined]
    return opened
