"""Synthetic data from a run: the generator's images with the student's labels.

Both models were made from releases alone, so sampling is post-processing and costs no privacy,
however much is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.generator import sample_images
from dpsd.errors import RunError, unwritable
from dpsd.images.contact_sheet import contact_sheet, save_image
from dpsd.runs.directory import RunDirectory
from dpsd.storage.files import replacing
from dpsd.streams import stream

DATA_FILE = "synthetic.npz"
CONTACT_SHEET_FILE = "contact-sheet.png"

#: The number of images that share BatchNorm statistics; as it is fixed, a small sample looks like a
#: part of a large one.
_BATCH = 256
_COLUMNS, _MOST_ROWS = 20, 100


@dataclass(frozen=True, kw_only=True)
class SyntheticData:
    """Generated images with the student's labels.

    Args:
        images: the images, uint8 ``(N, C, H, W)``.
        labels: the labels, int64 ``(N,)``.
        num_classes: the number of classes, whether or not each was generated.
    """

    images: Tensor
    labels: Tensor
    num_classes: int

    def class_counts(self) -> Tensor:
        """Return the number of images of each class, ``(K,)``."""
        return torch.bincount(self.labels, minlength=self.num_classes)


def synthesise(
    run: RunDirectory,
    count: int,
    *,
    seed: int = 0,
    student: nn.Module | None = None,
    generator: nn.Module | None = None,
    device: str | None = None,
) -> SyntheticData:
    """Sample images and label them.

    Args:
        run: a run with at least one finished round.
        count: the number of images.
        seed: the seed of the images; a smaller sample is the beginning of a larger one.
        student: the module to load the weights into, if the run's student was not a named model.
        generator: the module to load the weights into, if its generator was not a named model.
        device: the device of the models; by default as in the run.

    Raises:
        RunError: no round is finished.
    """
    config, facts = run.config(), run.facts()
    execution = Execution.of(device or config.recipe.device, config.recipe.precision)
    labeller = execution.place(run.student(student))
    maker = execution.place(run.generator(generator))
    random = stream(seed, 0, "synthetic data")
    images, labels = [], []
    for start in range(0, count, _BATCH):
        made = sample_images(
            maker, _BATCH, shape=facts["input_shape"], execution=execution, random=random
        )[: count - start]
        images.append(made)
        labels.append(execution.predict(labeller, made).argmax(-1).cpu())
    return SyntheticData(
        images=torch.cat(images), labels=torch.cat(labels), num_classes=int(facts["num_classes"])
    )


def write_synthetic(data: SyntheticData, folder: Path) -> list[Path]:
    """Write ``synthetic.npz`` (``images``, ``labels``) and a contact sheet, one row per class.

    Raises:
        RunError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{folder} cannot be created", mend="give another place", kind=RunError
        ) from None
    arrays, sheet = folder / DATA_FILE, folder / CONTACT_SHEET_FILE
    with replacing(arrays) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=data.images.numpy(), labels=data.labels.numpy())
    classes = range(min(data.num_classes, _MOST_ROWS))
    rows = [data.images[data.labels == number][:_COLUMNS] for number in classes]
    save_image(contact_sheet(rows, labels=[str(number) for number in classes]), sheet)
    return [arrays, sheet]
