"""What an inversion may see of a target: the whole frozen module, or its labels alone.

>>> from torch import nn
>>> target = attacked("tiny", nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), shape=(1, 8, 8))
>>> target.labels(torch.zeros(2, 1, 8, 8)).shape, target.module.training
(torch.Size([2]), False)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.images.names import Shape
from dpsd.synthesis.drawn import StructuredNoise
from dpsd.teachers import Teacher
from dpsd.teachers.fingerprint import fingerprint_module, fingerprint_tensors
from dpsd.teachers.module import ModuleTeacher

#: The number of images by whose labels functions are told apart.
_PROBES = 1024

Labels = Callable[[Tensor], Tensor]
"""A function from images ``(N, C, H, W)`` in [0, 1] to classes, int64 ``(N,)``, and nothing else.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """A target of an inversion.

    Args:
        name: the name of the target in the findings.
        labels: the function that a label-only attack may ask.
        module: the frozen module in eval mode, from images in [0, 1] to logits; ``None`` if the
            target can only be asked.
        key: a hash of the target, which is part of the names of what is kept of it.
    """

    name: str
    labels: Labels
    module: nn.Module | None
    key: str


def attacked(
    name: str,
    target: nn.Module | Teacher | Callable[[Tensor], Tensor],
    *,
    shape: Shape,
    execution: Execution | None = None,
) -> Attacked:
    """Return a model as the target of an inversion.

    Args:
        name: the name of the target in the findings.
        target: a module, which is copied, frozen and put into eval mode; a teacher; or a function
            from images in [0, 1] to scores ``(N, K)`` or classes ``(N,)``, whose labels alone are
            attacked.
        shape: the shape of an image.
        execution: the device and precision; by default, the CPU in float32.

    Raises:
        ConfigError: a module does not answer with a row of logits for each image.
    """
    where = execution or Execution.of("cpu", "float32")
    if isinstance(target, Teacher):
        asked, module = _only_labels(target.predict_classes), None
        if isinstance(target, ModuleTeacher) and target.calling.scale != "uint8":
            module = target.with_gradients().eval()
        # A fingerprint covers neither how a teacher is called nor what a function does.
        stated = (target.fingerprint, target.normalization, target.scores, target.calling)
        key = f"{stated} {_answers_key(asked, shape)}"
        return Attacked(name=name, labels=asked, module=module, key=key)
    if not isinstance(target, nn.Module):
        asked = _only_labels(target)
        # Two functions may well agree on a thousand images, so the name must tell them apart.
        key = f"{name} {_answers_key(asked, shape)}"
        return Attacked(name=name, labels=asked, module=None, key=key)
    module = where.place(copy.deepcopy(target)).eval().requires_grad_(False)
    with torch.no_grad():
        found = module(where.images(torch.zeros((2, *shape))))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
        raise ConfigError(f"target {name!r} does not answer with a row of logits for each image")
    labels = _only_labels(lambda images: where.predict(module, images))
    return Attacked(name=name, labels=labels, module=module, key=fingerprint_module(module))


def _only_labels(answers: Callable[[Tensor], Tensor]) -> Labels:
    """Return a function that lets nothing of the answers through but the classes."""

    def labels(images: Tensor) -> Tensor:
        with torch.no_grad():
            found = torch.as_tensor(answers(images))
        return (found if found.ndim == 1 else found.argmax(-1)).long().cpu()

    return labels


def _answers_key(labels: Labels, shape: Shape) -> str:
    """Hash what cannot be hashed itself by its labels for fixed images, which are public."""
    images = StructuredNoise(shape).sample(_PROBES, generator=torch.Generator().manual_seed(0))
    return fingerprint_tensors({"labels": labels(images)})
