"""Each attack finds what a trained network knows, and nothing in one that knows nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.attacks.inversion.conftest import EXECUTION, SHAPE, World, quiet, seeded
from torch import Tensor, nn

from dpsd.attacks.inversion.attacked import attacked
from dpsd.attacks.inversion.generative import adapted, gmi, plg_mi
from dpsd.attacks.inversion.label_only import label_only
from dpsd.attacks.inversion.measures import nearer_to_training
from dpsd.attacks.inversion.planted import Memorising, memorising, untrained
from dpsd.attacks.inversion.prior_free import prior_free
from dpsd.attacks.inversion.reconstructions import Reconstructions, intended
from dpsd.images.pixels import to_unit_range
from dpsd.training.classifier import predict_classes, train_teacher

CLASSES = intended(torch.arange(3), 15)


def by_gmi(world: World, module: nn.Module) -> Reconstructions:
    return gmi(
        module, world.prior, CLASSES, restarts=5, steps=40, execution=EXECUTION,
        random=seeded(), advance=quiet,
    )  # fmt: skip


def by_plg_mi(world: World, module: nn.Module) -> Reconstructions:
    prior = adapted(
        world.prior, module, world.public, classes=torch.arange(3), steps=30,
        execution=EXECUTION, random=seeded(), advance=quiet,
    )  # fmt: skip
    return plg_mi(
        module, prior.requires_grad_(False), CLASSES, pixels=world.public, restarts=5, steps=40,
        execution=EXECUTION, random=seeded(), advance=quiet,
    )  # fmt: skip


def by_labels(world: World, module: nn.Module) -> Reconstructions:
    return label_only(
        attacked("target", module, shape=SHAPE).labels, world.prior, CLASSES, restarts=5,
        rounds=6, points=6, random=seeded(), advance=quiet,
    )  # fmt: skip


def by_pixels(world: World, module: nn.Module) -> Reconstructions:
    return prior_free(
        module, SHAPE, CLASSES, restarts=5, steps=40, execution=EXECUTION, random=seeded(),
        advance=quiet,
    )  # fmt: skip


ATTACKS = [by_gmi, by_plg_mi, by_labels, by_pixels]
Attack = Callable[[World, nn.Module], Reconstructions]


@pytest.fixture(scope="module")
def evaluator(world: World) -> nn.Module:
    return train_teacher(world.members, epochs=6, seed=1, precision="float32")


@pytest.fixture(scope="module", params=ATTACKS)
def attacking(request: pytest.FixtureRequest, world: World) -> tuple[Attack, Reconstructions]:
    """An attack, and what it made of the trained network."""
    torch.manual_seed(1)
    return request.param, request.param(world, world.trained)


def test_an_attack_succeeds_on_a_trained_network_and_not_on_an_untrained_one(
    world: World, evaluator: nn.Module, attacking: tuple[Attack, Reconstructions]
) -> None:
    def success(made: Reconstructions) -> float:
        return float((predict_classes(evaluator, made.images) == made.classes).float().mean())

    attack, made = attacking
    nothing = untrained(world.members, seed=0).eval().requires_grad_(False)
    assert success(made) > 0.55
    assert success(attack(world, nothing)) < 0.5


def test_an_attack_is_reproduced_bit_for_bit(
    world: World, attacking: tuple[Attack, Reconstructions]
) -> None:
    attack, made = attacking
    torch.manual_seed(2)
    again = attack(world, world.trained).tensors()
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, again[name]), name


def test_the_target_picks_one_of_the_restarts_and_the_order_of_classes_stands(
    attacking: tuple[Attack, Reconstructions],
) -> None:
    _, made = attacking
    assert made.images.shape == (45, *SHAPE)
    assert made.images.dtype == torch.uint8
    assert torch.equal(made.classes, CLASSES)
    # Three groups of five restarts for each of three classes.
    assert made.is_picked.view(3, 5, 3).sum(1).eq(1).all()


class Rescaled(nn.Module):
    """Other scores with the same labels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return torch.arange(len(logits)).unsqueeze(1) + (logits == logits.amax(1, keepdim=True))


def test_the_label_only_attack_sees_nothing_but_labels(world: World) -> None:
    first, other = by_labels(world, world.trained), by_labels(world, Rescaled(world.trained))
    assert torch.equal(first.images, other.images)
    assert torch.equal(first.cost, other.cost)


def test_a_class_that_the_target_never_says_cannot_be_begun(world: World) -> None:
    never = attacked("never", lambda images: torch.zeros(len(images)), shape=SHAPE)
    made = label_only(
        never.labels, world.prior, CLASSES, restarts=5, rounds=2, points=4,
        random=seeded(), advance=quiet,
    )  # fmt: skip
    assert torch.equal(made.is_found, made.classes == 0)
    # A target that says one class for everything lets its sphere grow in every round.
    assert made.cost[made.is_found].unique().tolist() == pytest.approx([-2 * 1.3])


def test_pixels_lead_to_the_records_of_a_model_that_memorised_them(world: World) -> None:
    model = memorising(world.members, seed=0)
    made = by_pixels(world, model)
    pixels, records = to_unit_range(made.images).flatten(1), model.records
    nearest = torch.cdist(pixels, records).min(1)
    assert torch.equal(model.labels[nearest.indices], made.classes)
    share = nearer_to_training(
        pixels, made.classes,
        (records, model.labels),
        (to_unit_range(world.others.images).flatten(1), world.others.labels),
    )  # fmt: skip
    assert share.low > 0.5


def test_a_memorising_model_answers_with_distances_by_class() -> None:
    records = torch.stack([torch.full(SHAPE, value, dtype=torch.uint8) for value in (0, 51, 255)])
    model = Memorising(records, torch.tensor([0, 0, 2]), num_classes=3)
    logits = model(torch.full((1, *SHAPE), 0.3))
    assert logits[0, [0, 2]].tolist() == pytest.approx([-64 * 0.1**2, -64 * 0.7**2], rel=1e-4)
    assert int(logits.argmin()) in (1, 2)


def test_batchnorm_statistics_are_kept_near_to_what_was_stored(world: World) -> None:
    """The mean brightness of reconstructions follows the mean that the layer stored."""

    def brightness(mean: float) -> float:
        layer = nn.BatchNorm2d(1, affine=False)
        layer.running_mean = torch.tensor([mean])
        layer.running_var = torch.tensor([0.01])
        module = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3)).eval().requires_grad_(False)
        return float(by_pixels(world, module).images.float().mean())

    assert brightness(0.2) < 90 < 160 < brightness(0.8)
