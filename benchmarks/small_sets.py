"""Small versions of data sets, 14x14 and grey, on which recipes can be compared in minutes.

python benchmarks/small_sets.py small/
dpsd bench transfer --data small/xrays.npz --validation-share 0.2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.datasets.labelled import Split

SIDE = 14
TRAIN, TEST = 6_000, 3_000


def scaled(images: Tensor, side: int) -> Tensor:
    """Uint8 images ``(N, 1, H, W)`` as means over areas, uint8 ``(N, 1, side, side)``."""
    smaller = F.interpolate(images / 255, size=(side, side), mode="area")
    return (255 * smaller).round().to(torch.uint8)


def small(data: LabelledImages, most: int) -> tuple[Tensor, Tensor]:
    """Images and labels, at most so many; X-rays are those of two classes, by way of 28 pixels."""
    images, labels = data.images, data.labels
    if data.name == "covid-xray":  # normal or pneumonia
        images, labels = scaled(images[labels > 0], 28), labels[labels > 0] - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    chosen = order[:most] if data.split == "train" else torch.arange(min(most, len(images)))
    return scaled(images[chosen], SIDE), labels[chosen]


def main() -> None:
    """Write one ``.npz`` file for each data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    names = {"mnist": "mnist", "fashion-mnist": "fashion-mnist", "xrays": "covid-xray"}
    for name, source in names.items():
        arrays: dict[str, Any] = {}
        splits: tuple[tuple[Split, int], ...] = (("train", TRAIN), ("test", TEST))
        for split, most in splits:
            images, labels = small(load_dataset(source, split), most)
            arrays[f"{split}_images"] = images[:, 0].numpy()
            arrays[f"{split}_labels"] = labels.view(-1, 1).numpy().astype(np.uint8)
        np.savez(out / f"{name}.npz", **arrays)
        print(f"{out / name}.npz: {len(arrays['train_images']):,} training images")


if __name__ == "__main__":
    main()
