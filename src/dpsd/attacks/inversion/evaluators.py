"""Evaluators: unlike classifiers of the private data, which judge what an attack made.

An attack that fools its target may fool one evaluator alike, so there are several: a plain and a
residual convolutional network, and a linear classifier of fixed wavelet features. An evaluator that
does not know the data judges nothing, so weak ones are refused.

>>> weakness(0.62, best=0.97, num_classes=10)
'its balanced accuracy of 62.0% is more than 10 points below the best one of 97.0%'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.attacks.inversion.shelf import Shelf
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution
from dpsd.distillation.generator import PenultimateFeatures
from dpsd.errors import DataError
from dpsd.models import build_classifier
from dpsd.results.evaluation import balanced_accuracy
from dpsd.streams import stream_seed
from dpsd.teachers.fingerprint import fingerprint_module, fingerprint_tensors
from dpsd.training.classifier import train_teacher

#: The architectures of evaluators, from the most to the least like a usual target.
MODELS = ("cnn", "resnet8", "scattering")

#: How far an evaluator may be below the best one, in balanced accuracy.
_MOST_BELOW = 0.1
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """A classifier that judges reconstructions.

    Args:
        name: the name of its architecture.
        module: the classifier, in eval mode.
        accuracy: its balanced accuracy on held-out records, in [0, 1].
        content: the hash of its weights.
        refused: why it judges nothing, or nothing.
    """

    name: str
    module: nn.Module
    accuracy: float
    content: str
    refused: str = ""


def train_evaluators(
    members: LabelledImages,
    others: LabelledImages,
    *,
    steps: int,
    seed: int,
    execution: Execution,
    shelf: Shelf,
    advance: Callable[[int], None],
) -> list[Evaluator]:
    """Train evaluators on the private training records, or take those that were kept.

    Args:
        members: the private training records.
        others: held-out records, on which evaluators are measured.
        steps: the number of training steps of each.
        seed: the seed of their training.
        execution: the device.
        shelf: keeps them.
        advance: is called with the number of evaluators done.

    Raises:
        DataError: none is good enough to judge anything.
    """
    records = records_key(members)
    trained = []
    for number, model in enumerate(MODELS):
        facts = {
            "records": records,
            "model": model,
            "steps": steps,
            "seed": seed,
            "device": execution.device.type,
        }
        weights = shelf.kept(
            "evaluator",
            facts,
            lambda model=model, number=number: _trained(  # type: ignore[misc]
                members, model, steps, stream_seed(seed, number, "evaluator"), execution
            ),
        )
        module = build_classifier(
            model, input_shape=members.input_shape, num_classes=members.num_classes
        )
        module.load_state_dict(weights)
        module = execution.place(module).eval().requires_grad_(False)
        found = execution.predict(module, others.images).argmax(1).cpu()
        trained.append((model, module, balanced_accuracy(others.labels, found)))
        advance(number + 1)
    best = max(accuracy for *_, accuracy in trained)
    evaluators = [
        Evaluator(
            name=model,
            module=module,
            accuracy=accuracy,
            content=fingerprint_module(module),
            refused=weakness(accuracy, best=best, num_classes=members.num_classes),
        )
        for model, module, accuracy in trained
    ]
    if all(one.refused for one in evaluators):
        raise DataError(
            f"data set {members.name!r}: no evaluator can judge reconstructions, as "
            + "; ".join(f"of {one.name}, {one.refused}" for one in evaluators)
            + ". Give more records or evaluator_steps"
        )
    return evaluators


def weakness(accuracy: float, *, best: float, num_classes: int) -> str:
    """Return why an evaluator of this balanced accuracy cannot judge, or nothing if it can.

    >>> weakness(0.9, best=0.97, num_classes=10)
    ''
    """
    least = (1 + 1 / num_classes) / 2
    stated = f"its balanced accuracy of {100 * accuracy:.1f}% is"
    if accuracy < least:
        return f"{stated} nearer to chance than to certainty (below {100 * least:.0f}%)"
    if accuracy < best - _MOST_BELOW:
        return (
            f"{stated} more than {100 * _MOST_BELOW:.0f} points below the best one of "
            f"{100 * best:.1f}%"
        )
    return ""


def majority(votes: Tensor) -> Tensor:
    """Return the class that more than half of the evaluators say, int64 ``(N,)``; -1 if none is.

    Args:
        votes: the classes that evaluators say, int64 ``(evaluators, N)``.

    >>> majority(torch.tensor([[1, 2], [1, 0], [3, 1]])).tolist()
    [1, -1]
    """
    most = votes.mode(0).values
    return torch.where(2 * (votes == most).sum(0) > len(votes), most, -1)


def penultimate(module: nn.Module, pixels: Tensor, execution: Execution) -> Tensor:
    """Return the features of a classifier's last linear layer for images, ``(N, D)`` on the CPU."""
    found = []
    with PenultimateFeatures(module) as features, torch.inference_mode():
        for part in torch.split(pixels, _BATCH):
            execution.logits(module, execution.images(part))
            found.append(features.last.flatten(1).float().cpu())
    return torch.cat(found)


def records_key(data: LabelledImages) -> str:
    """Hash the images and labels of records."""
    return fingerprint_tensors({"images": data.images, "labels": data.labels})


def epochs_of(steps: int, records: int) -> int:
    """Return the number of epochs in which training takes about so many steps, at least 1.

    >>> epochs_of(1500, 60_000), epochs_of(600, 1085)
    (6, 38)
    """
    batch = min(256, max(16, records // 16), records)
    return max(1, round(steps / max(1, records // batch)))


def _trained(
    members: LabelledImages, model: str, steps: int, seed: int, execution: Execution
) -> dict[str, Tensor]:
    module = train_teacher(
        members,
        model=model,
        epochs=epochs_of(steps, len(members)),
        seed=seed,
        device=str(execution.device),
        precision="float32",
    )
    return dict(module.state_dict())
