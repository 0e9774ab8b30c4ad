"""Small versions of data sets, on which recipes can be compared in minutes.

python benchmarks/small_sets.py small/
dpsd bench transfer --data small/xrays.npz --validation-share 0.2

Without names of data sets, MNIST, Fashion-MNIST and X-rays are made 14x14 and grey. With names,
these are made, in their colours, with all their classes:

python benchmarks/small_sets.py small/ cifar10-jpeg celeba-gender --side 16 --train 20000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.datasets.labelled import Split
from explaining import explained

XRAYS = "xrays"


def scaled(images: Tensor, side: int) -> Tensor:
    """Uint8 images ``(N, C, H, W)`` as means over areas, uint8 ``(N, C, side, side)``."""
    blocks = torch.split(images, 1 << 12)
    smaller = [F.interpolate(one / 255, size=(side, side), mode="area") for one in blocks]
    return (255 * torch.cat(smaller)).round().to(torch.uint8)


def normal_or_pneumonia(data: LabelledImages) -> tuple[Tensor, Tensor]:
    """X-rays of two of the three classes, by way of 28 pixels, and their labels."""
    return scaled(data.images[data.labels > 0], 28), data.labels[data.labels > 0] - 1


def main() -> None:
    """Write one ``.npz`` file for each data set."""
    parser = explained(__doc__)
    parser.add_argument("out", type=Path, help="the folder of the files that are written")
    parser.add_argument("data", nargs="*", help="data sets, as `dpsd data list` names them")
    parser.add_argument("--side", type=int, default=14, help="pixels of a side")
    parser.add_argument("--train", type=int, default=6_000, help="training records at most")
    parser.add_argument("--test", type=int, default=3_000, help="test records at most")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.data or ("mnist", "fashion-mnist", XRAYS):
        arrays: dict[str, Any] = {}
        splits: tuple[tuple[Split, int], ...] = (("train", chosen.train), ("test", chosen.test))
        for split, most in splits:
            data = load_dataset("covid-xray" if name == XRAYS else name, split)
            images, labels = data.images, data.labels
            if name == XRAYS:
                images, labels = normal_or_pneumonia(data)
            # Some data sets are ordered by class.
            rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:most]
            small = scaled(images[rows], chosen.side).permute(0, 2, 3, 1).squeeze(-1)
            arrays[f"{split}_images"] = small.contiguous().numpy()
            arrays[f"{split}_labels"] = labels[rows].view(-1, 1).numpy().astype(np.uint8)
        path = chosen.out / f"{name.replace(':', '-')}.npz"
        np.savez(path, **arrays)
        print(f"{path}: {len(arrays['train_images']):,} training images")


if __name__ == "__main__":
    main()
