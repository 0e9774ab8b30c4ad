"""The methods that dpsd is compared with, on the same data, teacher and students.

Each is a :class:`~dpsd.benchmarks.methods.Method`: a frozen dataclass of its settings that makes a
student and says whom its ε protects. None of them can do what a transcription does: most are given
the private training data, :class:`Pate` real images of the same distribution, and
:class:`DataFreeLearning` the inside of the teacher and no privacy.

=========================  ============================================  =====================
method                     given                                         its ε protects
=========================  ============================================  =====================
:class:`Distillation`      the teacher and the training images           nothing
:class:`DataFreeLearning`  the teacher's gradients                       nothing
:class:`PrivateSGD`        the training data                             a training record
:class:`Pate`              many teachers and real public images          a training record
:class:`RandomizedLabels`  the training images and randomised labels     a record's label
:class:`PriorLabels`       the same, in two stages                       a record's label
=========================  ============================================  =====================

All noise is drawn from the seed, so that a figure can be repeated: what these methods return is
for measuring, never for release.

>>> methods = [Distillation(), PrivateSGD(), RandomizedLabels()]
>>> [method.unit.value for method in methods]
['nothing: not private', 'a training record, added or removed', "a training record's label"]
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import dp_accounting
import torch
import torch.nn.functional as F
from dp_accounting.pld import PLDAccountant
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution, forward_batch
from dpsd.distillation.generator import PenultimateFeatures, latent
from dpsd.distillation.objectives import GeneratorWeights, generator_loss, marginal_loss
from dpsd.distillation.student import one_cycle
from dpsd.errors import ConfigError
from dpsd.images.augmentation import augment_images, default_augmentation
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier, build_generator
from dpsd.privacy.accounting import pld_epsilon, spent
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import NoisyVotes, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from dpsd.teachers import read_record

#: Of a student's logits, the images they are of, and those images' rows in the data.
Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

LabelObjective: TypeAlias = Literal["marginal", "cross-entropy"]

#: Of every student that is fitted to images here.
_LARGEST_BATCH = 256
_LEARNING_RATE = 5e-3

#: Records whose gradients are held at once; more no longer fit a processor's cache.
_GRADIENTS_AT_ONCE = 256

#: In which an image's wavelet features are normalised together, where that many fit.
_GROUPS = 9


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Knowledge distillation on the original training images: the ceiling.

    The student minimises ``T² KL(softmax(f(x)/T) ‖ softmax(s(x)/T))`` on moved training images.

    Args:
        epochs: passes over the training images, at least 1.
        temperature: T, > 0.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    epochs: int = 6
    temperature: float = 4.0

    name: str = field(default="knowledge distillation", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the teacher and the training images", init=False)

    def __post_init__(self) -> None:
        _require_positive(self, "epochs", "temperature")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        _refuse_target(self.name, target)
        data, teacher, execution = task.train, task.white_box(), Execution.of()

        def loss(logits: Tensor, images: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = execution.logits(teacher, images)
            return softened_divergence(logits, wanted, temperature=self.temperature)

        start = time.perf_counter()
        student = fit(data, loss, model=task.model, epochs=self.epochs, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(accuracy=task.accuracy(student), seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class DataFreeLearning:
    """DAFL: the generator learns through the teacher's gradients; no data, and no privacy.

    In every step the generator learns to make images that the *teacher* is sure about, that cover
    the classes evenly and excite its last features, and the student imitates the teacher on them.

    Args:
        steps: training steps, at least 1.
        batch_size: images a step, at least 2.
        learning_rate: Adam's peak for the student, > 0.
        generator_rate: Adam's for the generator, > 0.
        temperature: of the student's imitation, > 0.
        weights: of the generator's three losses.

    Source: Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, equations 4 to 8 and
    Algorithm 1.
    """

    steps: int = 4_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    generator_rate: float = 1e-3
    temperature: float = 1.0
    weights: GeneratorWeights = field(default_factory=GeneratorWeights)

    name: str = field(default="DAFL", init=False)
    unit: Unit = field(default=Unit.NOTHING, init=False)
    given: str = field(default="the teacher's gradients", init=False)

    def __post_init__(self) -> None:
        _require_positive(self, "steps", "learning_rate", "generator_rate", "temperature")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, not {self.batch_size}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: a privacy target, which this cannot meet.
        """
        _refuse_target(self.name, target)
        # Shapes are the teacher's own: the training split is not even read.
        record, teacher = read_record(task.teacher_path()), task.white_box()
        start = time.perf_counter()
        execution = Execution.of()
        student = build_classifier(
            task.model, input_shape=record.input_shape, num_classes=record.num_classes, seed=seed
        )
        generator = build_generator(input_shape=record.input_shape, seed=seed)
        self._train(execution.place(student), execution.place(generator), teacher, seed=seed)
        seconds = time.perf_counter() - start
        return Outcome(accuracy=task.accuracy(student), seconds=seconds)

    def _train(
        self, student: nn.Module, generator: nn.Module, teacher: nn.Module, *, seed: int
    ) -> None:
        execution = Execution.of()
        random = torch.Generator().manual_seed(seed)
        learner = torch.optim.Adam(student.parameters(), lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            learner, lambda step: one_cycle(step / self.steps)
        )
        maker = torch.optim.Adam(
            generator.parameters(), lr=self.generator_rate, betas=(0.5, 0.999), fused=True
        )
        student.train()
        generator.train()
        with PenultimateFeatures(teacher) as features:
            for _ in range(self.steps):
                noise = latent(generator, self.batch_size, random).to(execution.device)
                with execution.autocast():
                    images = generator(noise).contiguous(memory_format=torch.channels_last)
                answers = execution.logits(teacher, images)
                made = generator_loss(answers, features.last.float(), self.weights)
                maker.zero_grad()
                torch.autograd.backward(made)
                maker.step()
                imitated = softened_divergence(
                    execution.logits(student, images.detach()),
                    answers.detach(),
                    temperature=self.temperature,
                )
                learner.zero_grad()
                torch.autograd.backward(imitated)
                learner.step()
                schedule.step()


@dataclass(frozen=True, kw_only=True)
class PrivateSGD:
    """DP-SGD on the original training data, with Opacus and its PRV accountant.

    Poisson sampling, large batches, momentum, and an exponential average of the iterates, which is
    post-processing. The target is met under add-or-remove of a training record, as the field and
    Opacus have it. That flatters it beside replace-one, which is meant elsewhere here and under
    which the same noise costs up to twice the ε; both are reported.

    Args:
        network: ``"scattering"`` is a linear layer on fixed wavelet features, normalised image by
            image: the better one by far wherever there is little time or a small ε; ``"tempered"``
            is a small convolutional network with tempered sigmoids, :func:`tempered_network`.
        epochs: expected passes over the data, at least 1.
        batch_size: expected records a step, at least 64 (a step without any must not happen).
        learning_rate: of SGD on the mean of clipped gradients, > 0.
        momentum: in [0, 1).
        max_grad_norm: the bound that each record's gradient is clipped to, > 0.
        averaging: decay of the average of the iterates, in [0, 1); 0 takes the last one.
        augmentations: moved copies of a record whose gradients are averaged *before* clipping, so
            that they cost no privacy; 1 takes the record as it is. For ``"tempered"`` alone.
        stop_at: a test accuracy in (0, 1] at which to stop early, for timing how long it takes.
            Choosing the moment by the test split is no part of a private training.

    Source: Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1; Papernot
    et al., "Tempered Sigmoid Activations for Deep Learning with Differential Privacy", AAAI 2021;
    Tramèr & Boneh, "Differentially Private Learning Needs Better Features", ICLR 2021; De
    et al., "Unlocking High-Accuracy Differentially Private Image Classification through Scale",
    2022 (averaging, augmentation multiplicity).
    """

    network: Literal["scattering", "tempered"] = "scattering"
    epochs: int = 20
    batch_size: int = 4096
    learning_rate: float = 16.0
    momentum: float = 0.9
    max_grad_norm: float = 0.1
    averaging: float = 0.98
    augmentations: int = 1
    stop_at: float | None = None

    name: str = field(default="DP-SGD", init=False)
    unit: Unit = field(default=Unit.RECORD_ADDED, init=False)
    given: str = field(default="the training data", init=False)

    def __post_init__(self) -> None:
        _require_positive(self, "epochs", "learning_rate", "max_grad_norm", "augmentations")
        if self.network not in ("scattering", "tempered"):
            raise ConfigError(f"network must be scattering or tempered, not {self.network!r}")
        if self.augmentations > 1 and self.network == "scattering":
            raise ConfigError("augmentations needs network='tempered': fixed features are kept")
        if self.batch_size < 64:
            raise ConfigError(f"batch_size must be at least 64, not {self.batch_size}")
        for name in ("momentum", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.stop_at is not None and not 0 < self.stop_at <= 1:
            raise ConfigError(f"stop_at must be in (0, 1], not {self.stop_at}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it, after every epoch too.

        Returns:
            ε of the steps that were made, under ``add-or-remove`` by Opacus and ``replace-one`` by
            ``dp_accounting``; ``curve`` among the details holds seconds and accuracy by epoch.

        Raises:
            ConfigError: no target or one without δ, or Opacus is not installed.
        """
        target = _required(self.name, target, needs_delta=True)
        opacus = _opacus()
        data = task.train
        rate = min(1.0, self.batch_size / len(data))
        steps_an_epoch = max(1, round(1 / rate))
        steps = steps_an_epoch * self.epochs
        curve: list[tuple[float, float]] = []
        seconds, start = 0.0, time.perf_counter()
        with warnings.catch_warnings():
            # Opacus warns of the hooks that it sets itself, and of what its accountant tries first.
            warnings.simplefilter("ignore")
            noise_multiplier = opacus.accountants.utils.get_noise_multiplier(
                target_epsilon=target.epsilon,
                target_delta=target.delta,
                sample_rate=rate,
                steps=steps,
                accountant="prv",
                epsilon_tolerance=min(0.01, target.epsilon / 100),
            )
            models = self._models(data, noise_multiplier=noise_multiplier, rate=rate, seed=seed)
            for model in itertools.islice(models, steps_an_epoch - 1, steps, steps_an_epoch):
                seconds += time.perf_counter() - start
                curve.append((round(seconds, 1), task.accuracy(model)))
                if self.stop_at is not None and curve[-1][1] >= self.stop_at:
                    break
                start = time.perf_counter()
            accountant = opacus.accountants.PRVAccountant()
            made = len(curve) * steps_an_epoch
            accountant.history = [(noise_multiplier, rate, made)]
            epsilon = float(accountant.get_epsilon(target.delta))
        return Outcome(
            accuracy=curve[-1][1],
            seconds=seconds,
            epsilon={
                "add-or-remove": epsilon,
                "replace-one": _replace_one(noise_multiplier, rate, made, delta=target.delta),
            },
            details={
                "delta": target.delta,
                "noise_multiplier": noise_multiplier,
                "sample_rate": rate,
                "steps": made,
                "curve": curve,
            },
        )

    def _models(
        self, data: LabelledImages, *, noise_multiplier: float, rate: float, seed: int
    ) -> Iterator[nn.Module]:
        """The averaged model after every step, without end; the same module each time."""
        opacus = _opacus()
        device = Execution.of().device
        body, head = self._network(data, seed=seed)
        body, head = body.to(device), head.to(device)
        # Features that nobody trains are the same in every step.
        inputs = data.images if self.network == "tempered" else _features(body, data.images)
        averaged = AveragedModel(head, multi_avg_fn=_warm_average(self.averaging))
        model = nn.Sequential(body, averaged.module)
        private = opacus.GradSampleModule(head.train())
        random = torch.Generator().manual_seed(seed)
        optimizer = opacus.optimizers.DPOptimizer(
            torch.optim.SGD(private.parameters(), lr=self.learning_rate, momentum=self.momentum),
            noise_multiplier=noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=max(1, round(rate * len(data))),
            generator=torch.Generator(device).manual_seed(seed),
        )
        copies = self.augmentations
        while True:
            chosen = (torch.rand(len(data), generator=random) < rate).nonzero().squeeze(-1)
            parts = torch.split(chosen, max(1, _GRADIENTS_AT_ONCE // copies))
            for number, rows in enumerate(parts, start=1):
                batch, labels = inputs[rows], data.labels[rows].to(device)
                if copies > 1:
                    batch = batch.repeat_interleave(copies, dim=0)
                    labels = labels.repeat_interleave(copies)
                    augment = default_augmentation(data.input_shape)
                    batch = augment_images(batch, augment, generator=random)
                logits = private(_ready(batch, device))
                torch.autograd.backward(F.cross_entropy(logits, labels))
                if copies > 1:
                    _average_copies(private, len(rows))
                # Only the last part of a batch is followed by noise and a step.
                optimizer.signal_skip_step(do_skip=number < len(parts))
                optimizer.step()
                optimizer.zero_grad()
            averaged.update_parameters(head)
            yield model

    def _network(self, data: LabelledImages, *, seed: int) -> tuple[nn.Module, nn.Module]:
        """What is fixed and what is trained."""
        model = build_classifier(
            tempered_network if self.network == "tempered" else "scattering",
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            seed=seed,
        )
        if self.network == "tempered":
            return nn.Identity(), model
        *body, _, head = model.eval().children()
        assert isinstance(head, nn.Linear)
        # Each image is normalised by itself: statistics of the data would need noise of their own.
        groups = math.gcd(_GROUPS, head.in_features)
        body.append(nn.GroupNorm(groups, head.in_features, eps=1e-4, affine=False))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*body), head


@dataclass(frozen=True, kw_only=True)
class Pate:
    """PATE with GNMax: a student of real, public images labelled by a noisy vote of many teachers.

    The public images are of the test split, and the student is measured on the rest of it: it has
    what a transcription does not, images of the private distribution. ε is under replace-one
    of a training record, which reached one teacher.

    Args:
        shards: teachers, at least 2.
        queries: public images asked about, at least 1.

    Source: Papernot et al., "Scalable Private Learning with PATE", ICLR 2018, section 3 (GNMax),
    with data-independent accounting.
    """

    shards: int = 250
    queries: int = 1_000

    name: str = field(default="PATE", init=False)
    unit: Unit = field(default=Unit.RECORD, init=False)

    @property
    def given(self) -> str:
        """What it is given."""
        return f"{self.shards:,} teachers on shards, and public images like the private ones"

    @staticmethod
    def most_queries(records: int) -> int:
        """How many of a test split may be public, so that enough is left to measure on."""
        return records * 9 // 10

    def __post_init__(self) -> None:
        _require_positive(self, "queries")
        if self.shards < 2:
            raise ConfigError(f"shards must be at least 2, not {self.shards}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it on the test images that nobody asked about.

        Raises:
            ConfigError: no target or one without δ, or too few images.
        """
        target = _required(self.name, target, needs_delta=True)
        test, teacher = task.test, task.teacher(self.shards)
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
        if self.queries > (most := self.most_queries(len(test))):
            raise ConfigError(f"queries is {self.queries}, but at most {most} images are public")
        asked, held_out = order.tensor_split([self.queries])
        start = time.perf_counter()
        exposure = Exposure.of_rounds([len(asked)])
        votes = calibrate(
            NoisyVotes(teachers=teacher.members, noise=ReproducibleNoise(seed=seed)),
            replace(target, adjacency=Adjacency.TEACHER),
            exposure,
        )
        images = to_unit_range(test.images[asked])
        flat = torch.full((len(asked), test.num_classes), 1 / test.num_classes)
        parts = zip(
            *(torch.split(part, teacher.query_batch) for part in (images, flat)), strict=True
        )
        labels = torch.cat(
            [
                # The winning class alone is what GNMax releases.
                votes.privatize(teacher.ask(batch, query_batch=number), prior).argmax(-1)
                for number, (batch, prior) in enumerate(parts)
            ]
        )
        labelled = replace(test, images=test.images[asked], labels=labels, split="public")
        taught = labels.to(Execution.of().device)
        student = fit(
            labelled,
            lambda logits, _, rows: F.cross_entropy(logits, taught[rows]),
            model=task.model,
            epochs=40,
            seed=seed,
        )
        seconds = time.perf_counter() - start
        found = Execution.of().predict(student, test.images[held_out]).argmax(-1).cpu()
        cost = spent(votes.event(), exposure, delta=target.delta)
        return Outcome(
            accuracy=float((found == test.labels[held_out]).double().mean()),
            seconds=seconds,
            epsilon={"teacher": cost.teacher},
            details={
                "relation": "replace one training record",
                "delta": target.delta,
                "measured_on": len(held_out),
                "label_accuracy": float((labels == test.labels[asked]).double().mean()),
            },
        )


@dataclass(frozen=True, kw_only=True)
class RandomizedLabels:
    """Label differential privacy in one stage: every training label is randomised once.

    K-ary randomised response on the original labels, pure ε-DP under the replacement of one
    record's label; the images are not protected at all.

    Args:
        epochs: passes over the training images, at least 1.
        objective: what the student minimises: ``"marginal"``, the exact likelihood of the
            randomised labels, or ``"cross-entropy"`` with them as if they were true.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithm 1
    and LP-1ST; Warner, 1965.
    """

    epochs: int = 8
    objective: LabelObjective = "marginal"

    name: str = field(default="randomised labels", init=False)
    unit: Unit = field(default=Unit.LABEL, init=False)
    given: str = field(default="the training images and randomised labels", init=False)

    def __post_init__(self) -> None:
        _require_positive(self, "epochs")
        _require_objective(self.objective)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: no target.
        """
        target = _required(self.name, target)
        data = task.train
        start = time.perf_counter()
        labels = ReportedLabels.of(data.labels, _flat(data), "all", target=target, seed=seed)
        student = fit(
            data, labels.loss(self.objective), model=task.model, epochs=self.epochs, seed=seed
        )
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            epsilon={"replace-one-label": labels.epsilon},
            details={"objective": self.objective, "true_labels": labels.share_of(data.labels)},
        )


@dataclass(frozen=True, kw_only=True)
class PriorLabels:
    """Label differential privacy in two stages (LP-2ST): a first student is the second's prior.

    Half of the labels are randomised over all classes and a student learns from them; its
    predictions are the prior with which the other half is randomised, each over the candidates
    that make a true report likeliest (RRWithPrior); the final student learns from both. Every
    label is randomised once, so ε is that of one report: pure, under the replacement of one
    record's label.

    Args:
        epochs: passes over the training images in each stage, at least 1.
        objective: ``"marginal"`` as in :class:`RandomizedLabels`, of the exact channel with each
            record's own candidates; or ``"cross-entropy"`` with the reports as if they were true,
            as in the paper.

    Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, Algorithms
    2 and 3 (LP-MST with T = 2).
    """

    epochs: int = 8
    objective: LabelObjective = "marginal"

    name: str = field(default="LP-2ST", init=False)
    unit: Unit = field(default=Unit.LABEL, init=False)
    given: str = field(default="the training images and randomised labels", init=False)

    def __post_init__(self) -> None:
        _require_positive(self, "epochs")
        _require_objective(self.objective)

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it.

        Raises:
            ConfigError: no target.
        """
        target = _required(self.name, target)
        data = task.train
        start = time.perf_counter()
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        first, second = (
            replace(data, images=data.images[rows], labels=data.labels[rows])
            for rows in order.tensor_split(2)
        )
        plain = ReportedLabels.of(first.labels, _flat(first), "all", target=target, seed=seed)
        loss = plain.loss(self.objective)
        first_student = fit(first, loss, model=task.model, epochs=self.epochs, seed=seed)
        prior = Execution.of().predict(first_student, second.images).softmax(-1).cpu()
        informed = ReportedLabels.of(
            second.labels, prior, "per-query", target=target, seed=seed, stage=1
        )
        labels = plain.followed_by(informed)
        both = replace(data, images=data.images[order], labels=data.labels[order])
        loss = labels.loss(self.objective)
        student = fit(both, loss, model=task.model, epochs=self.epochs, seed=seed + 1)
        seconds = time.perf_counter() - start
        return Outcome(
            accuracy=task.accuracy(student),
            seconds=seconds,
            epsilon={"replace-one-label": max(plain.epsilon, informed.epsilon)},
            details={
                "objective": self.objective,
                "first_stage": task.accuracy(first_student),
                "true_labels": labels.share_of(both.labels),
                "true_labels_by_stage": [
                    plain.share_of(first.labels),
                    informed.share_of(second.labels),
                ],
            },
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportedLabels:
    """Training labels as randomised response reported them, and what the reports say.

    Args:
        labels: the reports, int64 ``(N,)``.
        log_likelihood: of each report under each class, ``(N, K)``.
        epsilon: of one report.
    """

    labels: Tensor
    log_likelihood: Tensor
    epsilon: float

    @classmethod
    def of(
        cls,
        labels: Tensor,
        prior: Tensor,
        candidates: Literal["per-query", "all"],
        *,
        target: Budget,
        seed: int,
        stage: int = 0,
    ) -> ReportedLabels:
        """Randomise true labels, each once.

        Args:
            labels: the true ones, int64 ``(N,)``.
            prior: public probabilities of the classes, ``(N, K)``.
            candidates: as :class:`~dpsd.privacy.mechanisms.RandomizedResponse` takes them.
            target: the ε of one label; its δ is not used.
            seed: of the noise.
            stage: its number; stages share no noise.

        >>> labels = ReportedLabels.of(
        ...     torch.tensor([0, 2]), torch.full((2, 3), 1 / 3), "all",
        ...     target=Budget(epsilon=20.0), seed=0,
        ... )
        >>> labels.labels.tolist(), round(labels.epsilon, 3)
        ([0, 2], 20.0)
        """
        classes = prior.shape[-1]
        mechanism = calibrate(
            RandomizedResponse(
                candidates=candidates, noise=ReproducibleNoise(seed=seed, round_index=stage)
            ),
            Budget(epsilon=target.epsilon, delta=0, adjacency=Adjacency.RESPONSE),
            Exposure.of_rounds([len(labels)]),
        )
        # True labels are to this mechanism what a teacher's answers are to a transcription.
        sealed = RawAnswers.seal(
            F.one_hot(labels, classes).float(),
            batch=len(labels),
            num_classes=classes,
            scores="probabilities",
        )
        reported = mechanism.privatize(sealed, prior)
        return cls(
            labels=reported,
            log_likelihood=mechanism.log_likelihood(reported, prior),
            epsilon=pld_epsilon(mechanism.event(), count=1, delta=0),
        )

    def followed_by(self, others: ReportedLabels) -> ReportedLabels:
        """These and then the others, which are of other records."""
        return ReportedLabels(
            labels=torch.cat([self.labels, others.labels]),
            log_likelihood=torch.cat([self.log_likelihood, others.log_likelihood]),
            epsilon=max(self.epsilon, others.epsilon),
        )

    def loss(self, objective: LabelObjective) -> Loss:
        """What a student minimises on them."""
        place = Execution.of().device
        if objective == "cross-entropy":
            labels = self.labels.to(place)
            return lambda logits, _, rows: F.cross_entropy(logits, labels[rows])
        evidence = self.log_likelihood.to(place)
        return lambda logits, _, rows: marginal_loss(logits, evidence[rows])

    def share_of(self, true: Tensor) -> float:
        """The share of reports that are the true label."""
        return float((self.labels == true).double().mean())


def fit(data: LabelledImages, loss: Loss, *, model: str, epochs: int, seed: int) -> nn.Module:
    """A fresh student fitted to images by one-cycle Adam, in eval mode.

    Args:
        data: its images; its labels are not looked at.
        loss: of logits, the moved images they are of, and those images' rows in the data.
        model: the student's architecture.
        epochs: passes over the images.
        seed: of initial weights, order and moves.
    """
    execution = Execution.of()
    random = torch.Generator().manual_seed(seed)
    student = execution.place(
        build_classifier(
            model, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
        )
    )
    # A small data set still gets some sixteen steps an epoch.
    batch = min(_LARGEST_BATCH, max(16, len(data) // 16), len(data))
    steps = epochs * (len(data) // batch)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
    augment = default_augmentation(data.input_shape)
    student.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=random)
        for rows in torch.split(order[: steps // epochs * batch], batch):
            moved = augment_images(data.images[rows], augment, generator=random)
            images = execution.images(moved)
            logits = execution.logits(student, images)
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits, images, rows.to(execution.device)))
            optimizer.step()
            schedule.step()
    return student.eval()


def softened_divergence(logits: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """``T² KL(softmax(wanted/T) ‖ softmax(logits/T))``, averaged over the batch.

    Args:
        logits: the student's, ``(N, K)``.
        wanted: the teacher's, ``(N, K)``.
        temperature: T, > 0.

    >>> float(softened_divergence(torch.ones(2, 3), torch.ones(2, 3), temperature=4.0))
    0.0
    """
    divergence = F.kl_div(
        (logits / temperature).log_softmax(-1),
        (wanted / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def tempered_network(*, input_shape: Shape, num_classes: int) -> nn.Sequential:
    """The small network for DP-SGD of Papernot et al., AAAI 2021, table 1: tanh and no BatchNorm.

    Images under 16 pixels a side get smaller kernels.

    >>> network = tempered_network(input_shape=(1, 28, 28), num_classes=10)
    >>> sum(parameter.numel() for parameter in network.parameters())
    26010
    """
    channels, *sides = input_shape
    small = min(sides) < 16
    features = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1)
        if small
        else nn.Conv2d(channels, 16, 8, 2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 3 if small else 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
    )
    width = features(torch.zeros(1, *input_shape)).shape[-1]
    return nn.Sequential(*features, nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, num_classes))


def _warm_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential average with a short memory at first (De et al., 2022, appendix)."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        known = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + known) / (10 + known)))

    return update


def _ready(inputs: Tensor, device: torch.device) -> Tensor:
    """Features as they are, or images in [0, 1]."""
    inputs = to_unit_range(inputs.to(device))
    if inputs.ndim == 4:
        # Twice as fast; but the *weights* must not lie so, or Opacus confuses their gradients.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs


@torch.inference_mode()
def _features(body: nn.Module, images: Tensor) -> Tensor:
    device = Execution.of().device
    size = forward_batch(images.shape[1:], device)
    return torch.cat([body(_ready(part, device)) for part in torch.split(images, size)])


def _average_copies(private: nn.Module, records: int) -> None:
    """Make each record's gradient the mean over its moved copies, which lie side by side."""
    parameter: Any  # to which Opacus adds an attribute
    for parameter in private.parameters():
        parameter.grad_sample = parameter.grad_sample.unflatten(0, (records, -1)).mean(1)


def _flat(data: LabelledImages) -> Tensor:
    """The prior that favours no class, ``(N, K)``."""
    return torch.full((len(data), data.num_classes), 1 / data.num_classes)


def _replace_one(noise_multiplier: float, rate: float, steps: int, *, delta: float) -> float:
    """ε of Poisson-sampled Gaussian sums of which one record is replaced."""
    step = dp_accounting.PoissonSampledDpEvent(
        rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    return float(accountant.compose(step, steps).get_epsilon(delta))


def _opacus() -> Any:
    try:
        import opacus
        import opacus.accountants.utils
        import opacus.optimizers
    except ImportError:
        raise ConfigError("DP-SGD needs Opacus: pip install dpsd[benchmarks]") from None
    return opacus


def _require_positive(method: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(method, name) < math.inf:
            raise ConfigError(f"{name} must be positive, not {getattr(method, name)}")


def _require_objective(objective: str) -> None:
    if objective not in ("marginal", "cross-entropy"):
        raise ConfigError(f"objective must be marginal or cross-entropy, not {objective!r}")


def _refuse_target(name: str, target: Budget | None) -> None:
    if target is not None:
        raise ConfigError(f"{name} is not private and cannot meet {target}: give no target")


def _required(name: str, target: Budget | None, *, needs_delta: bool = False) -> Budget:
    if target is None:
        raise ConfigError(f"{name} is private: give a target")
    if needs_delta and not target.delta:
        raise ConfigError(f"{name} adds Gaussian noise, which needs a delta above 0")
    return target
