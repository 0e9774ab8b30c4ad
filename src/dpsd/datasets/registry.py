"""Loading data sets by name.

>>> data = load_dataset("digits", "test")
>>> len(data), data.input_shape
(712, (1, 8, 8))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dpsd.datasets.cifar import read_cifar10, read_cifar10_jpeg, read_cifar100
from dpsd.datasets.declared import Declared
from dpsd.datasets.digits import read_digits
from dpsd.datasets.folder import read_folder
from dpsd.datasets.idx import read_idx_pair
from dpsd.datasets.labelled import LabelledImages, Split, lacking
from dpsd.datasets.location import data_root
from dpsd.datasets.medmnist import read_npz
from dpsd.datasets.published import (
    DIGITS,
    FASHION,
    HOMES,
    LOOSE,
    check_dataset,
    home_of,
    is_folder,
    npz_path,
    settled,
)
from dpsd.errors import ConfigError

_FIXED: dict[str, Callable[[Split, Path], LabelledImages]] = {
    "digits": lambda split, _root: read_digits(split),
    "mnist": partial(read_idx_pair, "mnist", class_names=DIGITS, home=HOMES["mnist"]),
    "fashion-mnist": partial(
        read_idx_pair, "fashion-mnist", class_names=FASHION, home=HOMES["fashion-mnist"]
    ),
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "cifar10-jpeg": read_cifar10_jpeg,
}


def load_dataset(
    name: str, split: Split, *, root: str | Path | None = None, declared: Declared | None = None
) -> LabelledImages:
    """Load one split of a data set into memory.

    A warning names the classes of which there is no image (:func:`.lacking`).

    Args:
        name: one of :func:`~dpsd.datasets.dataset_names`; ``folder:PATH`` for images in one folder
            per class (:mod:`dpsd.datasets.folder`); or the path of an ``.npz`` file in MedMNIST's
            layout.
        split: ``"train"`` or ``"test"``.
        root: the folder of data sets; by default :func:`data_root`.
        declared: what the images and classes must be. Loose images are resized and cropped to the
            size; anything else that does not fit is refused. What is not declared is taken from the
            training data, with a size of 64 or 224 pixels for named sets of loose images.

    Raises:
        UnknownNameError: there is no data set of that name.
        ConfigError: the split makes no sense, or the name contradicts the declaration.
        DataError: the data is missing, damaged, or not what was declared; if it is missing, the
            message says where to get it and where to put it.

    >>> load_dataset("minst", "train")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown data set 'minst': did you mean 'mnist'? Known: ...
    """
    if split not in ("train", "test"):
        raise ConfigError(f"split is {split!r}; it must be 'train' or 'test'")
    check_dataset(name)
    root = data_root() if root is None else Path(root)
    declared = declared or Declared()
    settled(name, declared)  # a contradiction is refused before anything is read
    data = _read(name, split, root, declared)
    if warning := lacking(data):
        warnings.warn(warning, stacklevel=2)
    return data


def _read(name: str, split: Split, root: Path, declared: Declared) -> LabelledImages:
    if name in LOOSE:
        declared = declared.over(Declared(size=LOOSE[name].size))
        return read_folder(name, split, root / name, declared=declared, home=home_of(name))
    if is_folder(name):
        path = Path(name.partition(":")[2]).expanduser()
        return read_folder(name, split, path, declared=declared)
    if name in _FIXED:
        return declared.fit(_FIXED[name](split, root))
    npz = npz_path(name, root)
    assert npz is not None, name  # the only kind that is left
    found = read_npz(name, split, npz, home=home_of(name), classes=declared.classes)
    return declared.fit(found)
