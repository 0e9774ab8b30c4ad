"""The named classifiers and the ways to bring one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpsd.errors import ConfigError, UnknownNameError
from dpsd.images.names import Shape
from dpsd.models import PixelNormalize, build_classifier, load_factory, model_names

NARROW = ["cnn", "lenet5", "resnet8"]
DEEP = {"resnet18", "resnet34", "resnet50", "wrn40-2", "vgg11", "mobilenetv2"}
SMALL_SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28)]
CASES = [
    (name, shape) for name in model_names() for shape in SMALL_SHAPES[: 2 if name in DEEP else 3]
]


class Plain(nn.Module):
    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(images.flatten(1))
        return scores


def optionless() -> nn.Module:
    return Plain((1, 8, 8), 10)


def broken(**_: object) -> nn.Module:
    raise KeyError("weights")


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_name_takes_every_small_shape(name: str, shape: Shape) -> None:
    model = build_classifier(name, input_shape=shape, num_classes=7, seed=0)
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert isinstance(list(model.modules())[-1], nn.Linear)
    if name != "scattering":  # whose features are fixed, and need neither
        assert isinstance(next(model.children()), PixelNormalize)
        assert any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert model.training


@pytest.mark.parametrize("name", ["cnn", "lenet5", "mobilenetv2", "resnet18", "wrn16-1"])
def test_large_images(name: str) -> None:
    build_classifier(name, input_shape=(3, 224, 224), num_classes=3, seed=0)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_large_residual_networks_have_the_structure_of_torchvision(name: str, weights: int) -> None:
    """By its documented numbers of weights, and a map of seven by seven at the end."""
    model = build_classifier(name, input_shape=(3, 224, 224), num_classes=1000, seed=0)
    assert sum(weight.numel() for weight in model.parameters()) == weights
    features = torch.nn.Sequential(*list(model.children())[:2]).eval()
    with torch.no_grad():
        assert features(torch.rand(1, 3, 224, 224)).shape[2:] == (7, 7)


@pytest.mark.parametrize("shape", [(1, 9, 13), (2, 65, 31), (3, 100, 70)])
@pytest.mark.parametrize("name", ["cnn", "lenet5", "mobilenetv2", "resnet8", "vgg11"])
def test_odd_and_oblong_images(name: str, shape: Shape) -> None:
    build_classifier(name, input_shape=shape, num_classes=3, seed=0)


@pytest.mark.parametrize("shape", [(1, 520, 8), (3, 8, 260)])
@pytest.mark.parametrize("name", model_names())
def test_long_thin_images(name: str, shape: Shape) -> None:
    build_classifier(name, input_shape=shape, num_classes=3, seed=0)


def test_the_last_linear_layer_sees_flat_features() -> None:
    model = build_classifier("resnet20", input_shape=(3, 32, 32), num_classes=10, seed=0)
    seen: list[Tensor] = []
    head = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    model(torch.rand(4, 3, 32, 32))
    assert seen[0].shape == (4, head.in_features)


@pytest.mark.parametrize("name", NARROW)
def test_seed_fixes_the_weights_and_spares_the_global_generator(name: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (
        build_classifier(name, input_shape=(1, 8, 8), num_classes=3, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_a_seed_the_global_generator_decides() -> None:
    torch.manual_seed(3)
    build_classifier("cnn", input_shape=(1, 8, 8), num_classes=3)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert not torch.equal(after, torch.get_rng_state())


def test_unknown_name_suggests() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resnet8'"):
        build_classifier("resnet9", input_shape=(1, 28, 28), num_classes=10)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 0), (1, 28.0, 28)])
def test_bad_shape(shape: Shape) -> None:
    with pytest.raises(ConfigError, match="input_shape"):
        build_classifier("cnn", input_shape=shape, num_classes=10)


def test_too_small_an_image_and_too_few_classes() -> None:
    with pytest.raises(ConfigError, match="'vgg11' takes images of at least 8x8"):
        build_classifier("vgg11", input_shape=(1, 4, 8), num_classes=10)
    with pytest.raises(ConfigError, match="at least 2"):
        build_classifier("cnn", input_shape=(1, 8, 8), num_classes=1)


def test_module_returned_as_it_is_with_its_modes() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    model[0].eval()
    assert build_classifier(model, input_shape=(1, 8, 8), num_classes=10) is model
    assert model.training
    assert not model[0].training
    assert model[0].num_batches_tracked == 0


def test_factories() -> None:
    for factory in (Plain, optionless):
        built = build_classifier(factory, input_shape=(1, 8, 8), num_classes=10)
        assert isinstance(built, Plain)


def test_factory_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home_made.py").write_text(
        "from torch import nn\n"
        "def net(*, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    (tmp_path / "home_broken.py").write_text("import absent_neighbour\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = build_classifier("home_made:net", input_shape=(1, 8, 8), num_classes=5)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"failed to import: ModuleNotFoundError.*neighbour"):
        load_factory("home_broken:net")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent_package.models:net", "module 'absent_package.models' .* not found"),
        ("torch.absent:net", "not found"),
        ("torch:absent", "module 'torch' has no attribute 'absent'"),
        ("torch:", "not of the form"),
        ("torch:__version__", "not something to call"),
    ],
)
def test_load_factory_errors(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_factory(path)


def test_what_factories_do_wrong() -> None:
    with pytest.raises(ConfigError, match="factory 'broken' failed: KeyError: 'weights'"):
        build_classifier(broken, input_shape=(1, 8, 8), num_classes=10)
    with pytest.raises(ConfigError, match="returned a int"):
        build_classifier(lambda: 3, input_shape=(1, 8, 8), num_classes=10)
    with pytest.raises(ConfigError, match=r"with \(2, 10\); logits of shape \(2, 4\)"):
        build_classifier(optionless, input_shape=(1, 8, 8), num_classes=4)
    with pytest.raises(ConfigError, match=r"fails on inputs of shape .*: RuntimeError"):
        build_classifier(optionless, input_shape=(1, 9, 9), num_classes=10)
