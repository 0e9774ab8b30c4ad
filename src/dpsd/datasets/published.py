"""What the name of a data set fixes: the shape and the classes that its publishers say it has.

>>> settled("medmnist:bloodmnist", Declared()).channels
3
"""

from __future__ import annotations

import re

from dpsd.datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from dpsd.datasets.declared import Declared
from dpsd.datasets.medmnist import MEDMNIST_NAMES
from dpsd.errors import ConfigError

DIGITS = tuple("0123456789")
FASHION = (
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
)

#: Sets whose files hold arrays: what their publishers say is checked and cannot be changed.
ARRAYS = {
    "digits": Declared(size=(8, 8), channels=1, classes=DIGITS),
    "mnist": Declared(size=(28, 28), channels=1, classes=DIGITS),
    "fashion-mnist": Declared(size=(28, 28), channels=1, classes=FASHION),
    "cifar10": Declared(size=(32, 32), channels=3, classes=CIFAR10_CLASSES),
    "cifar10-jpeg": Declared(size=(32, 32), channels=3, classes=CIFAR10_CLASSES),
    "cifar100": Declared(size=(32, 32), channels=3, classes=CIFAR100_CLASSES),
}

#: Sets of loose images: what they are brought to unless something else is declared. The X-rays of
#: COVIDx are grey in some releases and coloured in others; ImageNet's classes are a user's choice.
LOOSE = {
    "celeba-hair": Declared(size=(64, 64), channels=3, classes=("black", "blond", "brown")),
    "celeba-gender": Declared(size=(64, 64), channels=3, classes=("female", "male")),
    "covidx": Declared(size=(64, 64), classes=("negative", "positive")),
    "imagenet": Declared(size=(224, 224), channels=3),
}

#: Channels and classes of the MedMNIST sets, as published with version 2.
_MEDMNIST = {
    "bloodmnist": (3, 8),
    "breastmnist": (1, 2),
    "dermamnist": (3, 7),
    "octmnist": (1, 4),
    "organamnist": (1, 11),
    "organcmnist": (1, 11),
    "organsmnist": (1, 11),
    "pathmnist": (3, 9),
    "pneumoniamnist": (1, 2),
    "retinamnist": (3, 5),
    "tissuemnist": (1, 8),
}
_MEDMNIST_NAME = re.compile(rf"medmnist:({'|'.join(MEDMNIST_NAMES)})(?:_(64|128|224))?")


def settled(name: str, declared: Declared) -> Declared:
    """What somebody declared of a data set, and what its name fixes.

    Args:
        name: the data set's, as :func:`dpsd.datasets.load_dataset` takes it.
        declared: what the user says.

    Raises:
        ConfigError: the user contradicts what the name fixes.

    >>> settled("mnist", Declared(size=(16, 16)))
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: data set 'mnist' has a fixed size of 28x28 pixels, not 16x16
    """
    if name in LOOSE:
        return declared.over(LOOSE[name])
    fixed = ARRAYS.get(name, Declared())
    if found := _MEDMNIST_NAME.fullmatch(name):
        channels, classes = _MEDMNIST[found[1]]
        side = int(found[2] or 28)
        names = tuple(map(str, range(classes)))
        fixed = Declared(size=(side, side), channels=channels, classes=names)
    if wrong := declared.contradiction(fixed):
        raise ConfigError(f"data set {name!r} has {wrong}")
    return declared.over(fixed)


def settled_in_full(name: str, declared: Declared) -> Declared:
    """The same, where the data may decide nothing, as every record of it would have a say.

    Raises:
        ConfigError: something is neither declared nor fixed; names it and shows how to declare it.

    >>> settled_in_full("folder:pets", Declared(size=(64, 64)))
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: data set 'folder:pets': --channels and --classes are not declared...
    """
    whole = settled(name, declared)
    example = {"size": "--size 64", "channels": "--channels 1", "classes": "--classes cat,dog"}
    if missing := [at for at in example if getattr(whole, at) is None]:
        flags = [f"--{at}" for at in missing]
        named = " and ".join([", ".join(flags[:-1])] * (len(flags) > 1) + flags[-1:])
        raise ConfigError(
            f"data set {name!r}: {named} {'is' if len(flags) == 1 else 'are'} not declared. Read "
            "off the data, one record could change it for all teachers, and no epsilon would "
            f"protect that record; give, for example, {' '.join(example[at] for at in missing)}"
        )
    return whole
