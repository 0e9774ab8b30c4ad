"""Clients in memory, whose network and honesty fail as a test wants, and the server that asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd import Observer, RandomizedResponse, ReproducibleNoise
from dpsd.config.federation import FederationConfig
from dpsd.federated.exchange import Member
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request
from dpsd.federated.server.federation import FederatedRun
from dpsd.federated.server.starting import begin, begin_again, execute
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Mechanism

SHAPE, CLASSES = (1, 8, 8), 3

#: What each class looks like to a teacher: the brightest third of the image.
SETTINGS: dict[str, Any] = {
    "input_shape": SHAPE,
    "num_classes": CLASSES,
    "rounds": 3,
    "queries": 96,
    "sources": ("noise", "silhouettes"),
    "epochs": 1.0,
    "batch_size": 32,
    "generator_steps": 2,
    "generator_batch_size": 16,
    "exploration": 0.2,
    "deadline": 5.0,
    "patience": 0.0,
    "device": "cpu",
    "precision": "float32",
}


def truth(images: Tensor) -> Tensor:
    """The brightest third of each image, int64 ``(N,)``, of images uint8 ``(N, 1, 8, 8)``."""
    return images[:, 0, :6].reshape(len(images), 3, 16).float().mean(-1).argmax(-1)


class Linear(nn.Sequential):
    """A student that is trained in a moment."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, CLASSES))

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@dataclass
class Hospital:
    """A client that answers each image once, and repeats what it said if it is asked again.

    Args:
        key: its key.
        says: the class that its teacher says, given the true one; the truth by default.
        mechanism: its mechanism.
        budget: the number of images that it answers in all.
        spoil: changes a reply on its way, given the request.
    """

    key: str
    says: Callable[[Tensor], Tensor] = lambda label: label
    mechanism: Mechanism = field(
        default_factory=lambda: RandomizedResponse(epsilon=4.0, noise=ReproducibleNoise(seed=3))
    )
    budget: int = 10_000
    spoil: Callable[[Request, Reply], Reply | None] = lambda request, reply: reply
    is_connected: bool = True
    known: dict[bytes, Any] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    greeted: int = 0

    def greet(self, hello: Hello) -> Greeting:
        assert (hello.shape, hello.num_classes) == (SHAPE, CLASSES)
        self.greeted += 1
        return Greeting(
            code=Code.ANSWERED,
            mechanism=self.mechanism.parameters(),
            answers_left=self.budget - len(self.known),
            spent={"response": 4.0, "delta": 1e-5} if self.known else {},
            ledger=f"{len(self.known):064x}",
        )

    def answer(self, request: Request) -> Reply | None:
        self.asked.append(request)
        digests = [image.numpy().tobytes() for image in request.images]
        new = torch.tensor([digest not in self.known for digest in digests])
        if len(self.known) + int(new.sum()) > self.budget:
            return Reply(code=Code.BUDGET)
        prior = request.prior(CLASSES)
        labels = self.says(truth(request.images))
        sealed = RawAnswers.seal(
            F.one_hot(labels, CLASSES).float(),
            batch=len(labels),
            num_classes=CLASSES,
            scores="probabilities",
        )
        noise = self.mechanism.noise.for_round(request.number)
        release = self.mechanism.with_noise(noise).privatize(sealed, prior)
        for digest, row in zip(digests, release, strict=True):
            self.known.setdefault(digest, row)
        reply = Reply(
            code=Code.ANSWERED,
            release=torch.stack([self.known[digest] for digest in digests]),
            answered=torch.ones(len(request), dtype=torch.bool),
            spent={"response": 4.0, "round": 4.0 * len(self.asked), "delta": 1e-5},
            ledger=f"{len(self.known):064x}",
        )
        return self.spoil(request, reply)


@dataclass
class Network:
    """An exchange in memory."""

    hospitals: Sequence[Hospital]

    def members(self) -> list[Member]:
        return [Member(one.key, f"hospital-{one.key}") for one in self._there().values()]

    def greet(
        self, hello: Hello, members: Sequence[Member], *, deadline: float
    ) -> dict[str, Greeting]:
        there = self._there()
        return {one.key: there[one.key].greet(hello) for one in members if one.key in there}

    def ask(self, requests: Mapping[str, Request], *, deadline: float) -> dict[str, Reply]:
        assert deadline > time.time()
        there, silent = self._there(), Reply(code=Code.SILENT)
        return {
            key: (there[key].answer(request) or silent) if key in there else silent
            for key, request in requests.items()
        }

    def _there(self) -> dict[str, Hospital]:
        return {one.key: one for one in self.hospitals if one.is_connected}


class Heard(Observer):
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.warnings: list[str] = []

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def in_round(number: int, reply: Reply | None) -> Callable[[Request, Reply], Reply | None]:
    """Give another reply in one round."""
    return lambda request, own: reply if request.number == number else own


def run(
    hospitals: Sequence[Hospital],
    out: Path,
    *,
    student: str | nn.Module | None = None,
    observer: Observer | None = None,
    **changed: Any,
) -> FederatedRun:
    """Start a federation."""
    settings = {"clients": len(hospitals), **SETTINGS, **changed}
    torch.manual_seed(0)
    plan, directory = begin(FederationConfig(**settings), out, student=student or Linear())
    return execute(plan, directory, exchange=Network(hospitals), observer=observer or Heard())


def go_on(hospitals: Sequence[Hospital], out: Path, **changed: Any) -> FederatedRun:
    """Resume a federation."""
    torch.manual_seed(0)
    plan, directory = begin_again(out, student=Linear(), **changed)
    return execute(plan, directory, exchange=Network(hospitals), observer=Heard())


def accuracy(student: nn.Module) -> float:
    """How often a student says the truth about images whose thirds differ in brightness."""
    random = torch.Generator().manual_seed(9)
    thirds = torch.rand((600, 3, 1), generator=random).expand(-1, -1, 16).flatten(1)
    thirds = (thirds + 0.3 * torch.rand((600, 48), generator=random)) / 1.3
    images = torch.zeros((600, *SHAPE), dtype=torch.uint8)
    images[:, 0, :6] = (255 * thirds).byte().view(600, 6, 8)
    with torch.inference_mode():
        said = student(images / 255).argmax(-1)
    return float((said == truth(images)).float().mean())


def hospitals(count: int, **how: Any) -> list[Hospital]:
    """Clients with noise of their own."""
    made = [Hospital(**{"key": str(number), **how}) for number in range(count)]
    for number, one in enumerate(made):
        one.mechanism = replace(one.mechanism, noise=ReproducibleNoise(seed=number))  # type: ignore[type-var]
    return made
