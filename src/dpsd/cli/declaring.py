"""The flags that declare the images and classes of a data set."""

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


def declared_by(
    size: str | None, channels: int | None, classes: str | None, value_range: str | None
) -> Declared:
    """Return the declaration that the four flags make together."""
    return Declared.parse(size=size, channels=channels, classes=classes, value_range=value_range)
