"""Sources are compared with the probe by what the student sees in their images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.likeness import likeness
from dpsd.distillation.releases import RoundReleases
from dpsd.models import build_classifier

CPU = Execution.of("cpu", "float32")


def shaded(low: float, high: float, count: int) -> Tensor:
    """Images of one shade each, from ``low`` to ``high``."""
    shades = torch.linspace(low, high, count).to(torch.uint8)
    return shades.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()


def releases(images: Tensor, source: Tensor) -> RoundReleases:
    return RoundReleases(
        index=1,
        queries=images,
        prior=torch.empty(len(images), 2),
        predicted=source,
        source=source,
        release=source,
    )


@pytest.fixture
def student() -> nn.Module:
    return build_classifier("cnn", input_shape=(1, 8, 8), num_classes=2, seed=0)


def test_the_source_that_looks_like_the_probe_is_named(student: nn.Module) -> None:
    images = torch.cat([shaded(0, 60, 40), shaded(190, 250, 400)])
    source = torch.cat([torch.zeros(40), torch.ones(400)]).to(torch.uint8)
    made = releases(images, source)
    for place, (low, high) in enumerate([(5, 50), (200, 240)]):
        probe = releases(shaded(low, high, 30), torch.full((30,), 255))
        shares = likeness(student, made, probe, sources=2, execution=CPU)
        assert shares[place] > 0.95
        assert sum(shares) == pytest.approx(1)


def test_a_source_does_not_gain_from_having_made_many(student: nn.Module) -> None:
    same = shaded(0, 250, 50)
    source = torch.arange(550) % 11 == 0  # a tenth as many of source 1
    images = same[torch.arange(550) % 50]
    probe = releases(same, torch.full((50,), 255))
    shares = likeness(
        student, releases(images, source.long()), probe, sources=2, execution=CPU, neighbours=2
    )
    assert shares[1] == pytest.approx(0.5, abs=0.15)


def test_the_generator_and_silent_sources_have_no_share(student: nn.Module) -> None:
    source = torch.tensor([0] * 20 + [3] * 20)  # 3 is the generator's number
    probe = releases(shaded(0, 250, 5), torch.full((5,), 255))
    made = releases(shaded(0, 250, 40), source)
    assert likeness(student, made, probe, sources=3, execution=CPU) == [1.0, 0.0, 0.0]
    none = releases(shaded(0, 250, 40), torch.full((40,), 3))
    assert likeness(student, none, probe, sources=3, execution=CPU) == [0.0, 0.0, 0.0]


def test_the_student_is_left_as_it_was(student: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    student.train()
    probe = releases(shaded(0, 250, 5), torch.full((5,), 255))
    likeness(student, releases(shaded(0, 9, 9), torch.zeros(9)), probe, sources=1, execution=CPU)
    assert student.training
    assert all(tensor.equal(before[name]) for name, tensor in student.state_dict().items())
