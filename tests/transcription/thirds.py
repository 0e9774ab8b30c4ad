"""Teachers that look at the thirds of an image, and an observer that hears what a run says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

import dpsd
from dpsd import Observer, Teacher
from dpsd.teachers import CallableTeacher, Committee

SHAPE = (1, 8, 8)


class Answering:
    """A function to ask, which remembers every image, and lies about some."""

    def __init__(self, *, lies_about: Tensor | None = None) -> None:
        self.shown: Counter[bytes] = Counter()
        lies: Iterable[Tensor] = () if lies_about is None else lies_about
        self.lies = {image.numpy().tobytes() for image in lies}

    def __call__(self, images: Tensor) -> Tensor:
        rows = [row.numpy().tobytes() for row in (images * 255).round().byte()]
        self.shown.update(rows)
        scores = (20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)).softmax(-1)
        lying = torch.tensor([row in self.lies for row in rows])
        return torch.where(lying.unsqueeze(-1), scores.roll(1, dims=-1), scores)


def teacher_of(answering: Answering) -> Teacher:
    """A teacher that has not been asked yet."""
    loaded = CallableTeacher(
        answering, input_shape=SHAPE, num_classes=3, scores="probabilities", name="thirds"
    )
    answering.shown.clear()  # what was asked to learn the interface
    return loaded


def committee_of(members: int) -> Committee:
    """Teachers that look at the same thirds of an image, each with errors of its own."""

    def member(seed: int) -> Teacher:
        bend = 0.3 * torch.randn(48, 3, generator=torch.Generator().manual_seed(seed))

        def scores(images: Tensor) -> Tensor:
            thirds = images[:, 0, :6].reshape(len(images), 3, 16)
            return 20 * thirds.mean(-1) + thirds.flatten(1) @ bend

        return dpsd.load_teacher(
            scores, input_shape=SHAPE, num_classes=3, scores="logits", name=str(seed)
        )

    return Committee([member(seed) for seed in range(members)])


class Listens(Observer):
    """Hears what is said, and may break a run at the start of a phase."""

    def __init__(self, fails_in: tuple[str, int] | None = None) -> None:
        self.warnings: list[str] = []
        self.notices: list[str] = []
        self.fails_in = fails_in

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        if (name, round_index) == self.fails_in:
            raise KeyboardInterrupt
        return super().phase(name, total=total, round_index=round_index)

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
