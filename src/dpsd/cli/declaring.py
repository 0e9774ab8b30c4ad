"""The flags that declare the images and classes of a data set, and what is held out of it."""

from __future__ import annotations

from typing import Annotated

import typer

from dpsd.datasets import Declared

Size = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Height and width of images, as in 64 or 48x64. Loose images are resized and cropped "
        "to this size; arrays must have it.",
        show_default="as the data set's name says, else as the first training image",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=3,
        help="1 for grey images, 3 for colour.",
        show_default="as the data set's name says, else as the first training image",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="The classes in the order of their labels: names, as in cat,dog; a number, as in 10 "
        "for 0 to 9; or @FILE with one name per line. For loose images, the names are those of the "
        "folders.",
        show_default="as the data set's name says, else as found in the data",
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--value-range",
        metavar="LOW,HIGH",
        help="The stored values of loose grey images that are black and white, as in 0,4095 for "
        "scans of 12 bits in files of 16, or -1000,400 for DICOM files in Hounsfield units.",
        show_default="the whole range of 16 bits, and the window of a DICOM file",
    ),
]

Share = Annotated[
    float | None,
    typer.Option(
        "--validation-share",
        metavar="SHARE",
        min=0.0,
        max=0.9,
        help="The share of the training records, as in 0.1, that no teacher is trained on, so that "
        "settings can be chosen by the accuracy on them instead of that on the test split. A fixed "
        "rule chooses them by row, file name or person (--group-by), never by content. A data set "
        "with a validation split of its own keeps that, and nothing is held out.",
        show_default=False,
    ),
]
RULE_HELP = (
    "RULE says to whom each record belongs: csv:persons.csv:patient, the column `patient` of a "
    r"table whose column `file` (or first column) lists files; re:(patient\d+)_, a regular "
    "expression whose one group matches the person in a file's name; or array:train_patients, an "
    "array of the .npz file with an entry for each training record."
)


def declared_by(
    size: str | None, channels: int | None, classes: str | None, value_range: str | None
) -> Declared:
    """Return the declaration that the four flags make together."""
    return Declared.parse(size=size, channels=channels, classes=classes, value_range=value_range)
