"""Linear classifiers on frozen backbones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpsd.distillation.polish import restarted
from dpsd.errors import ConfigError
from dpsd.models import build_classifier
from dpsd.models.backbones import MADE_FOR, Reshaped, fitted, untrained_backbone
from dpsd.models.frozen import linear_on

SHAPE = (1, 8, 8)


class Viewing(nn.Module):
    """A convolution whose maps are flattened in a way that fails on channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.conv(images)
        return maps.view(len(maps), -1)


def backbone() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers).eval()


def student(features: nn.Module) -> nn.Module:
    return build_classifier(
        "scattering", input_shape=SHAPE, num_classes=3, seed=0, features=features
    )


def test_training_changes_the_head_and_nothing_of_the_backbone() -> None:
    model, given = student(backbone()), backbone().state_dict()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    head = model.get_submodule("head").state_dict()["weight"].clone()
    model.train()
    for _ in range(2):
        loss = model(torch.rand(16, *SHAPE)).square().sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    kept = model.get_submodule("features.backbone").state_dict()
    assert all(kept[name].equal(part) for name, part in given.items())
    assert not model.get_submodule("head").state_dict()["weight"].equal(head)


def test_images_have_gradients_through_a_backbone() -> None:
    images = torch.rand(2, *SHAPE, requires_grad=True)
    torch.autograd.backward(student(backbone())(images).sum())
    assert images.grad is not None
    assert bool(images.grad.any())


def test_a_restarted_student_has_the_same_backbone_and_another_head() -> None:
    model = student(backbone())
    fresh = restarted(model, seed=7)
    one, other = model.state_dict(), fresh.state_dict()
    assert not other["head.weight"].equal(one["head.weight"])
    own = [name for name in one if name.startswith("features.")]
    assert own
    assert all(other[name].equal(one[name]) for name in own)


def test_the_backbone_that_is_given_stays_as_it_is() -> None:
    given = backbone()
    student(given)
    assert all(weight.requires_grad for weight in given.parameters())


def test_a_backbone_in_double_precision_is_handed_what_it_takes() -> None:
    images = torch.rand(4, *SHAPE)
    exact, given = student(backbone().double()), student(backbone())
    assert exact(images).dtype == torch.float32
    assert torch.allclose(exact(images), given(images), atol=1e-5)


def test_a_backbone_that_fails_on_channels_last_gets_contiguous_images() -> None:
    model = student(Viewing())
    images = torch.rand(4, *SHAPE).contiguous(memory_format=torch.channels_last)
    whole = model(images)
    # Ensembles compute the features of all members once, with the parts before the head.
    body = nn.Sequential(*list(model.children())[:-1])
    assert torch.allclose(model.get_submodule("head")(body(images)), whole)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (nn.Flatten(0), "features are"),
        (nn.Threshold(1.0, float("nan")), "not finite"),
        (nn.Conv2d(3, 4, 3), "failed"),
    ],
)
def test_what_returns_no_features_is_refused(features: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        student(features)


def test_features_are_refused_for_a_model_that_learns_its_own() -> None:
    with pytest.raises(ConfigError, match="'scattering', not 'cnn'"):
        build_classifier("cnn", input_shape=SHAPE, num_classes=3, features=backbone())


def test_feature_maps_are_pooled() -> None:
    head = linear_on(backbone(), input_shape=SHAPE, num_classes=3).get_submodule("head")
    assert head.state_dict()["weight"].shape == (3, 4 * 3 * 3)


@pytest.mark.parametrize("name", sorted(MADE_FOR))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 48), (1, 224, 224)])
def test_own_backbones_take_images_of_any_shape(name: str, shape: tuple[int, int, int]) -> None:
    module = fitted(untrained_backbone(name), made_for=MADE_FOR[name], input_shape=shape)
    features = module(torch.rand(2, *shape))
    assert features.shape == (2, 1152)
    assert bool(features.isfinite().all())


def test_a_large_image_is_averaged_and_not_sampled() -> None:
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    small = Reshaped((3, 32, 32))(stripes)
    assert small.shape == (1, 3, 32, 32)
    assert torch.allclose(small, torch.full_like(small, 0.5))
