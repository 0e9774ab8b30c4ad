"""CelebA by gender or by colour of hair, in the layout in which its publishers give it out.

A folder holds ``img_align_celeba.zip``, whose images are read without unpacking the archive;
``list_attr_celeba.txt``, with 1 or -1 for every image and attribute; and
``list_eval_partition.txt``, with 0 (train), 1 (validation) or 2 (test) for every image. A face has
a colour of hair if exactly one of black, blond and brown is 1; other faces are left out.

>>> sorted(CLASSES)
['celeba-gender', 'celeba-hair']
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from dpsd.datasets.archives import DAMAGED
from dpsd.datasets.declared import Declared
from dpsd.datasets.folder import allocated, fitted, refuse_colours
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import missing
from dpsd.datasets.published import LOOSE, home_of, places_of
from dpsd.errors import ConfigError, DataError, Setting, reason
from dpsd.images.reading import decode_picture

ARCHIVE, ATTRIBUTES, PARTITION = (
    "img_align_celeba.zip",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)

#: The classes of each data set, with the attribute and its value that make a face one of the class.
CLASSES = {
    "celeba-gender": {"female": ("Male", "-1"), "male": ("Male", "1")},
    "celeba-hair": {
        "black": ("Black_Hair", "1"),
        "blond": ("Blond_Hair", "1"),
        "brown": ("Brown_Hair", "1"),
    },
}

LARGEST_LIST = 256 * 2**20
"""The most bytes that a list may have; CelebA's longest has 27 million."""

LARGEST_IMAGE = 16 * 2**20
"""The most bytes that an image may unpack to, and the most pixels that it may have."""

_PARTITIONS: dict[str, Split] = {"0": "train", "1": "validation", "2": "test"}


def read_celeba(
    name: str, split: Split, root: Path, *, declared: Declared | None = None
) -> LabelledImages:
    """Read one split of ``celeba-gender`` or ``celeba-hair`` from ``root/celeba``.

    Args:
        name: the name of the data set.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        root: the folder of data sets.
        declared: the size and channels, by default 64x64 in colour, and the order of the classes.

    Raises:
        ConfigError: the declaration has other classes, or a range of values.
        DataError: a file is missing or damaged, or an image is too large.
    """
    declared = (declared or Declared()).over(LOOSE[name])
    assert declared.size is not None, name
    assert declared.channels is not None, name
    class_names = declared.classes or ()
    if set(class_names) != set(CLASSES[name]):
        raise ConfigError(
            *(
                Setting("classes"),
                f" are {', '.join(class_names)}, but those of data set {name!r} ",
            ),
            f"are {', '.join(CLASSES[name])}: name these, in any order",
        )
    if declared.value_range is not None:
        raise ConfigError(
            *(Setting("value_range"), f" is declared, but the images of {name!r} have eight bits "),
            "a channel: leave it out",
        )
    folder = root / "celeba"
    for file in (ARCHIVE, ATTRIBUTES, PARTITION):
        if not (folder / file).is_file():
            prepared, _ = places_of(name, root)
            raise missing(name, [prepared / "train/<class>", folder / file], home=home_of(name))
    chosen = _partition(folder / PARTITION)
    found = [
        (file, kind)
        for file, kind in _labelled(name, folder / ATTRIBUTES)
        if chosen.get(file) == split
    ]
    if not found:
        raise DataError(f"{folder}: {PARTITION} lists no {split} image of data set {name!r}")
    shape = declared.channels, *declared.size
    images = allocated(folder / ARCHIVE, len(found), shape)
    with _opened(folder / ARCHIVE) as archive:
        for row, (file, _) in enumerate(found):
            where = f"{folder / ARCHIVE}: {file}"
            image = _picture(archive, file, where)
            if declared.channels == 1:
                refuse_colours(image, where)
            images[row] = fitted(image, shape)
    return LabelledImages(
        images=images,
        labels=torch.tensor([class_names.index(kind) for _, kind in found]),
        class_names=class_names,
        name=name,
        split=split,
        names=tuple(f"{kind}/{file}" for file, kind in found),
    )


def has_validation(root: Path) -> bool:
    """Return whether the partition under ``root/celeba`` lists images for validation."""
    path = root / "celeba" / PARTITION
    return path.is_file() and "validation" in _partition(path).values()


def _partition(path: Path) -> dict[str, Split]:
    """Return the split of each image."""
    found: dict[str, Split] = {}
    for number, words in _lines(path):
        if len(words) != 2 or words[1] not in _PARTITIONS:
            raise DataError(f"{path}, line {number}: an image and 0, 1 or 2 are needed")
        found[words[0]] = _PARTITIONS[words[1]]
    return found


def _labelled(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield each image that belongs to exactly one class, with that class."""
    lines = _lines(path)
    _, columns = next(lines, (0, []))
    if len(columns) == 1 and columns[0].isdigit():  # the number of images, in the publishers' file
        _, columns = next(lines, (0, []))
    kinds = CLASSES[name]
    if lacking := {column for column, _ in kinds.values()} - set(columns):
        raise DataError(f"{path} has no column {', '.join(sorted(lacking))} in its header")
    # The header has no word for the first column, which names the image.
    places = {kind: (1 + columns.index(column), one) for kind, (column, one) in kinds.items()}
    for number, words in lines:
        if len(words) != 1 + len(columns) or not set(words[1:]) <= {"1", "-1"}:
            raise DataError(
                f"{path}, line {number}: an image and 1 or -1 for each of {len(columns)} "
                "attributes are needed"
            )
        fitting = [kind for kind, (place, one) in places.items() if words[place] == one]
        if len(fitting) == 1:
            yield words[0], fitting[0]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of each line of a list that is not blank."""
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise DataError(f"{path} has more than {LARGEST_LIST:,} bytes; refused")
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if words := line.split():
                    yield number, words
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {reason(error)}") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, *DAMAGED) as error:
        raise DataError(f"{path} is damaged or not a zip file: {error}") from None


def _picture(archive: zipfile.ZipFile, file: str, where: str) -> Image.Image:
    """Return one image of the archive; sizes are checked before anything is unpacked or decoded."""
    try:
        info = archive.getinfo(f"img_align_celeba/{file}")
    except KeyError:
        raise DataError(f"{where} is listed, but is not in the archive") from None
    if info.file_size > LARGEST_IMAGE:
        raise DataError(f"{where} would unpack to {info.file_size:,} bytes; refused")
    try:
        content = archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, *DAMAGED) as error:
        raise DataError(f"{where} is damaged or encrypted: {error}") from None
    return decode_picture(content, where, most_pixels=LARGEST_IMAGE)
