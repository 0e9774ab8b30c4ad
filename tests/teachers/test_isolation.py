"""What one teacher does reaches no other teacher, no other answer, and nothing that is drawn later.

A change of one member of an ensemble must change that member's answers alone, and a change of one
answer that answer alone, or every ε that is stated of them is too small.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dpsd
from dpsd.errors import AnswerError, TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import Teacher, load_teacher
from dpsd.teachers.batches import in_batches
from dpsd.teachers.ensemble import Committee, EnsembleTeacher

SHAPE, CLASSES = (1, 8, 8), 2
IMAGES = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1))


class Standardises(nn.Module):
    """As written every day: in place, by the mean of its own data."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(mean))

    def forward(self, images: Tensor) -> Tensor:
        images -= self.mean
        light = images.mean((1, 2, 3))
        return torch.stack([-light, light], dim=1)


def module_of(mean: float, _: Path) -> Teacher:
    return load_teacher(Standardises(mean), input_shape=SHAPE, scores="logits")


def callable_of(mean: float, _: Path) -> Teacher:
    own = Standardises(mean)
    return load_teacher(
        lambda images: own(images), input_shape=SHAPE, scores="logits", name=str(random.random())
    )


def numpy_of(mean: float, _: Path) -> Teacher:
    def scores(images: Tensor) -> Tensor:
        pixels = images.numpy()
        pixels -= mean
        light = torch.from_numpy(pixels.mean((1, 2, 3)))
        return torch.stack([-light, light], dim=1)

    return load_teacher(scores, input_shape=SHAPE, scores="logits", name=str(random.random()))


def exported_of(mean: float, folder: Path) -> Teacher:
    path = folder / f"{random.random()}.pt2"
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Standardises(mean).eval(), (torch.rand(4, *SHAPE),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, path)
    return load_teacher(path, scores="logits")


@pytest.mark.parametrize("kind", [module_of, callable_of, numpy_of, exported_of])
def test_a_member_that_changes_its_images_changes_no_other_member(
    kind: Callable[[float, Path], Teacher], tmp_path: Path
) -> None:
    others = [kind(0.1 * number, tmp_path) for number in range(1, 4)]
    answers = [
        open_for_mechanism(Committee([kind(mean, tmp_path), *others]).ask(IMAGES, query_batch=0))
        for mean in (0.0, 1.0)
    ]
    assert not torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1:], answers[1][1:])


def test_nor_does_a_member_of_one_architecture() -> None:
    answers = []
    for mean in (0.0, 1.0):
        teacher = EnsembleTeacher(
            Standardises(0.0),
            {"mean": torch.tensor([mean, 0.1, 0.2])},
            input_shape=SHAPE,
            num_classes=CLASSES,
            description="three",
            key=b"k",
        )
        answers.append(open_for_mechanism(teacher.ask(IMAGES, query_batch=0)))
    assert not torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1:], answers[1][1:])


def test_images_are_left_as_they_were() -> None:
    before = IMAGES.clone()
    load_teacher(Standardises(0.7), input_shape=SHAPE, scores="logits").ask(IMAGES, query_batch=0)
    assert torch.equal(IMAGES, before)


class OneBuffer(nn.Module):
    """Answers every batch into the same place."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.zeros(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        self.out[:] = images.flatten(1)[:, :CLASSES]
        return self.out


def test_answers_in_one_buffer_are_those_of_their_own_images() -> None:
    found = in_batches(OneBuffer(), IMAGES, size=4)
    assert torch.equal(found, IMAGES.flatten(1)[:, :CLASSES])


def test_teachers_of_one_module_are_refused(tmp_path: Path) -> None:
    """Filled with one teacher's weights after another's, it answers for the last alone."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    teachers = []
    for seed in range(3):
        torch.manual_seed(seed)
        weights = tmp_path / f"{seed}.pt"
        torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).state_dict(), weights)
        teachers.append(load_teacher(module, input_shape=SHAPE, weights=weights))
    with pytest.raises(TeacherError, match="give every teacher a module of its own"):
        Committee(teachers)


def test_a_teacher_that_was_trained_on_is_not_asked(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    teacher = load_teacher(module, input_shape=SHAPE)
    with torch.no_grad():
        module.get_parameter("1.weight")[0, 0] += 1
    with pytest.raises(TeacherError, match="changed since it was made a teacher"):
        dpsd.transcribe(
            teacher,
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=1.0, adjacency="response"),
            recipe=dpsd.Recipe(rounds=1, queries=20, generator_steps=1),
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "releases").exists() or not list(
        (tmp_path / "run" / "releases").iterdir()
    )


def test_what_a_teacher_draws_is_not_seen_in_what_is_drawn_after_it() -> None:
    def draws(images: Tensor) -> Tensor:
        torch.rand(3)
        np.random.rand(3)
        random.random()
        return images.flatten(1)[:, :CLASSES]

    teacher = load_teacher(draws, input_shape=SHAPE, scores="logits")
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = (float(torch.rand(1)), float(np.random.rand()), random.random())
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    teacher.ask(IMAGES, query_batch=0)
    assert (float(torch.rand(1)), float(np.random.rand()), random.random()) == expected


@pytest.mark.parametrize("way", ["type", "shape", "kind"])
def test_types_and_shapes_tell_no_answer(way: str) -> None:
    said = "answers_0211002"

    def tells(images: Tensor) -> object:
        if len(images) != len(IMAGES):
            return images.flatten(1)[:, :CLASSES]  # the probe
        if way == "type":
            raise type(said, (ValueError,), {})("x")
        return torch.zeros(1021, 3, 0) if way == "shape" else type(said, (), {})()

    teacher = load_teacher(tells, input_shape=SHAPE, scores="logits")
    with pytest.raises(AnswerError) as caught:
        teacher.ask(IMAGES, query_batch=0)
    assert said not in str(caught.value)
    assert "1021" not in str(caught.value)
    assert {"type": "ValueError", "shape": "another shape", "kind": "no tensor"}[way] in str(
        caught.value
    )
