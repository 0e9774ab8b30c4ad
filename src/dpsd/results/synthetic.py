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
#: The most characters of a class's name that the contact sheet shows.
_LONGEST_LABEL = 24


@dataclass(frozen=True, kw_only=True)
class SyntheticData:
    """Generated images with the student's labels.

    Args:
        images: the images, uint8 ``(N, C, H, W)``.
        labels: the labels, int64 ``(N,)``.
        num_classes: the number of classes, whether or not each was generated.
        class_names: the names of the classes in the order of the labels; ``None`` without names.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    class_names: tuple[str, ...] | None = None

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
    recipe, facts = run.recipe, run.facts()
    execution = Execution.of(device or recipe.device, recipe.precision)
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
        images=torch.cat(images),
        labels=torch.cat(labels),
        num_classes=int(facts["num_classes"]),
        class_names=run.class_names(),
    )


def write_synthetic(data: SyntheticData, folder: Path) -> list[Path]:
    """Write ``synthetic.npz`` and a contact sheet, one row per class.

    The arrays are ``images``, ``labels`` and, if the classes have names, ``class_names``, text in
    the order of the labels.

    Raises:
        RunError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{folder} cannot be created", mend="give another place", kind=RunError
        ) from None
    path, sheet = folder / DATA_FILE, folder / CONTACT_SHEET_FILE
    with replacing(path) as temporary, temporary.open("wb") as file:
        arrays = {"images": data.images.numpy(), "labels": data.labels.numpy()}
        if data.class_names is not None:
            arrays["class_names"] = np.array(data.class_names)
        np.savez_compressed(file, allow_pickle=False, **arrays)
    classes = range(min(data.num_classes, _MOST_ROWS))
    rows = [data.images[data.labels == number][:_COLUMNS] for number in classes]
    labels = [_shown(data.class_names, number) for number in classes]
    save_image(contact_sheet(rows, labels=labels), sheet)
    return [path, sheet]


def _shown(names: tuple[str, ...] | None, number: int) -> str:
    """The label of a row, short enough to leave room for the images."""
    name = str(number) if names is None else names[number]
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"
