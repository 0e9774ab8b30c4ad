"""Loading data sets by name.

>>> data = load_dataset("digits", "test")
>>> len(data), data.input_shape
(712, (1, 8, 8))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from dpsd.datasets import celeba, folder, medmnist
from dpsd.datasets.cifar import read_cifar10, read_cifar100
from dpsd.datasets.declared import Declared
from dpsd.datasets.digits import read_digits
from dpsd.datasets.idx import read_idx_pair
from dpsd.datasets.labelled import LabelledImages, PublishedSplit, Split, lacking
from dpsd.datasets.location import data_root
from dpsd.datasets.packed import read_packed
from dpsd.datasets.persons import persons_of
from dpsd.datasets.published import (
    ARRAYS,
    DIGITS,
    FASHION,
    HOMES,
    LOOSE,
    check_dataset,
    home_of,
    is_folder,
    npz_path,
    places_of,
    settled,
)
from dpsd.datasets.validation import check_share, hold_out
from dpsd.errors import ConfigError, Setting

_FIXED: dict[str, Callable[[PublishedSplit, Path], LabelledImages]] = {
    "digits": lambda split, _root: read_digits(split),
    "mnist": partial(read_idx_pair, "mnist", class_names=DIGITS, home=HOMES["mnist"]),
    "fashion-mnist": partial(
        read_idx_pair, "fashion-mnist", class_names=FASHION, home=HOMES["fashion-mnist"]
    ),
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "cifar10-jpeg": partial(read_packed, "cifar10-jpeg"),
    "cifar100-jpeg": partial(read_packed, "cifar100-jpeg"),
    "covid-xray": lambda split, root: medmnist.read_npz(
        "covid-xray",
        split,
        places_of("covid-xray", root)[0],
        home=HOMES["covid-xray"],
        classes=ARRAYS["covid-xray"].classes,
    ),
    "tiny-imagenet-10": partial(
        read_packed, "tiny-imagenet-10", folder="tinyimagenet10/", test="val"
    ),
}


def load_dataset(
    name: str,
    split: Split,
    *,
    root: str | Path | None = None,
    declared: Declared | None = None,
    validation_share: float = 0.0,
    group_by: str | None = None,
) -> LabelledImages:
    """Load one split of a data set into memory.

    A warning names the classes of which there is no image (:func:`.lacking`).

    Args:
        name: one of :func:`~dpsd.datasets.dataset_names`; ``folder:PATH`` for images in one folder
            per class (:mod:`dpsd.datasets.folder`); or the path of an ``.npz`` file in MedMNIST's
            layout.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        root: the folder of data sets; by default :func:`data_root`.
        declared: what the images and classes must be. Loose images are resized and cropped to the
            size; anything else that does not fit is refused. What is not declared is taken from the
            training data, with a size of 64 or 224 pixels for named sets of loose images.
        validation_share: about the share of the training records that is held out for validation,
            in [0, 1), if the data set has no validation split of its own (:func:`has_validation`):
            ``"train"`` lacks them, and ``"validation"`` consists of them
            (:mod:`dpsd.datasets.validation`). It has no effect on other data sets.
        group_by: the rule that says to whom each training record belongs
            (:mod:`dpsd.datasets.persons`). A person is held out with all their records, or not.

    Raises:
        UnknownNameError: there is no data set of that name.
        ConfigError: the split makes no sense, the name contradicts the declaration, or there is no
            validation split and nothing is to be held out.
        DataError: the data is missing, damaged, or not what was declared; if it is missing, the
            message says where to get it and where to put it.

    >>> load_dataset("minst", "train")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown data set 'minst': did you mean 'mnist'? Known: ...
    >>> held_out = load_dataset("digits", "validation", validation_share=0.1)
    >>> len(held_out), len(load_dataset("digits", "train", validation_share=0.1))
    (119, 966)
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; it must be 'train', 'validation' or 'test'")
    place = _root(root)
    if split == "test":
        data = _read(name, split, place, declared)
    else:
        training, validation = _parts(name, place, declared, validation_share, group_by)
        if split == "validation" and validation is None:
            raise ConfigError(
                f"data set {name!r} has no validation split of its own: give the share of its "
                "training records that no teacher was trained on, as in ",
                *(Setting("validation_share"), " 0.1"),
            )
        data = training if split == "train" or validation is None else validation
    _warn_of_lacking(data)
    return data


def load_training(
    name: str,
    *,
    root: str | Path | None = None,
    declared: Declared | None = None,
    validation_share: float = 0.0,
    group_by: str | None = None,
) -> tuple[LabelledImages, LabelledImages | None]:
    """Load the records for training, and those for validation if there are any.

    The arguments and errors are those of :func:`load_dataset`. Nothing of the training split is
    held out if the data set has a validation split of its own.

    >>> training, validation = load_training("digits")
    >>> len(training), validation
    (1085, None)
    """
    training, validation = _parts(name, _root(root), declared, validation_share, group_by)
    _warn_of_lacking(training)
    if validation is not None:
        _warn_of_lacking(validation)
    return training, validation


def has_validation(name: str, *, root: str | Path | None = None) -> bool:
    """Return whether a data set, as it lies on this machine, has a validation split of its own.

    >>> has_validation("digits")
    False
    """
    place = _root(root)
    if name in _FIXED:
        return False
    if npz := npz_path(name, place):
        return medmnist.has_validation(npz)
    if _is_official_celeba(name, place):
        return celeba.has_validation(place)
    return is_folder(name) and folder.has_validation(_folder_of(name, place))


def _parts(
    name: str, root: Path, declared: Declared | None, share: float, group_by: str | None
) -> tuple[LabelledImages, LabelledImages | None]:
    """Return the records for training, and those for validation if there are any."""
    check_share(share)
    training = _read(name, "train", root, declared)
    if group_by is not None:
        training = replace(training, persons=persons_of(training, group_by, root=root))
    if has_validation(name, root=root):
        return training, _read(name, "validation", root, declared)
    return hold_out(training, share) if share else (training, None)


def _read(name: str, split: Split, root: Path, declared: Declared | None) -> LabelledImages:
    """Read a split as it was published."""
    check_dataset(name)
    declared = declared or Declared()
    settled(name, declared)  # a contradiction is refused before anything is read
    if name in LOOSE:
        declared = declared.over(Declared(size=LOOSE[name].size))
    if _is_official_celeba(name, root):
        return celeba.read_celeba(name, split, root, declared=declared)
    if is_folder(name):
        path = _folder_of(name, root)
        return folder.read_folder(name, split, path, declared=declared, home=home_of(name))
    if name in _FIXED:
        assert split != "validation", name  # has_validation() says that there is none
        return declared.fit(_FIXED[name](split, root))
    npz = npz_path(name, root)
    assert npz is not None, name  # the only kind that is left
    found = medmnist.read_npz(name, split, npz, home=home_of(name), classes=declared.classes)
    return declared.fit(found)


def _root(root: str | Path | None) -> Path:
    return data_root() if root is None else Path(root)


def _folder_of(name: str, root: Path) -> Path:
    """Return the folder of loose images."""
    return root / name if name in LOOSE else Path(name.partition(":")[2]).expanduser()


def _is_official_celeba(name: str, root: Path) -> bool:
    """Return whether to read CelebA from its publishers' files: prepared folders come first."""
    return name in celeba.CLASSES and not (root / name).is_dir()


def _warn_of_lacking(data: LabelledImages) -> None:
    """Warn, from the line that loads the data, of classes without images."""
    if warning := lacking(data):
        warnings.warn(warning, stacklevel=3)
