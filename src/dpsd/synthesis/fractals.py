"""Fractals: the attractors of random iterated function systems."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpsd.synthesis.sources import Source


class Fractals(Source):
    """The attractors of two to five random affine maps: ferns, dust, spirals and branches.

    They have detail at every scale, which repeats itself in ever smaller copies. No other source
    has that: the lines of strokes and glyphs have one width, and noise, silhouettes and leaves have
    plain outlines. Points jump by the maps at random. The brightness shows how many came to a
    pixel, and the colour by which maps, on a plain ground (mostly black in grey images).

    Source: Kataoka et al., "Pre-training without Natural Images", ACCV 2020; the contraction of the
    maps: Anderson & Farrell, "Improving Fractal Pre-training", WACV 2022.
    """

    name = "fractals"
    maps = 5
    settling = 10
    steps = 32

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape

        def uniform(low: float, high: float, *each: int) -> Tensor:
            return low + (high - low) * torch.rand((count, *each), generator=generator)

        table, chances = self._systems(count, generator)
        points = (1500 + 3 * height * width // 2) // self.steps
        x, y, hue = torch.zeros((3, count, points)).unbind(0)

        def jump() -> tuple[Tensor, Tensor, Tensor]:
            taken = torch.multinomial(chances, points, replacement=True, generator=generator)
            a, b, c, d, e, f, own = table.gather(2, taken.expand(7, -1, -1)).unbind(0)
            return a * x + b * y + e, c * x + d * y + f, (hue + own) / 2

        for _ in range(self.settling):
            x, y, hue = jump()
        # The attractor fills the frame, but for some of its outermost points.
        size = torch.maximum(x.std(1, keepdim=True), y.std(1, keepdim=True)).clamp_min(1e-3)
        zoom = uniform(0.3, 0.6, 1) / size
        left = x.mean(1, keepdim=True) - (1 + uniform(-0.25, 0.25, 1)) / zoom
        top = y.mean(1, keepdim=True) - (1 + uniform(-0.25, 0.25, 1)) / zoom
        # What falls outside the frame is counted in a last place of its own.
        hits, hues = torch.zeros((2, count, height * width + 1)).unbind(0)
        one = torch.ones(()).expand(count, points)
        for _ in range(self.steps):
            x, y, hue = jump()
            column = ((x - left) * zoom * (width / 2)).floor().long()
            row = ((y - top) * zoom * (height / 2)).floor().long()
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = torch.where(inside, row * width + column, height * width)
            hits.scatter_add_(1, place, one)
            hues.scatter_add_(1, place, hue)
        hits, hues = (counted[:, :-1].view(count, 1, height, width) for counted in (hits, hues))
        usual = hits.sum((2, 3), keepdim=True) / (hits > 0).sum((2, 3), keepdim=True).clamp_min(1)
        light = 1 - torch.exp(-uniform(0.7, 4, 1, 1, 1) * hits / usual.clamp_min(1))
        turns = hues / hits.clamp_min(1) * uniform(0.2, 1.5, 1, 1, 1)
        phase = uniform(0, 1, channels, 1, 1)
        paint = 0.65 + 0.35 * torch.cos(2 * math.pi * (turns + phase))
        black = uniform(0, 1, 1, 1, 1) < (0.8 if channels == 1 else 0.4)
        ground = torch.where(black, torch.zeros(()), uniform(0, 1, channels, 1, 1))
        return torch.lerp(ground, torch.where(ground > 0.5, 1 - paint, paint), light)

    def _systems(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw affine maps, and how often each is taken.

        Returns:
            The maps, ``(7, count, maps)``: four numbers of a matrix, two of a shift and a hue; and
            their chances, ``(count, maps)``, zero for those that a system does not have.
        """

        def uniform(low: float, high: float, each: int = self.maps) -> Tensor:
            return low + (high - low) * torch.rand((count, each), generator=generator)

        number = torch.randint(2, self.maps + 1, (count, 1), generator=generator)
        used = torch.arange(self.maps) < number
        # A map contracts by its singular values s₁ ≥ s₂. Systems whose Σ (s₁ + 2 s₂) lies between
        # (5 + n) / 2 and (6 + n) / 2, for n maps, neither fill the plane nor fall into dust.
        long = uniform(0.3, 1) * used
        short = long * uniform(0.1, 1)
        scale = (5 + number + uniform(0, 1, 1)) / 2 / (long + 2 * short).sum(1, keepdim=True)
        long, short = (long * scale).clamp_max(0.95), (short * scale).clamp_max(0.95)
        turn, lean = uniform(0, 2 * math.pi), uniform(0, 2 * math.pi)
        table = torch.stack(
            [
                turn.cos() * long * lean.cos() - turn.sin() * short * lean.sin(),
                -turn.cos() * long * lean.sin() - turn.sin() * short * lean.cos(),
                turn.sin() * long * lean.cos() + turn.cos() * short * lean.sin(),
                -turn.sin() * long * lean.sin() + turn.cos() * short * lean.cos(),
                uniform(-1, 1),
                uniform(-1, 1),
                uniform(0, 1),
            ]
        )
        # Larger maps are taken more often, so that points are spread evenly over the attractor.
        return table, (long * short).clamp_min(0.02) * used
