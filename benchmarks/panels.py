"""Ways of reading a panel of clients, compared by the student that each of them leads to.

    OMP_NUM_THREADS=1 python benchmarks/panels.py digits --clients 6 --dirichlet 0.3 --answers 24000
    OMP_NUM_THREADS=1 python benchmarks/panels.py small/mnist.npz --clients 5 --dirichlet 0.1

Training records are dealt to clients class by class. A fifth of them is held out for validation:
all figures are of it, and no test split is read. Clients answer about the same public images by
randomised response, with reproducible noise, so the ways of reading differ in nothing else. The
true confusions are counted on validation records. Liars name the class after that of most clients.

Small MNIST (16x16, 16,000 records; five clients, Dirichlet 0.1; ε = 1 an answer, 48,000 answers a
client, one seed; measured before this script was tidied, with other random numbers): never wrong
39 %, judged by all 53, judged by the student 55, true confusions 53; the student predicts again 49;
all classes as candidates 50, those of the student alone 49. With other constants in the code: prior
temperatures of 1, 2.5 and 4 gave 51, 55 and 55 %, and 200 pseudo-counts instead of 20 gave 54.
So a client is judged by the priors that its answers were asked with, and is asked about the classes
that are expected of it. Differences of about two points are noise here.

Digits (six clients, Dirichlet 0.3, 24,000 answers a client, one seed, 217 validation records), at
ε = 1 and 2: judged by the student 47 and 68 %, judged by all 44 and 62, never wrong 39 and 72, true
confusions 40 and 67, the student predicts again 40 and 65. With two liars (--colluding 0.34): 25
and 38 %, 20 and 38, 22 and 30, 34 and 66, 22 and 50. No way of reading here repairs what liars
teach the first student. Differences of some five points are noise here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution, forward_batch
from dpsd.distillation.objectives import Marginal, posterior
from dpsd.distillation.panel import Panel, evidence
from dpsd.distillation.quality import assess
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining, fit_student
from dpsd.images.names import Shape
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.streams import stream
from dpsd.synthesis.mixture import build_mixture
from dpsd.synthesis.queries import flat_prior
from dpsd.training.classifier import predict_classes, train_teacher
from explaining import explained

EXECUTION = Execution.of("cpu")
SOURCES = ("noise", "strokes", "glyphs")
EXPLORATION, TEMPERATURE = 0.1, 2.5


class JudgedByAll(Panel):
    """A panel whose clients are judged by the posterior under all answers (Dawid & Skene)."""

    def _counted(self, release: Tensor, prior: Tensor) -> Tensor:
        told, mixed = self._mixed(release, prior.float())
        belief = posterior(prior.float(), mixed.log().sum(0))
        return ((belief / mixed).mT @ told).double() * self.confusions


class Fixed(Panel):
    """A panel whose confusions are not estimated."""

    def fitted(self, *_: object, **__: object) -> Fixed:
        return self


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of reading the panel.

    Args:
        panel: returns the panel to begin with, given the true confusions of the clients.
        candidates: whose classes the clients may report: those that the student expects, those
            that it expects of this client, or all.
        predicts_again: whether the newest student's predictions judge all earlier rounds, too.
    """

    panel: Callable[[Tensor], Panel]
    candidates: str = "client"
    predicts_again: bool = False


def by_student(confusions: Tensor) -> Panel:
    """The package's panel."""
    return Panel.assumed(*confusions.shape[:2])


WAYS = {
    "true confusions": Way(panel=lambda true: Fixed(confusions=true)),
    "never wrong": Way(panel=lambda true: Fixed(confusions=certain(true))),
    "judged by all": Way(panel=lambda true: JudgedByAll.assumed(*true.shape[:2])),
    "judged by student": Way(panel=by_student),
    "and predicts again": Way(panel=by_student, predicts_again=True),
    "candidates of student": Way(panel=by_student, candidates="student"),
    "all candidates": Way(panel=by_student, candidates="all"),
}


def certain(confusions: Tensor) -> Tensor:
    """Confusion matrices of teachers that are always right, with a floor under all chances."""
    return torch.eye(confusions.shape[-1], dtype=torch.float64).expand_as(confusions) + 1e-6


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Clients, and what they answer about fixed public images.

    Args:
        images: the images, uint8 ``(N, C, H, W)``.
        source: the source of each image, ``(N,)``.
        said: what each client's teacher says of each image, ``(N, M)``.
        confusions: what teachers say of the validation images of each class, ``(M, K, K)``.
        validation: the records on which students are measured.
        alone: the accuracy of each teacher on them.
    """

    images: Tensor
    source: Tensor
    said: Tensor
    confusions: Tensor
    validation: LabelledImages
    alone: list[float]

    @classmethod
    def of(
        cls, data: str, clients: int, dirichlet: float, *, answers: int, seed: int
    ) -> Federation:
        """Deal records to clients, train their teachers, and make images."""
        train = load_dataset(data, "train", validation_share=0.2)
        validation = load_dataset(data, "validation", validation_share=0.2)
        teachers = [
            train_teacher(part, epochs=40 if len(train) < 5_000 else 3, seed=number)
            for number, part in enumerate(dealt(train, clients, dirichlet, seed))
        ]
        random = stream(seed, 0, "queries")
        blocks = build_mixture(SOURCES, train.input_shape).blocks(answers, generator=random)
        made = [(images, torch.full((len(images),), number)) for images, number in blocks]
        images, source = (torch.cat(column) for column in zip(*made, strict=True))
        order = torch.randperm(len(images), generator=random)
        known = torch.stack([predict_classes(one, validation.images) for one in teachers])
        found = torch.stack([confusion(one, validation.labels, train.num_classes) for one in known])
        return cls(
            images=images[order],
            source=source[order],
            said=torch.stack([predict_classes(one, images[order]) for one in teachers], 1),
            confusions=found,
            validation=validation,
            alone=(known == validation.labels).double().mean(-1).tolist(),
        )

    def with_liars(self, share: float) -> Federation:
        """The same, but the first clients name the class after the one that most clients say."""
        count = int(share * self.said.shape[1])
        said, confusions = self.said.clone(), self.confusions.clone()
        said[:, :count] = ((said.mode(-1).values + 1) % confusions.shape[-1]).unsqueeze(-1)
        confusions[:count] = torch.eye(confusions.shape[-1]).roll(1, -1) + 1e-3
        return replace(self, said=said, confusions=confusions)


def dealt(data: LabelledImages, clients: int, dirichlet: float, seed: int) -> list[LabelledImages]:
    """Deal each class to the clients in shares drawn from a Dirichlet distribution."""
    random = np.random.default_rng(seed)
    owner = torch.empty(len(data), dtype=torch.long)
    for label in range(data.num_classes):
        rows = random.permutation((data.labels == label).nonzero().flatten().numpy())
        ends = len(rows) * random.dirichlet([dirichlet] * clients).cumsum()
        for client, part in enumerate(np.split(rows, ends[:-1].round().astype(int))):
            owner[torch.from_numpy(part)] = client
    return [data.subset((owner == client).nonzero().flatten()) for client in range(clients)]


def confusion(said: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The shares of what is said of images with each label, float64 ``(K, K)``."""
    counts = F.one_hot(labels, classes).double().T @ F.one_hot(said, classes).double() + 0.1
    return counts / counts.sum(-1, keepdim=True)


def perceptron(shape: Shape, classes: int) -> nn.Module:
    """A student that learns in seconds."""
    layers: list[nn.Module] = [nn.Flatten(), nn.BatchNorm1d(math.prod(shape))]
    for before, after in ((math.prod(shape), 256), (256, 128)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, classes))


class Reading:
    """A federation that is read in one way: rounds of asking about the images, and learning."""

    def __init__(
        self, federation: Federation, way: Way, *, epsilon: float, rounds: int, seed: int
    ) -> None:
        self.federation, self.way, self.rounds, self.seed = federation, way, rounds, seed
        self.classes = federation.confusions.shape[-1]
        self.panel = way.panel(federation.confusions)
        self.mechanisms = [
            RandomizedResponse(epsilon=epsilon, noise=ReproducibleNoise(seed=seed).for_process(m))
            for m in range(federation.said.shape[1])
        ]
        shape = federation.validation.input_shape
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.student = EXECUTION.place(perceptron(shape, self.classes))
        self.replay = Replay()

    def accuracy(self) -> float:
        """Play all rounds; returns the student's accuracy on the validation records."""
        size = len(self.federation.images) // self.rounds
        for number in range(1, self.rounds + 1):
            rows = torch.arange((number - 1) * size, number * size)
            self._read([*self.replay.rounds, self._asked(number, rows)])
            self._learn(number)
        data = self.federation.validation
        found = predict_classes(self.student, data.images) == data.labels
        return float(found.double().mean())

    def _asked(self, number: int, rows: Tensor) -> RoundReleases:
        random = stream(self.seed, number, "panel")
        images = self.federation.images[rows]
        logits = self._logits(images)
        prior = (logits / TEMPERATURE).softmax(-1)
        chance = 1.0 if number == 1 else EXPLORATION
        explored = torch.rand((len(rows), 1), generator=random) < chance
        prior = prior.where(~explored, flat_prior(prior, random)).half()
        columns = []
        for member, mechanism in enumerate(self.mechanisms):
            told = self._candidates(prior.float(), member, mechanism) | explored
            chosen = told / told.sum(-1, keepdim=True)
            answers = RawAnswers.seal(
                F.one_hot(self.federation.said[rows, member], self.classes),
                batch=len(rows),
                num_classes=self.classes,
                scores="probabilities",
            )
            now = mechanism.with_noise(mechanism.noise.for_round(number))
            columns.append(
                evidence(mechanism.log_likelihood(now.privatize(answers, chosen), chosen))
            )
        return RoundReleases(
            index=number,
            queries=images,
            prior=prior,
            predicted=logits.argmax(-1),
            source=self.federation.source[rows],
            release=torch.stack(columns, 1),
        )

    def _candidates(self, prior: Tensor, member: int, mechanism: RandomizedResponse) -> Tensor:
        if self.way.candidates == "all":
            return torch.ones_like(prior, dtype=torch.bool)
        panel = self.panel
        if self.way.candidates == "student":
            panel = Panel(confusions=certain(self.panel.confusions))
        return panel.candidates(prior, member, mechanism)

    def _read(self, rounds: list[RoundReleases]) -> None:
        parts = [(one.release, one.prior) for one in rounds]
        if self.way.predicts_again and len(rounds) > 1:
            parts = [(one.release, self._logits(one.queries).softmax(-1).half()) for one in rounds]
        self.panel = self.panel.fitted(lambda: parts)
        self.replay = Replay()
        for one in rounds:
            quality = assess(one, self.panel)
            worth = quality.clarity * len(one)
            self.replay.append(one, shares=quality.label_shares, worth=worth)

    def _learn(self, number: int) -> None:
        random = stream(self.seed, number, "student")
        is_last = number == self.rounds
        training = StudentTraining(
            epochs=6.0 if number == 1 else 2.0, replay=float("inf") if is_last else 1.0
        )
        fit_student(
            self.student,
            self.replay,
            mechanism=self.panel,
            objective=Marginal(),
            training=training,
            execution=EXECUTION,
            rows=training.rows(self.replay, random),
            random=random,
            advance=lambda: None,
        )

    def _logits(self, images: Tensor) -> Tensor:
        parts = torch.split(images, forward_batch(images.shape[1:], EXECUTION.device))
        return torch.cat([EXECUTION.predict(self.student, part).cpu() for part in parts])


def main() -> None:
    """Print a line for each federation and way."""
    parser = explained(__doc__)
    parser.add_argument("data", help="the data set, as `dpsd data list` names it")
    parser.add_argument("--clients", type=int, default=5, help="clients that answer")
    parser.add_argument(
        "--dirichlet",
        type=float,
        nargs="+",
        default=[0.1, 0.3, 0.5],
        help="how alike the clients' classes are: the parameters of Dirichlet distributions",
    )
    parser.add_argument("--epsilon", type=float, default=1.0, help="the ε of an answer")
    parser.add_argument("--answers", type=int, default=48_000, help="answers of each client")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of asking and learning")
    parser.add_argument(
        "--colluding", type=float, default=0.0, help="the share of clients that lie"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of repetitions")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of reading the panel"
    )
    asked = parser.parse_args()
    for dirichlet in asked.dirichlet:
        for seed in asked.seeds:
            federation = Federation.of(
                asked.data, asked.clients, dirichlet, answers=asked.answers, seed=seed
            ).with_liars(asked.colluding)
            print(f"dirichlet {dirichlet}, seed {seed}: best alone {max(federation.alone):.1%}")
            for name in asked.ways:
                start = time.perf_counter()
                reading = Reading(
                    federation, WAYS[name], epsilon=asked.epsilon, rounds=asked.rounds, seed=seed
                )
                found = reading.accuracy()
                seconds = time.perf_counter() - start
                print(f"  {name}: {found:.1%}, {seconds:.0f} seconds", flush=True)


if __name__ == "__main__":
    main()
