"""A target is frozen in eval mode, and those that can only be asked show labels alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd.attacks.inversion.attacked import attacked
from dpsd.distillation.generator import PenultimateFeatures
from dpsd.errors import ConfigError

SHAPE = (1, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3)
    )


def test_a_module_in_training_mode_is_attacked_in_eval_mode() -> None:
    module = network().train()
    target = attacked("own", module, shape=SHAPE)
    assert target.module is not None
    assert not any(part.training for part in target.module.modules())
    assert not any(weight.requires_grad for weight in target.module.parameters())
    images = torch.rand(4, *SHAPE)
    assert torch.allclose(target.module(images)[:1], target.module(images[:1]), atol=1e-5)
    # The caller's module stays as it was, and what is done to it later does not matter.
    assert all(part.training for part in module.modules())
    before = target.module(images)
    nn.init.zeros_(next(module[4].parameters()))
    assert torch.equal(target.module(images), before)


def test_a_teacher_put_into_training_mode_is_attacked_in_eval_mode() -> None:
    module = network()
    teacher = dpsd.load_teacher(
        module, input_shape=SHAPE, num_classes=3, normalization=([0.5], [0.25])
    )
    target = attacked("teacher", teacher, shape=SHAPE)
    assert target.module is not None
    module.train()
    images = torch.rand(4, *SHAPE).requires_grad_()
    logits = target.module(images)
    assert torch.allclose(logits, module.eval()((images - 0.5) / 0.25), atol=1e-5)
    (gradient,) = torch.autograd.grad(logits.sum(), [images])
    assert float(gradient.abs().sum()) > 0
    assert torch.equal(target.labels(images.detach()), logits.argmax(1))


def test_a_teacher_of_probabilities_has_their_logarithms_as_logits() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))
    teacher = dpsd.load_teacher(module, input_shape=SHAPE, num_classes=3)
    target = attacked("teacher", teacher, shape=SHAPE)
    assert target.module is not None
    images = torch.rand(4, *SHAPE)
    assert torch.allclose(target.module(images).exp(), module(images), atol=1e-5)


def test_the_features_of_a_teacher_are_those_of_all_images_at_once() -> None:
    module = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 3))
    teacher = dpsd.load_teacher(module, input_shape=(1, 64, 64), num_classes=3)
    target = attacked("teacher", teacher, shape=(1, 64, 64))
    assert target.module is not None
    with PenultimateFeatures(target.module) as features:
        target.module(torch.rand(200, 1, 64, 64))
    assert features.last.shape == (200, 64)


def test_what_can_only_be_asked_has_no_module() -> None:
    def scores(images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], 1)

    images = torch.cat([torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)])
    asked = attacked("a function", scores, shape=SHAPE)
    labels = attacked("labels", lambda images: scores(images).argmax(1), shape=SHAPE)
    teacher = dpsd.load_teacher(scores, input_shape=SHAPE, num_classes=2)
    for target in (asked, labels, attacked("teacher", teacher, shape=SHAPE)):
        assert target.module is None
        assert target.labels(images).tolist() == [1, 0]
        assert target.labels(images).dtype == torch.int64


def test_functions_are_told_apart_by_their_names_and_answers() -> None:
    def darker(images: Tensor) -> Tensor:
        return (images.mean((1, 2, 3)) < 0.5).long()

    key = attacked("one", darker, shape=SHAPE).key
    assert attacked("one", darker, shape=SHAPE).key == key
    assert attacked("other", darker, shape=SHAPE).key != key
    assert attacked("one", lambda images: 1 - darker(images), shape=SHAPE).key != key


def test_a_module_without_rows_of_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match="row of logits"):
        attacked("own", nn.Flatten(0), shape=SHAPE)
