"""Data sets by name.

>>> data = load_dataset("digits", "test")
>>> len(data), data.input_shape
(712, (1, 8, 8))
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dpsd.datasets.cifar import read_cifar10, read_cifar10_jpeg, read_cifar100
from dpsd.datasets.digits import read_digits
from dpsd.datasets.folder import read_folder
from dpsd.datasets.idx import read_idx_pair
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import data_root
from dpsd.datasets.medmnist import HOME as MEDMNIST_HOME
from dpsd.datasets.medmnist import MEDMNIST_NAMES, read_npz
from dpsd.errors import ConfigError, UnknownNameError

_FIXED: dict[str, Callable[[Split, Path], LabelledImages]] = {
    "digits": lambda split, _root: read_digits(split),
    "mnist": partial(
        read_idx_pair,
        "mnist",
        class_names=tuple("0123456789"),
        home="http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion-mnist": partial(
        read_idx_pair,
        "fashion-mnist",
        class_names=(
            "t-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        home="https://github.com/zalandoresearch/fashion-mnist",
    ),
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "cifar10-jpeg": read_cifar10_jpeg,
}

# Loose images under the root: pixels a side, and where they come from.
_FOLDERS = {
    "celeba-hair": (64, "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"),
    "celeba-gender": (64, "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"),
    "covidx": (64, "https://github.com/lindawangg/COVID-Net"),
    "imagenet": (224, "https://image-net.org/download.php"),
}


def dataset_names() -> list[str]:
    """The names that :func:`load_dataset` knows, beside ``folder:PATH`` and ``PATH.npz``.

    >>> dataset_names()[:3]
    ['celeba-gender', 'celeba-hair', 'cifar10']
    """
    return sorted([*_FIXED, *_FOLDERS, *(f"medmnist:{name}" for name in MEDMNIST_NAMES)])


def load_dataset(
    name: str, split: Split, *, root: Path | None = None, size: int | None = None
) -> LabelledImages:
    """Load one split of a data set into memory.

    Args:
        name: one of :func:`dataset_names`; ``folder:PATH`` for images in one folder a class
            (:mod:`dpsd.datasets.folder`); or the path of an ``.npz`` file in MedMNIST's layout.
        split: ``"train"`` or ``"test"``.
        root: the folder of data sets; by default :func:`data_root`.
        size: pixels a side, for data sets of loose images; they are resized and cut to it.

    Raises:
        UnknownNameError: there is no data set of that name.
        ConfigError: the split or the size makes no sense.
        DataError: the data is missing or damaged; says where to get it and where to put it.

    >>> load_dataset("minst", "train")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown data set 'minst': did you mean 'mnist'? Known: ...
    """
    if split not in ("train", "test"):
        raise ConfigError(f"split is {split!r}; it must be 'train' or 'test'")
    if size is not None and size < 1:
        raise ConfigError(f"size is {size}; it must be at least 1 pixel")
    root = data_root() if root is None else root
    kind, _, rest = name.partition(":")
    if name in _FOLDERS:
        default, home = _FOLDERS[name]
        return read_folder(name, split, root / name, size=size or default, home=home)
    if kind == "folder" and rest:
        return read_folder(name, split, Path(rest).expanduser(), size=size)
    if size is not None:
        raise ConfigError(f"data set {name!r} has a fixed size; size is for loose images only")
    if name in _FIXED:
        return _FIXED[name](split, root)
    if kind == "medmnist" and re.fullmatch(r"\w+", rest):  # one name, not a way to another folder
        return read_npz(name, split, root / "medmnist" / f"{rest}.npz", home=MEDMNIST_HOME)
    if name.endswith(".npz"):
        return read_npz(name, split, Path(name).expanduser())
    raise UnknownNameError("data set", name, [*dataset_names(), "folder:PATH", "PATH.npz"])
