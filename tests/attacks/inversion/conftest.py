"""Three of the digits, a network that knows them, and an attacker's prior, made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import nn

from dpsd.attacks.inversion.prior import Prior, fit_prior
from dpsd.attacks.inversion.public import public_images
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution
from dpsd.training.classifier import train_teacher

SHAPE = (1, 8, 8)
EXECUTION = Execution.of("cpu", "float32")


def three_digits(split: Literal["train", "test"]) -> LabelledImages:
    data = load_dataset("digits", split)
    kept = data.subset((data.labels < 3).nonzero().flatten())
    return LabelledImages(
        images=kept.images,
        labels=kept.labels,
        class_names=("0", "1", "2"),
        name="digits",
        split=split,
    )


def quiet(done: int) -> None:
    """Show no progress."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class World:
    """What all attacks of this folder share."""

    members: LabelledImages
    others: LabelledImages
    public: torch.Tensor
    prior: Prior
    trained: nn.Module


@pytest.fixture(scope="session")
def world() -> World:
    members, others = three_digits("train"), three_digits("test")
    public = public_images("strokes", others, most=512, seed=0).pixels
    prior = Prior(SHAPE, latent_dim=16, width=8, seed=0)
    fit_prior(prior, public, steps=40, execution=EXECUTION, random=seeded(), advance=quiet)
    trained = train_teacher(members, epochs=6, precision="float32").requires_grad_(False)
    return World(members, others, public, prior.requires_grad_(False), trained)
