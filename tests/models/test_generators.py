"""Generators: sizes, range, seeds and the ways to bring one's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpsd.errors import ConfigError, UnknownNameError
from dpsd.images.names import Shape
from dpsd.models import DEFAULT_LATENT_DIM, build_generator, generator_names


class Flat(nn.Module):
    latent_dim = 5

    def __init__(self, pixels: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(5, pixels)
        self.scale = scale

    def forward(self, latent: Tensor) -> Tensor:
        images: Tensor = self.linear(latent).sigmoid().mul(self.scale).unflatten(1, (1, 8, -1))
        return images


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8), (1, 28, 28), (3, 30, 30), (3, 32, 32), (3, 33, 47), (1, 4, 100), (3, 224, 224)],
)
@pytest.mark.parametrize("name", generator_names())
def test_images_of_every_size(name: str, shape: Shape) -> None:
    generator = build_generator(name, input_shape=shape, seed=0)
    images = generator(torch.randn(4, DEFAULT_LATENT_DIM))
    assert images.shape == (4, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.1
    assert generator.training


@pytest.mark.parametrize(("side", "doublings"), [(8, 1), (28, 2), (32, 2), (64, 3), (224, 5)])
def test_doublings_grow_with_the_size(side: int, doublings: int) -> None:
    generator = build_generator(input_shape=(1, side, side), seed=0)
    convolutions = [part for part in generator.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == doublings + 1


@pytest.mark.parametrize("shape", [(1, 3, 28), (1, 28, 513)])
def test_sizes_it_cannot_make(shape: Shape) -> None:
    with pytest.raises(ConfigError, match=f"cannot make images of {shape[1]}x{shape[2]}"):
        build_generator(input_shape=shape)


def test_every_weight_learns_and_keeps_channels_last() -> None:
    generator = build_generator("dcgan", input_shape=(3, 16, 16), latent_dim=7, seed=0)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = generator(torch.randn(8, 7))
    assert images.is_contiguous(memory_format=torch.channels_last)
    images.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_seed_fixes_the_weights_and_spares_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    latent = torch.ones(2, DEFAULT_LATENT_DIM)
    first, second, other = (
        build_generator(input_shape=(1, 8, 8), seed=seed).eval()(latent) for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_names_and_latent_dim() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dcgan'"):
        build_generator("dcgam", input_shape=(1, 8, 8))
    with pytest.raises(ConfigError, match="latent_dim is 0"):
        build_generator(input_shape=(1, 8, 8), latent_dim=0)
    assert build_generator(input_shape=(1, 8, 8), latent_dim=3).latent_dim == 3


def test_home_made() -> None:
    module = Flat()
    assert build_generator(module, input_shape=(1, 8, 8)) is module
    assert isinstance(build_generator(Flat, input_shape=(1, 8, 8), latent_dim=5), Flat)
    with pytest.raises(ConfigError, match="latent_dim 5, not 6"):
        build_generator(Flat(), input_shape=(1, 8, 8), latent_dim=6)
    with pytest.raises(ConfigError, match="attribute latent_dim"):
        build_generator(nn.Identity(), input_shape=(1, 8, 8))
    with pytest.raises(ConfigError, match=r"images of shape \(1, 8, 9\), not \(1, 8, 8\)"):
        build_generator(Flat(72), input_shape=(1, 8, 8))
    with pytest.raises(ConfigError, match=r"outside \[0, 1\]"):
        build_generator(Flat(scale=300.0), input_shape=(1, 8, 8))
