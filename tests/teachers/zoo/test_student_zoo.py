"""Students of one's own: each is trained, or one line says why not before anything is spent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.models import build_classifier
from dpsd.transcription.plan import Plan
from dpsd.transcription.rehearsal import rehearse

SHAPE, CLASSES = (1, 8, 8), 3


class View(nn.Module):
    """Flattens with ``view`` after a convolution, which fails on channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        logits: Tensor = self.last(x.view(x.size(0), -1))
        return logits


class Tied(nn.Module):
    """Two layers of one weight, which safetensors does not store as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.last = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.second(self.first(x.flatten(1)).relu()).relu())
        return logits


class Auxiliary(nn.Module):
    """Its last linear layer is not called in ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.unused = nn.Linear(64, CLASSES), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x.flatten(1))
        return logits


class Branch(Auxiliary):
    """Which layer it calls depends on the images, which no export can follow."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits: Tensor = self.last(x) if x.mean() > 0.5 else self.unused(x)
        return logits


class Normalised(nn.Module):
    """BatchNorm over features, counts its calls, and keeps some of it out of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES)
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.calls: Tensor

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.layers(x)


class Structured(Normalised):
    def forward(self, x: Tensor) -> Any:
        return {"logits": self.layers(x)}


class NotTrained(Normalised):
    """Works in eval mode alone."""

    def forward(self, x: Tensor) -> Any:
        if self.training:
            raise RuntimeError("there is no training here")
        return self.layers(x)


class NotDifferentiable(Auxiliary):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class NotFinite(Auxiliary):
    """Divides by zero where an image is flat, and in training everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (0.0 if self.training else 1.0)


class NotStorable(Auxiliary):
    """Restores another state than the one that it saved."""

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("this state is of another model")


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x.flatten(1))
        return logits


def frozen() -> nn.Module:
    return Normalised().requires_grad_(False)


def partly_frozen() -> nn.Module:
    module = Normalised()
    module.layers[1].requires_grad_(False)
    return module


def wide() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES + 4))


TRAINED: dict[str, Callable[[], nn.Module]] = {
    "view after a convolution": View,
    "tied weights": Tied,
    "double": lambda: Normalised().double(),
    "double, view": lambda: View().double(),
    "a layer that is not called": Auxiliary,
    "a branch": Branch,
    "buffers out of the state": Normalised,
    "lazy": Lazy,
    "partly frozen": partly_frozen,
    "a convolution as its last layer": lambda: nn.Sequential(
        nn.Conv2d(1, CLASSES, 8), nn.Flatten()
    ),
}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "answers with a dictionary": (Structured, "a dict, not a tensor"),
    "too many classes": (wide, r"logits of shape \(2, 3\) are needed"),
    "frozen": (frozen, "no trainable parameters"),
    "cannot be trained": (
        NotTrained,
        r"fails in a training step.*there is no training here \(at test_student_zoo.py:\d+, in for",
    ),
    "cannot be differentiated": (NotDifferentiable, "fails in a training step"),
    "loses what is finite": (NotFinite, "a loss that is not finite"),
    "cannot be restored": (NotStorable, "being saved and loaded.*another model"),
}


def bright(images: Tensor) -> Tensor:
    return 20 * images[:, 0, :6].reshape(len(images), CLASSES, 16).mean(-1)


def transcribe(student: nn.Module, out: Path, budget_file: Path, **changed: Any) -> dpsd.Run:
    return dpsd.transcribe(
        dpsd.load_teacher(bright, input_shape=SHAPE, scores="logits", name="thirds"),
        student=student,
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=4.0, adjacency="response"),
        out=out,
        budget_file=budget_file,
        recipe=dpsd.Recipe(rounds=2, queries=64, generator_steps=1, device="cpu", **changed),
    )


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_student_is_trained_and_read_back(name: str, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = transcribe(TRAINED[name](), tmp_path / "run", tmp_path / "budget", precision=precision)
    assert run.certificate.events["teacher"] == 128
    images = torch.rand(5, *SHAPE)
    again = dpsd.RunDirectory.open(tmp_path / "run").student(TRAINED[name]())
    with torch.no_grad():
        torch.testing.assert_close(again(images), run.student(images))


@pytest.mark.parametrize("name", REFUSED)
def test_a_student_that_cannot_be_trained_costs_nothing(name: str, tmp_path: Path) -> None:
    make, why = REFUSED[name]
    with pytest.raises(ConfigError, match=why) as refusal:
        transcribe(make(), tmp_path / "run", tmp_path / "budget")
    assert refusal.value.exit_code == 2
    assert "\n" not in "".join(refusal.value.parts)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "budget").exists()


def test_a_rehearsal_leaves_no_trace() -> None:
    """Neither in the models nor in the random numbers that come after it."""
    student = build_classifier("lenet5", input_shape=SHAPE, num_classes=CLASSES, seed=1)
    plan = Plan.of(
        dpsd.load_teacher(bright, input_shape=SHAPE, scores="logits"),
        mechanism=dpsd.RandomizedResponse(),
        target=dpsd.Budget(epsilon=4.0, adjacency="response"),
        recipe=dpsd.Recipe(rounds=1, queries=64, device="cpu"),
        student=student,
    )
    execution = Execution.of("cpu")
    models = plan.models(execution)
    before = [value.clone() for model in models for value in model.state_dict().values()]
    random = torch.random.get_rng_state()
    assert not list(rehearse(plan, execution, student=models[0], generator=models[1]))
    after = [value for model in models for value in model.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert torch.random.get_rng_state().equal(random)
