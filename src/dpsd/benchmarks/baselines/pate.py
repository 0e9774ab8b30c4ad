"""PATE: real public images, labelled by a noisy vote of many teachers.

>>> Pate(shards=500).given
'500 teachers on shards, and public images like the private ones'
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from dpsd.benchmarks.baselines.checks import require_positive, required_target
from dpsd.benchmarks.baselines.fitting import fit_to_labels
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.models.names import CLOSED_FORM
from dpsd.privacy.accounting import spent
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import NoisyVotes
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from dpsd.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class Pate:
    """PATE with GNMax: a student of real, public images labelled by a noisy vote of many teachers.

    The public images are of the split to measure on, and the student is measured on the rest of it:
    it has what a transcription does not, images of the private distribution. ε is under replace-one
    of a training record, which reached one teacher.

    Args:
        shards: teachers, at least 2.
        queries: public images asked about, at least 1.
        features: what teachers and student are linear on, such as ``glyphs``; if not given,
            teachers are linear on wavelets, and the student is of the task's architecture.

    Source: Papernot et al., "Scalable Private Learning with PATE", ICLR 2018, section 3 (GNMax),
    with data-independent accounting.
    """

    shards: int = 250
    queries: int = 1_000
    features: str | None = None

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
        require_positive(self, "queries")
        if self.shards < 2:
            raise ConfigError(f"shards must be at least 2, not {self.shards}")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it on the test images that nobody asked about.

        Raises:
            ConfigError: no target or one without δ, or too few images.
        """
        target = required_target(self.name, target, needs_delta=True)
        test, teacher = task.measured_on, task.teacher(self.shards, self.features)
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
        student = fit_to_labels(
            labelled, model=self._student(task, teacher, seed=seed), epochs=40, seed=seed
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

    def _student(self, task: Task, teacher: Teacher, *, seed: int) -> str | nn.Module:
        """A student of the task's architecture, or one on the teachers' features."""
        if teacher.features is None:
            return task.model
        return build_classifier(
            CLOSED_FORM,
            input_shape=teacher.input_shape,
            num_classes=teacher.num_classes,
            seed=seed,
            features=teacher.features.module,
        )
