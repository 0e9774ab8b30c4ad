"""Training on synthetic data and testing on real data: what the generator's images are good for.

High accuracy means useful samples. It says nothing about privacy in either direction.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from dpsd.attacks.copies.settings import Copies
from dpsd.attacks.target import Progress, Target
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.images.augmentation import Augmentation
from dpsd.reporting.evaluations import wilson
from dpsd.results.synthetic import SyntheticData
from dpsd.runs.findings import Table
from dpsd.storage.files import read_json, write_text
from dpsd.training.classifier import TrainingProgress, predict_classes, train_teacher

#: The version of this score.
VERSION = 1
_COLUMNS = ("model", "was trained on", "right %", "from %", "to %", "held-out records")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many held-out records a model classifies correctly.

    Args:
        model: the name of the model.
        trained_on: what it was trained on.
        right: the number of records that it gets right.
        of: the number of records.
    """

    model: str
    trained_on: str
    right: int
    of: int

    def row(self) -> tuple[str, str, float, float, float, int]:
        """Return the row of a table, with Wilson's interval of 95 %."""
        share = self.right / self.of
        return (self.model, self.trained_on, share, *wilson(share, self.of), self.of)


def accuracies(
    target: Target,
    synthetic: SyntheticData,
    *,
    settings: Copies,
    seed: int,
    folder: Path,
    progress: Progress,
) -> list[Accuracy]:
    """Measure models that saw synthetic data alone, and the student (and the teacher) beside them.

    A model that was trained is not trained again: its count is kept in the folder, under a hash of
    everything that it depends on.
    """
    others, count = target.others, len(synthetic.images)
    linear = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(others.input_shape), others.num_classes)
    )
    models: dict[str, tuple[str | nn.Module, Augmentation | None]] = {
        "cnn": ("cnn", None),
        "linear": (linear.apply(_zeroed), "none"),
    }
    found = []
    for name, (model, augment) in models.items():
        kept = folder / f"copies-{name}-{_key(target, synthetic, settings, seed)}.json"
        if not kept.is_file():
            module = train_teacher(
                LabelledImages(
                    images=synthetic.images,
                    labels=synthetic.labels,
                    class_names=others.class_names,
                    name="synthetic",
                    split="train",
                ),
                model=model,
                epochs=settings.epochs,
                seed=seed,
                device=str(target.execution.device),
                precision=target.execution.precision,
                augment=augment,
                on_epoch=partial(_report, progress, f"copies: {name} on samples"),
            )
            right = _right(predict_classes(module, others.images), others)
            write_text(kept, json.dumps({"right": right}) + "\n")
        right = int(read_json(kept)["right"])
        trained_on = f"{count:,} synthetic images"
        found.append(Accuracy(model=name, trained_on=trained_on, right=right, of=len(others)))
    answers = {"the run's student": ("releases", _predicted(target))}
    if target.teacher is not None:
        said = target.teacher.predict_classes(others.images)
        answers["the teacher"] = ("private records", said)
    for name, (trained_on, predicted) in answers.items():
        right = _right(predicted, others)
        found.append(Accuracy(model=name, trained_on=trained_on, right=right, of=len(others)))
    return found


def accuracy_table(found: list[Accuracy]) -> Table:
    """Return the table of accuracies."""
    return Table(
        title="Train on synthetic data, test on held-out real records: higher is more useful, and "
        "says nothing about privacy",
        columns=_COLUMNS,
        rows=tuple(one.row() for one in found),
    )


def _report(progress: Progress, what: str, epoch: TrainingProgress) -> None:
    progress.step(what, epoch.epoch, epoch.epochs)


def _predicted(target: Target) -> Tensor:
    execution: Execution = target.execution
    return execution.predict(target.student(), target.others.images).argmax(1).cpu()


def _right(predicted: Tensor, data: LabelledImages) -> int:
    return int((predicted == data.labels).sum())


def _zeroed(module: nn.Module) -> None:
    """Start a linear layer at 0, so that nothing of it depends on torch's own generator."""
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)


def _key(target: Target, synthetic: SyntheticData, settings: Copies, seed: int) -> str:
    digest = hashlib.sha256(
        json.dumps([VERSION, settings.epochs, seed, version("dpsd"), torch.__version__]).encode()
    )
    digest.update(target.execution.precision.encode())
    others = target.others
    for tensor in (synthetic.images, synthetic.labels, others.images, others.labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
