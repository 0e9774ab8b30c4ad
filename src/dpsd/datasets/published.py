"""The shape and classes that a data set's name fixes, as its publishers state them.

No data is read for this, so this module imports nothing that is slow to import.

>>> settled("medmnist:bloodmnist", Declared()).channels
3
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dpsd.datasets.declared import Declared
from dpsd.errors import ConfigError, Setting, UnknownNameError
from dpsd.images.value_range import stated_range

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

CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 - a list literal takes a hundred lines
)

TINY_IMAGENET_10_CLASSES = (
    "african_elephant",
    "golden_retriever",
    "goldfish",
    "king_penguin",
    "monarch",
    "persian_cat",
    "pizza",
    "school_bus",
    "seashore",
    "sports_car",
)

#: Data sets whose files hold arrays, or images of one fixed shape: what their publishers state is
#: checked and cannot be changed.
ARRAYS = {
    "digits": Declared(size=(8, 8), channels=1, classes=DIGITS),
    "mnist": Declared(size=(28, 28), channels=1, classes=DIGITS),
    "fashion-mnist": Declared(size=(28, 28), channels=1, classes=FASHION),
    "cifar10": Declared(size=(32, 32), channels=3, classes=CIFAR10_CLASSES),
    "cifar10-jpeg": Declared(size=(32, 32), channels=3, classes=CIFAR10_CLASSES),
    "cifar100": Declared(size=(32, 32), channels=3, classes=CIFAR100_CLASSES),
    "cifar100-jpeg": Declared(size=(32, 32), channels=3, classes=CIFAR100_CLASSES),
    "covid-xray": Declared(size=(64, 64), channels=1, classes=("covid", "normal", "pneumonia")),
    "tiny-imagenet-10": Declared(size=(64, 64), channels=3, classes=TINY_IMAGENET_10_CLASSES),
}

#: The numbers of training and of test records of these data sets.
RECORDS = {
    "digits": (1_085, 712),
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar10-jpeg": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "cifar100-jpeg": (50_000, 10_000),
    "covid-xray": (903, 221),
    "tiny-imagenet-10": (5_000, 500),
}

_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_COVIDX = "https://github.com/lindawangg/COVID-Net"
_CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_MEDMNIST_HOME = "https://medmnist.com"

#: The web pages that say where to get data sets.
HOMES = {
    "mnist": "https://github.com/cvdfoundation/mnist",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist",
    "cifar10": f"{_CIFAR} (binary version)",
    "cifar10-jpeg": _CIFAR,
    "cifar100": f"{_CIFAR} (binary version)",
    "cifar100-jpeg": _CIFAR,
    "celeba-hair": _CELEBA,
    "celeba-gender": _CELEBA,
    "covidx": _COVIDX,
    "covid-xray": f"{_COVIDX} (grey images of 64x64, in MedMNIST's layout)",
    "imagenet": "https://image-net.org/download.php",
    "tiny-imagenet-10": "https://cs231n.stanford.edu/tiny-imagenet-200.zip (ten of its classes)",
}

#: The files or folders of data sets in the folder of data sets, where it is not one of their name.
PLACES = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "cifar10-jpeg": ("cifar-10-images.tar.xz",),
    "cifar100": ("cifar-100-binary", "cifar-100-binary.tar.gz"),
    "cifar100-jpeg": ("cifar-100-images.tar.xz",),
    "covid-xray": ("covid-xray/covid-xray-64.npz",),
    "tiny-imagenet-10": ("tiny-imagenet-10.tar.xz",),
    "celeba-hair": ("celeba-hair", "celeba"),
    "celeba-gender": ("celeba-gender", "celeba"),
}

#: Data sets of loose images, with what they are converted to unless something else is declared. The
#: X-rays of COVIDx are grey in some releases and coloured in others; ImageNet's classes are a
#: user's choice.
LOOSE = {
    "celeba-hair": Declared(size=(64, 64), channels=3, classes=("black", "blond", "brown")),
    "celeba-gender": Declared(size=(64, 64), channels=3, classes=("female", "male")),
    "covidx": Declared(size=(64, 64), classes=("negative", "positive")),
    "imagenet": Declared(size=(224, 224), channels=3),
}

#: Data sets, besides those of MedMNIST, whose images show persons or scans of them.
_OF_PERSONS = frozenset(
    (
        "celeba-gender",
        "celeba-hair",
        "cifar100",
        "cifar100-jpeg",
        "covid-xray",
        "covidx",
        "imagenet",
    )
)

#: The channels and numbers of classes of the MedMNIST sets with two-dimensional images and one
#: label per image, as published with version 2; ``chestmnist`` has several labels.
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
MEDMNIST_NAMES = tuple(_MEDMNIST)
_MEDMNIST_NAME = re.compile(rf"medmnist:({'|'.join(MEDMNIST_NAMES)})(?:_(64|128|224))?")


def dataset_names() -> list[str]:
    """Return the names that :func:`dpsd.datasets.load_dataset` knows, except paths.

    >>> dataset_names()[:3]
    ['celeba-gender', 'celeba-hair', 'cifar10']
    """
    return sorted([*ARRAYS, *LOOSE, *(f"medmnist:{name}" for name in MEDMNIST_NAMES)])


def check_dataset(name: str) -> None:
    """Refuse a name that is neither that of a data set nor a path to one.

    Raises:
        UnknownNameError: there is no data set of that name.

    >>> check_dataset("minst")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown data set 'minst': did you mean 'mnist'? Known: ...
    """
    if name not in ARRAYS and not is_folder(name) and npz_path(name, Path()) is None:
        raise UnknownNameError("data set", name, [*dataset_names(), "folder:PATH", "PATH.npz"])


def shows_persons(name: str) -> bool:
    """Return whether a published data set shows persons, or scans of them.

    Of a user's own data nothing is known, so the answer is no.

    >>> shows_persons("medmnist:bloodmnist"), shows_persons("celeba-hair"), shows_persons("mnist")
    (True, True, False)
    """
    return name in _OF_PERSONS or name.startswith("medmnist:")


def is_folder(name: str) -> bool:
    """Return whether a data set consists of loose images.

    >>> is_folder("folder:pets"), is_folder("covidx"), is_folder("mnist")
    (True, True, False)
    """
    kind, _, rest = name.partition(":")
    return name in LOOSE or (kind == "folder" and bool(rest))


def npz_path(name: str, root: Path) -> Path | None:
    """Return the ``.npz`` file that a data set is read from, if it is in such a file.

    >>> print(npz_path("medmnist:bloodmnist", Path("data")))
    data/medmnist/bloodmnist.npz
    """
    kind, _, rest = name.partition(":")
    if name == "covid-xray":
        return root / PLACES[name][0]
    if kind == "medmnist" and re.fullmatch(r"\w+", rest):  # a name, not a path to another folder
        return root / "medmnist" / f"{rest}.npz"
    return Path(name).expanduser() if name.endswith(".npz") else None


def home_of(name: str) -> str | None:
    """Return the web page that says where to get a data set; ``None`` for a user's own data.

    >>> home_of("medmnist:bloodmnist"), home_of("folder:pets")
    ('https://medmnist.com', None)
    """
    return _MEDMNIST_HOME if name.startswith("medmnist:") else HOMES.get(name)


def places_of(name: str, root: Path) -> list[Path]:
    """Return the paths of a published data set, of which one is enough.

    >>> [path.as_posix() for path in places_of("cifar100", Path("data"))]
    ['data/cifar-100-binary', 'data/cifar-100-binary.tar.gz']
    """
    npz = npz_path(name, root)
    return [npz] if npz else [root / place for place in PLACES.get(name, (name,))]


def settled(name: str, declared: Declared) -> Declared:
    """Return a user's declaration of a data set, completed by what the data set's name fixes.

    Args:
        name: the name of the data set, as :func:`dpsd.datasets.load_dataset` takes it.
        declared: the user's declaration.

    Raises:
        ConfigError: the user contradicts what the name fixes.

    >>> settled("mnist", Declared(size=(16, 16)))
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: data set 'mnist' has a fixed size of 28x28 pixels, not 16x16
    """
    if declared.value_range is not None and not is_folder(name):
        raise ConfigError(
            *(
                Setting("value_range"),
                f" is {stated_range(declared.value_range)}, but it is about ",
            ),
            f"loose images, and data set {name!r} holds bytes from 0 to 255: leave it out",
        )
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
    """Return a complete declaration, so that no record of the data has an influence on it.

    Raises:
        ConfigError: something is neither declared nor fixed; the message says how to declare it.

    >>> settled_in_full("folder:pets", Declared(size=(64, 64)))
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: data set 'folder:pets': channels and classes are not declared. ...
    """
    whole = settled(name, declared)
    examples = {"size": "64", "channels": "1", "classes": "cat,dog"}
    if missing := [Setting(name) for name in examples if getattr(whole, name) is None]:
        raise ConfigError(
            *(f"data set {name!r}: ", *_listed([[setting] for setting in missing])),
            f" {'is' if len(missing) == 1 else 'are'} not declared. Read off the data, one record "
            "could change it for all teachers, and no epsilon would protect that record; give, for "
            "example, ",
            *_listed([[setting, f" {examples[setting]}"] for setting in missing]),
        )
    return whole


def _listed(items: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the parts of a message that lists some things, as in "one, two and three"."""
    for place, item in enumerate(items):
        if place:
            yield " and " if place == len(items) - 1 else ", "
        yield from item
