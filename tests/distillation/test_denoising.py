"""Diffusion: noise schedule, training on public images, and drawing new ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.denoising import (
    DenoiserTraining,
    Steering,
    cosine,
    draw_images,
    fit_denoiser,
)
from dpsd.models.denoiser import build_denoiser

SHAPE = (1, 8, 8)
EXECUTION = Execution.of("cpu", "float32")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Knowing(nn.Module):
    """The perfect denoiser of a single image, in [-1, 1]."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        kept, noisy = cosine(time)
        noise = (images - kept * self.image) / noisy
        return kept * noise - noisy * self.image


def draw(denoiser: nn.Module, count: int = 6, steering: Steering = torch.zeros_like) -> Tensor:
    return draw_images(
        denoiser,
        count,
        shape=SHAPE,
        steps=8,
        execution=EXECUTION,
        random=seeded(),
        steering=steering,
    )


@given(time=st.floats(0, 1))
def test_the_schedule_keeps_the_variance(time: float) -> None:
    kept, noisy = cosine(torch.tensor([time]))
    assert float(kept**2 + noisy**2) == pytest.approx(1, abs=1e-5)


def test_a_perfect_denoiser_draws_what_it_knows() -> None:
    image = torch.rand(SHAPE, generator=seeded(3))
    drawn = draw(Knowing(2 * image - 1))
    assert drawn.sub(image).abs().max() < 1e-4


def test_steering_moves_what_is_drawn() -> None:
    seen = []

    def brighter(images: Tensor) -> Tensor:
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        seen.append(len(images))
        return torch.full_like(images, 0.2)

    denoiser = build_denoiser(SHAPE, seed=0).eval()
    plain, steered = draw(denoiser), draw(denoiser, steering=brighter)
    assert seen == [6] * 6  # not in the last two of eight steps
    assert steered.mean() > plain.mean() + 0.05
    assert 0 <= float(steered.min()) <= float(steered.max()) <= 1


def test_training_follows_its_seed_and_learns_the_images() -> None:
    """All images are bright on the left, and a trained denoiser draws such images."""
    pixels = torch.zeros((64, *SHAPE), dtype=torch.uint8)
    pixels[..., :4] = torch.randint(180, 256, (64, 1, 8, 4), generator=seeded(), dtype=torch.uint8)

    def trained(seed: int, steps: int) -> tuple[nn.Module, float]:
        denoiser = EXECUTION.place(build_denoiser(SHAPE, seed=0))
        loss = fit_denoiser(
            denoiser,
            pixels,
            training=DenoiserTraining(steps=steps, batch_size=16, learning_rate=5e-3),
            execution=EXECUTION,
            random=seeded(seed),
            advance=lambda: None,
        )
        return denoiser, loss

    assert trained(1, 3)[1] == trained(1, 3)[1] != trained(2, 3)[1]
    denoiser, loss = trained(0, 60)
    assert loss < trained(0, 1)[1] / 2
    drawn = draw(denoiser, 32)
    assert drawn[..., :4].mean() > drawn[..., 4:].mean() + 0.4
