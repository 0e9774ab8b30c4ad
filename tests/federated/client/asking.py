"""A client with a small teacher that remembers what it was shown, and requests to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dpsd
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.requests import Code, Hello, Reply, Request
from dpsd.runs.budgets import budget_of
from dpsd.teachers import CallableTeacher, Committee

SHAPE = (1, 8, 8)
CLASSES = 3
FEDERATION = "f00d"
HELLO = Hello(federation=FEDERATION, shape=SHAPE, num_classes=CLASSES)
TARGET = dpsd.Budget(epsilon=2.0, delta=1e-5, adjacency="response")
PLAN = AnswerPlan(rounds=4, queries=10)
#: The time that the clients' clock shows.
NOW = 1_000.0


class Shown:
    """A function to ask, which remembers every image, and may fail."""

    def __init__(self) -> None:
        self.images: Counter[bytes] = Counter()
        self.fails = False

    def __call__(self, images: Tensor) -> Tensor:
        self.images.update(row.numpy().tobytes() for row in (images * 255).round().byte())
        if self.fails:
            raise RuntimeError("class 2 of patient 7 overflowed")
        return 20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)


def teacher_of(shown: Shown) -> dpsd.Teacher:
    """A teacher that has not been asked yet."""
    teacher = CallableTeacher(
        shown, input_shape=SHAPE, num_classes=CLASSES, scores="logits", name="thirds"
    )
    shown.images.clear()  # what was asked to learn the interface
    teacher.is_free = False  # so that it is shown nothing but what is asked
    return teacher


def committee_of(members: int) -> Committee:
    """Teachers that look at the same thirds of an image, each with errors of its own."""

    def member(seed: int) -> dpsd.Teacher:
        bend = 0.3 * torch.randn(48, 3, generator=torch.Generator().manual_seed(seed))

        def scores(images: Tensor) -> Tensor:
            thirds = images[:, 0, :6].reshape(len(images), 3, 16)
            return 20 * thirds.mean(-1) + thirds.flatten(1) @ bend

        return dpsd.load_teacher(
            scores, input_shape=SHAPE, num_classes=CLASSES, scores="logits", name=str(seed)
        )

    return Committee([member(seed) for seed in range(members)])


class Listens(dpsd.Observer):
    """Hears what the client's operator is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notice(self, message: str) -> None:
        self.told.append(message)

    def warn(self, message: str) -> None:
        self.told.append(message)


def respondent(
    folder: Path, teacher: dpsd.Teacher | None = None, *, greeted: bool = True, **changed: Any
) -> Respondent:
    """A client in a folder, with its budget beside its directory, which takes part already."""
    teacher = teacher or teacher_of(Shown())
    settings: dict[str, Any] = {
        "mechanism": dpsd.RandomizedResponse(),
        "target": TARGET,
        "plan": PLAN,
        "account": budget_of(teacher, folder / "budget.jsonl"),
        "observer": Listens(),
        "clock": lambda: NOW,
        **changed,
    }
    client = Respondent(teacher, directory=folder / "client", **settings)
    if greeted:
        assert client.greet(HELLO).code is Code.ANSWERED
    return client


def images(*numbers: int) -> Tensor:
    """One image for each number, each different, and each of one third of the brightness."""
    found = torch.zeros((len(numbers), *SHAPE), dtype=torch.uint8)
    for place, number in enumerate(numbers):
        third = number % CLASSES
        found[place, 0, 2 * third : 2 * third + 2] = 255
        found[place, 0, 7, 0] = number
    return found


def request(*numbers: int, **changed: Any) -> Request:
    """A request about the images of these numbers."""
    settings: dict[str, Any] = {
        "federation": FEDERATION,
        "number": 1,
        "deadline": NOW + 60,
        "images": images(*numbers),
        **changed,
    }
    return Request(**settings)


def released(reply: Reply) -> Tensor:
    """The releases of a client that answered."""
    assert reply.release is not None
    return reply.release


def answered(reply: Reply) -> list[bool]:
    """Which images a client that answered has a release for."""
    assert reply.answered is not None
    return reply.answered.tolist()


def masks(*rows: str) -> Tensor:
    """Candidates, one text of zeros and ones a row."""
    return torch.tensor([[letter == "1" for letter in row] for row in rows])


def records(folder: Path) -> tuple[bytes, bytes]:
    """The ledger and the budget, byte for byte."""
    paths = (folder / "client/ledger.jsonl", folder / "budget.jsonl")
    return tuple(path.read_bytes() if path.exists() else b"" for path in paths)  # type: ignore[return-value]
