"""The 8x8 handwritten digits that come with scikit-learn, which need no download.

>>> data = read_digits("train")
>>> len(data), data.input_shape, data.num_classes
(1085, (1, 8, 8), 10)
"""

from __future__ import annotations

import numpy as np
import torch

from dpsd.datasets.labelled import LabelledImages, PublishedSplit


def read_digits(split: PublishedSplit) -> LabelledImages:
    """Read the digits: three of every five images of each class are ``"train"``, others ``"test"``.

    Pixels are scaled from 0..16 to 0..255. The split depends on the order of the images alone, so
    it is the same everywhere.

    >>> read_digits("test").labels.bincount().tolist()
    [70, 72, 70, 72, 72, 72, 72, 71, 69, 72]
    """
    from sklearn.datasets import load_digits  # takes a second, and most runs need no digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    rank = np.zeros_like(labels)
    for label in range(10):
        (members,) = np.nonzero(labels == label)
        rank[members] = np.arange(len(members))
    chosen = (rank % 5 < 3) == (split == "train")
    pixels = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    return LabelledImages(
        images=torch.from_numpy(pixels).unsqueeze(1),
        labels=torch.from_numpy(labels[chosen]),
        class_names=tuple(str(label) for label in range(10)),
        name="digits",
        split=split,
    )
