"""Mixtures of sources, with shares that may adapt to the releases.

>>> from dpsd.synthesis.drawn import Silhouettes, StructuredNoise
>>> mixture = Mixture([StructuredNoise((1, 8, 8)), Silhouettes((1, 8, 8))])
>>> images, source = mixture.sample(4, generator=torch.Generator().manual_seed(0))
>>> images.dtype, sorted(source.tolist())
(torch.uint8, [0, 0, 1, 1])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dpsd.images.names import Shape
from dpsd.images.value_range import ValueRange
from dpsd.synthesis.blending import Mixed
from dpsd.synthesis.drawn import Silhouettes, Strokes, StructuredNoise
from dpsd.synthesis.fractals import Fractals
from dpsd.synthesis.glyphs import Glyphs
from dpsd.synthesis.leaves import Leaves
from dpsd.synthesis.names import DEFAULT, DIFFUSION, FOLDER, MIXED, NO_SOURCE, check_sources
from dpsd.synthesis.networks import RandomNetworks
from dpsd.synthesis.photographs import Crops, Folder
from dpsd.synthesis.public import Public
from dpsd.synthesis.sources import Source, chunk_size

#: The sources that need only a shape, by name; a folder needs a path as well.
SOURCES: dict[str, Callable[[Shape], Source]] = {
    source.name: source
    for source in (
        *(StructuredNoise, Strokes, Silhouettes, Glyphs, Leaves, Fractals, Crops),
        RandomNetworks,
    )
}

#: The number of chunks of images that are shuffled together and in memory at once.
_CHUNKS = 16


class Mixture:
    """Public sources and their shares.

    Args:
        sources: the sources; empty if the generator makes all queries.
        shares: a positive share for each source; equal by default.
    """

    def __init__(self, sources: Sequence[Source], shares: Sequence[float] | None = None) -> None:
        self.sources = list(sources)
        total = sum(shares) if shares else len(sources)
        self.shares = [share / total for share in shares or [1.0] * len(sources)]

    def sample(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make queries, uint8 ``(count, C, H, W)``, and return the source of each with them.

        Sources are numbers, uint8 ``(count,)``.
        """
        made = list(self.blocks(count, generator=generator))
        images = [torch.empty((0, *self.sources[0].shape), dtype=torch.uint8)]
        source = torch.tensor([number for _, number in made], dtype=torch.uint8)
        return torch.cat(images + [block for block, _ in made]), torch.repeat_interleave(
            source, torch.tensor([len(block) for block, _ in made], dtype=torch.long)
        )

    def blocks(self, count: int, *, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        """Make the same queries in blocks, uint8 ``(n, C, H, W)``, each with a source's number."""
        for number, (source, part) in enumerate(
            zip(self.sources, apportion(count, self.shares), strict=True)
        ):
            size = _CHUNKS * chunk_size(source.shape)
            for start in range(0, part, size):
                yield source.pixels(min(size, part - start), generator=generator), number

    def adapted(
        self, surprise: Mapping[int, float], spread: Mapping[int, float], *, floor: float = 0.1
    ) -> Mixture:
        """Return the mixture with shares moved halfway towards the most instructive sources.

        A source is instructive if its labels are spread over the classes and the student was often
        wrong. Each source always keeps about ``floor`` of an equal share, so that it can recover.
        """
        merit = [
            surprise.get(index, 1.0) * spread.get(index, 1.0) for index in range(len(self.sources))
        ]
        return self.towards(merit, floor=floor)

    def towards(self, merit: Sequence[float], *, floor: float = 0.1) -> Mixture:
        """Return the mixture with shares moved halfway towards the merits of the sources.

        Args:
            merit: the merit of each source, at least 0; if all are 0, nothing moves.
            floor: about this part of an equal share is what each source always keeps.
        """
        total = sum(merit)
        if total <= 0:
            return self
        least = floor / len(merit)
        shares = [
            max(least, (share + value / total) / 2)
            for share, value in zip(self.shares, merit, strict=True)
        ]
        return Mixture(self.sources, shares)


def build_mixture(
    names: Sequence[str],
    shape: Shape,
    *,
    value_range: ValueRange | None = None,
    public: Tensor | None = None,
    diffusion: Callable[[Mixture], Source] | None = None,
) -> Mixture:
    """Build a mixture from names; ``folder:PATH`` is a folder of public images, ``none`` is empty.

    ``mixed`` blends the images of all other sources of the mixture, wherever it stands among them,
    public images included. ``diffusion`` learns from the images of all others, or of those of a run
    for which none are chosen if there is no other, and is not among those that ``mixed`` blends.

    Args:
        names: the names of the sources.
        shape: the shape of the images, ``(channels, height, width)``.
        value_range: the stored values that are black and white in folders of images.
        public: public images of the domain, uint8 ``(N, *shape)``, which become the last source.
            Nothing that is drawn is as much like the domain, so half of the images are theirs.
        diffusion: makes the source ``diffusion`` from the sources that it learns from.

    Raises:
        ValueError: ``diffusion`` is among the names, and nothing makes it.
        ConfigError: :func:`~dpsd.synthesis.names.check_sources` refuses the names.

    >>> mixture = build_mixture(["noise", "mixed", "crops", "strokes"], (1, 8, 8))
    >>> [source.name for source in mixture.sources], mixture.shares
    (['noise', 'mixed', 'crops', 'strokes'], [0.25, 0.25, 0.25, 0.25])
    """
    check_sources(names)
    sources: dict[str, Source] = {}
    for name in names:
        kind, _, path = name.partition(":")
        if kind == FOLDER:
            sources[name] = Folder(shape, Path(path).expanduser(), value_range=value_range)
        elif kind in SOURCES:
            sources[name] = SOURCES[kind](shape)
    own: list[Source] = [] if public is None else [Public(public)]
    if MIXED in names:
        sources[MIXED] = Mixed(shape, [*sources.values(), *own])
    if DIFFUSION in names:
        if diffusion is None:
            raise ValueError(f"the source {DIFFUSION!r} is trained: say what makes it")
        others = list(sources.values())
        if not others and not own:
            others = [SOURCES[name](shape) for name in DEFAULT if name in SOURCES]
        sources[DIFFUSION] = diffusion(_mixture(others, own))
    return _mixture([sources[name] for name in names if name != NO_SOURCE], own)


def _mixture(drawn: list[Source], own: list[Source]) -> Mixture:
    """Return a mixture of which the domain's own images are half, if there are any."""
    return Mixture([*drawn, *own], [1.0] * len(drawn) + [float(max(1, len(drawn)))] * len(own))


def apportion(count: int, shares: Sequence[float]) -> list[int]:
    """Divide ``count`` into whole numbers in these shares.

    >>> apportion(10, [0.5, 0.25, 0.25])
    [5, 3, 2]
    """
    ends = [round(count * sum(shares[: index + 1])) for index in range(len(shares))]
    if ends:
        ends[-1] = count
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
