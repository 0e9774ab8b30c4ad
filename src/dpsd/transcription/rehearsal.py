"""A rehearsal on public noise, before anything is asked: whatever fails then has cost nothing.

Answers that a run has paid for are lost if its student cannot be trained on them, or cannot be
saved. So everything that a round does is done once beforehand, on copies of the models: the teacher
answers noise, the student takes a training step on releases about noise, the generator takes one on
the student, and both are saved and loaded.

>>> import dpsd
>>> class Deaf(torch.nn.Module):  # it fails in train mode alone
...     def __init__(self):
...         super().__init__()
...         self.last = torch.nn.Linear(64, 2)
...     def forward(self, images):
...         assert not self.training, "not made to be trained"
...         return self.last(images.flatten(1))
>>> teacher = dpsd.load_teacher(lambda images: images.flatten(1)[:, :2], input_shape=(1, 8, 8))
>>> budget = dpsd.Budget(epsilon=2.0, adjacency="response")
>>> dpsd.transcribe(teacher, student=Deaf(), mechanism=dpsd.RandomizedResponse(), budget=budget,
...                 out="runs/deaf", rounds=1, queries=64)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: student module:Deaf fails in a training step on public noise: it raised ...
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution, forward_batch
from dpsd.devices.processes import ALONE
from dpsd.distillation.generator import GeneratorTraining, fit_generator, sample_images
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining, fit_student
from dpsd.errors import ConfigError, TeacherError, WriteError
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.runs.folder import RunFolder
from dpsd.runs.models import Progress, load_checkpoint, save_checkpoint
from dpsd.teachers.describing import described, frames_of
from dpsd.teachers.silence import silenced, untouched_generators
from dpsd.transcription.plan import Plan

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def rehearse(
    plan: Plan, execution: Execution, *, student: nn.Module, generator: nn.Module
) -> Iterator[str]:
    """Do on public noise, once, what a run will do; neither model is changed.

    Args:
        plan: the plan of the run.
        execution: the device and precision of the run.
        student: the student, placed on the device.
        generator: the generator, placed on the device.

    Yields:
        What the user should know but need not mend.

    Raises:
        ConfigError: something failed; the message says what, in one line.
    """
    with untouched_generators():
        yield from _Rehearsal(plan, replace(execution, processes=ALONE), student, generator).run()


@dataclass
class _Rehearsal:
    plan: Plan
    execution: Execution
    student: nn.Module
    generator: nn.Module

    def run(self) -> Iterator[str]:
        self._teacher()
        student = f"student {self.plan.student_name}"
        generator = f"generator {self.plan.generator_name}"
        self.student = self._copied(self.student, student)
        self.generator = self._copied(self.generator, generator)
        with _told(student, "predicting"):
            self._predict()
        with _told(student, "a training step"):
            self._teach_student()
        if self.plan.recipe.generator_steps > 0:
            with _told(f"{generator}, learning from {student},", "a training step"):
                self._teach_generator()
        with _told(generator, "making images"):
            shape, random = self.plan.teacher.input_shape, torch.Generator()
            sample_images(self.generator, 3, shape=shape, execution=self.execution, random=random)
        with _told(f"{student} or {generator}", "being saved and loaded"):
            self._save_and_load()
        if self.plan.has_own_student:
            yield from self._unexportable(student)

    def _teacher(self) -> None:
        """Have the teacher answer two batches, the last of a single image."""
        teacher = self.plan.teacher
        if not teacher.is_free:
            return  # it answered noise when it was loaded, and may be paid for each answer
        try:
            count = min(teacher.query_batch, self._batch() + 1)
            teacher.rehearse(self.execution.images(self._noise(count)))
        except TeacherError as error:
            raise ConfigError(*error.parts) from error

    def _predict(self) -> None:
        logits = self.execution.predict(self.student, self._noise(self._batch() + 1))
        if not logits.isfinite().all():
            raise ValueError("logits that are not finite (NaN or infinity)")

    def _teach_student(self) -> None:
        recipe = self.plan.recipe
        replay = Replay()
        replay.append(self._releases(recipe.batch_size), shares=None)
        training = StudentTraining(
            steps=1,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            augment=recipe.augment,
        )
        random = torch.Generator().manual_seed(0)
        loss = fit_student(
            self.student,
            replay,
            mechanism=self.plan.mechanism,
            objective=recipe.objective_function(members=self.plan.teacher.members),
            training=training,
            execution=self.execution,
            rows=training.rows(replay, random),
            random=random,
            advance=lambda: None,
        )
        if not math.isfinite(loss):
            raise ValueError(f"a loss that is not finite ({loss})")

    def _teach_generator(self) -> None:
        recipe = self.plan.recipe
        fit_generator(
            self.generator,
            self.student,
            training=GeneratorTraining(
                steps=1,
                batch_size=recipe.generator_batch_size,
                learning_rate=recipe.generator_learning_rate,
                weights=recipe.generator_weights(),
            ),
            execution=self.execution,
            random=torch.Generator().manual_seed(0),
            advance=lambda: None,
        )

    def _save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            run = RunFolder(Path(name))
            progress = Progress(round_index=1, shares=[])
            save_checkpoint(run, progress, student=self.student, generator=self.generator)
            load_checkpoint(run, student=self.student, generator=self.generator)

    def _unexportable(self, student: str) -> Iterator[str]:
        """Say if the student cannot be exported as a program; its weights always can."""
        images = self.execution.images(self._noise(2))
        try:
            with silenced():  # torch prints the whole graph before it raises
                torch.export.export(self.student.eval(), (images.contiguous(),), strict=False)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the module is the user's
            reason = "".join(described(error, is_public=True))
            yield (
                f"{student} cannot be exported as .pt2 or .onnx, only as .safetensors: the export "
                f"{reason}"
            )

    def _releases(self, count: int) -> RoundReleases:
        """Return what the mechanism releases of public answers about noise."""
        teacher = self.plan.teacher
        classes = teacher.num_classes
        queries = self._noise(count)
        prior = torch.full((count, classes), 1 / classes, dtype=torch.float16)
        # All say the same class, so that mechanisms that want consensus release something.
        said = torch.zeros(count, classes)
        said[:, 0] = 1
        answers = RawAnswers.seal(
            said.expand(teacher.members, -1, -1) if teacher.members > 1 else said,
            batch=count,
            num_classes=classes,
            scores="probabilities",
            members=teacher.members,
        )
        noise = ReproducibleNoise(seed=0).for_round(1)
        release = self.plan.mechanism.with_noise(noise).privatize(answers, prior.float())
        answered = release.isfinite().reshape(count, -1).all(-1).nonzero().flatten()
        if len(answered) == 0:
            answered, release = torch.arange(count), release.nan_to_num()
        kept = answered.repeat(-(-count // len(answered)))[:count]
        return RoundReleases(
            index=1,
            queries=queries,
            prior=prior,
            predicted=torch.zeros(count, dtype=torch.int32),
            source=torch.zeros(count, dtype=torch.uint8),
            release=release[kept].cpu(),
        )

    def _noise(self, count: int) -> Tensor:
        shape = self.plan.teacher.input_shape
        random = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, *shape), generator=random, dtype=torch.uint8)

    def _batch(self) -> int:
        return forward_batch(self.plan.teacher.input_shape, self.execution.device)

    def _copied(self, module: ModuleT, name: str) -> ModuleT:
        with _told(name, "being copied"):
            return copy.deepcopy(module)


@contextmanager
def _told(what: str, doing: str) -> Iterator[None]:
    """Raise whatever fails as an error of one line that says what failed in doing what."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, torch.OutOfMemoryError, ConfigError, WriteError):
        raise
    except BaseException as error:
        refusal = ConfigError(
            f"{what} fails in {doing} on public noise: it ",
            *described(error, is_public=True),
            ". Nothing was asked or spent",
        )
        refusal.add_note(frames_of(error))
        raise refusal from error
