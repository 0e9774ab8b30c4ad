"""Several students' agreement, taught to one."""

from __future__ import annotations

import torch
from torch import nn

from dpsd.devices.execution import Execution
from dpsd.distillation.polish import agreed, fit_to_agreed, restarted
from dpsd.models import build_classifier

EXECUTION = Execution.of("cpu", "float32")


def student(seed: int) -> nn.Module:
    return build_classifier("cnn", input_shape=(1, 8, 8), num_classes=3, seed=seed)


def test_restarts_differ_by_seed_alone() -> None:
    original = student(0)
    before = original.state_dict()["head.weight"].clone()
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    one, same, other = (restarted(original, seed=seed) for seed in (1, 1, 2))
    assert torch.random.get_rng_state().equal(state)
    weights = [module.state_dict()["head.weight"] for module in (original, one, same, other)]
    assert weights[0].equal(before)
    assert weights[1].equal(weights[2])
    assert not weights[1].equal(weights[0])
    assert not weights[1].equal(weights[3])


def test_agreement_is_the_mean_and_can_be_learned() -> None:
    students = [student(seed) for seed in (1, 2, 3)]
    images = torch.randint(
        0, 256, (256, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    target = agreed(students, images, EXECUTION)
    each = torch.stack([EXECUTION.predict(one, images).softmax(-1) for one in students])
    torch.testing.assert_close(target, each.mean(0))
    pupil = student(4)

    def distance() -> float:
        return float((agreed([pupil], images, EXECUTION) - target).abs().mean())

    before, steps = distance(), []
    fit_to_agreed(
        pupil,
        images,
        target,
        steps=60,
        batch_size=64,
        learning_rate=5e-3,
        augment="shift",
        execution=EXECUTION,
        random=torch.Generator().manual_seed(0),
        advance=lambda: steps.append(1),
    )
    assert len(steps) == 60
    assert distance() < before / 2
    assert not pupil.training
