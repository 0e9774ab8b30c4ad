"""Public sources of queries, which know nothing of any private data.

A source makes images, and a teacher labels them. A run that starts from an untrained generator
alone collapses (all its images fall into one class), so the first queries must be diverse on their
own. None of these sources is fitted to a data set, and public data costs no privacy.

>>> import torch
>>> from dpsd.synthesis.drawn import StructuredNoise
>>> generator = torch.Generator().manual_seed(0)
>>> images = StructuredNoise((1, 28, 28)).sample(5, generator=generator)
>>> images.shape, 0 <= float(images.min()) <= float(images.max()) <= 1
(torch.Size([5, 1, 28, 28]), True)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels

#: The number of images made in one vectorised step; what a step draws only once (the cells per
#: side, a photograph) varies from one step to the next.
CHUNK = 256

#: The most numbers in such a step, so that fewer large images are made at once.
_MOST_NUMBERS = CHUNK * 3 * 64 * 64


#: Begins to report a number of steps; the context yields a function to call with the steps done.
Started = Callable[[int], AbstractContextManager[Callable[[int], None]]]


class Source(ABC):
    """A public source of images of one shape.

    Args:
        shape: the channels, height and width of the images; 1 or 3 channels are usual.
    """

    #: The name of the source in configurations and certificates.
    name: str

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def facts(self) -> dict[str, str]:
        """Return what a run should record of the source besides its name."""
        return {}

    def prepare(self, started: Started) -> str | None:
        """Do beforehand, once, what takes long, and return what the user should know, if anything.

        Args:
            started: begins to report a number of steps.
        """
        return None

    def guided_by(  # noqa: B027 - most sources have nothing to do here
        self, student: nn.Module, shares: Sequence[float]
    ) -> None:
        """Note what images may be steered by from now on; most sources cannot be steered.

        Args:
            student: the student, as it is whenever images are made.
            shares: the share of each class among the releases, ``(K,)``.
        """

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Make ``count`` images, float32 ``(count, channels, height, width)`` in [0, 1]."""
        return self._shuffled(list(self._chunks(count, generator)), generator)

    def pixels(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Make the same images in uint8, which takes a quarter of the memory."""
        return self._shuffled([to_pixels(c) for c in self._chunks(count, generator)], generator)

    def _chunks(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield torch.zeros((0, *self.shape))
        size = chunk_size(self.shape)
        for start in range(0, count, size):
            yield self._chunk(min(size, count - start), generator)

    @staticmethod
    def _shuffled(chunks: list[Tensor], generator: torch.Generator) -> Tensor:
        """Shuffle images, so that what a chunk has in common is not common to a training batch."""
        images = torch.cat(chunks)
        return images[torch.randperm(len(images), generator=generator)]

    @abstractmethod
    def _chunk(self, count: int, generator: torch.Generator) -> Tensor: ...


def chunk_size(shape: Sequence[int]) -> int:
    """Return the number of images of shape ``(C, H, W)`` to make in one step.

    >>> chunk_size((1, 28, 28)), chunk_size((3, 224, 224))
    (256, 20)
    """
    return max(1, min(CHUNK, _MOST_NUMBERS // math.prod(shape)))


def is_blank(images: Tensor) -> Tensor:
    """Return which images, in uint8, are entirely black or entirely white, bool ``(N,)``."""
    darkest, brightest = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    return ((255 * brightest).round() <= 0) | ((255 * darkest).round() >= 255)


def unseen(steps: int) -> AbstractContextManager[Callable[[int], None]]:
    """Begin to report a number of steps to nobody."""
    return nullcontext(lambda _: None)


def made_visible(images: Tensor) -> Tensor:
    """Return images in [0, 1]; those that are too dark or too bright everywhere are reflected.

    Args:
        images: the images, ``(N, C, H, W)``, whose values may be outside the range; changed.

    >>> made_visible(torch.tensor([1.2, 0.4]).view(2, 1, 1, 1)).flatten()
    tensor([0.8000, 0.4000])
    """
    blank = is_blank(images)
    images[blank] = 1 - (images[blank] % 2 - 1).abs()
    return images.clamp(0, 1)


def integer(below: int, generator: torch.Generator) -> int:
    """Draw a whole number from 0 to ``below`` - 1."""
    return int(torch.randint(0, below, (), generator=generator))
