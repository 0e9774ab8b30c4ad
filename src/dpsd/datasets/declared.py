"""Declaring a data set's images and classes before any record is read.

All teachers of an ensemble share the shape of their images and the number of their classes. If the
data decided either, a single record could, and it would reach every teacher. So both are declared,
or they follow from the data set's name (:mod:`dpsd.datasets.published`).

>>> Declared.parse(size="64", channels=1, classes="cat,dog")
Declared(size=(64, 64), channels=1, classes=('cat', 'dog'), value_range=None)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpsd.errors import ConfigError, DataError, Setting, reason
from dpsd.images.value_range import ValueRange, checked_range, parsed_range

if TYPE_CHECKING:
    from dpsd.datasets.labelled import LabelledImages

MOST_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The shape and the classes of a data set; ``None`` where the data may decide.

    How stored values become grey is declared as well, for images whose files do not say it.

    Args:
        size: the height and width in pixels, at least 1 each.
        channels: 1 for grey images, 3 for colour.
        classes: the names of at least two classes, in the order of the labels.
        value_range: the stored values of loose grey images that are black and white, the smaller
            first; see :func:`dpsd.images.reading.read_picture`.

    Raises:
        ConfigError: no data set can have such a value.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(
                Setting("size"), f" is {_sides(self.size)}; it must be at least 1 pixel"
            )
        if self.channels not in (None, 1, 3):
            raise ConfigError(
                Setting("channels"), f" is {self.channels}; it must be 1 (grey) or 3 (colour)"
            )
        if self.value_range is not None:
            checked_range(self.value_range)
        if self.classes is None:
            return
        if not 2 <= len(self.classes) <= MOST_CLASSES:
            raise ConfigError(
                Setting("classes"),
                f" are {len(self.classes):,}; there must be 2 to {MOST_CLASSES:,}: give their "
                "number, as in 10, or their names, as in cat,dog",
            )
        if "" in self.classes or len(set(self.classes)) < len(self.classes):
            odd = next(name for name in self.classes if not name or self.classes.count(name) > 1)
            raise ConfigError(f"class {odd!r} is empty or named twice; name every class once")

    @classmethod
    def parse(
        cls,
        *,
        size: str | None = None,
        channels: int | None = None,
        classes: str | None = None,
        value_range: str | None = None,
    ) -> Declared:
        """Parse what a user wrote.

        Args:
            size: the pixels per side, as in ``"64"``, or height and width, as in ``"48x64"``.
            channels: 1 or 3.
            classes: a number such as ``"10"``, which names the classes ``0`` to ``9``; names such
                as ``"cat,dog"``; or ``"@FILE"``, a text file with one name per line.
            value_range: the values that are black and white, as in ``"0,4095"``.

        Raises:
            ConfigError: a value cannot be parsed; the message says what can.
        """
        sides = None
        if size is not None:
            found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", size.strip())
            if found is None:
                raise ConfigError(
                    Setting("size"),
                    f" is {size!r}; give pixels per side, as in 64, or height and width, as in "
                    "48x64",
                )
            sides = int(found[1]), int(found[2] or found[1])
        return cls(
            size=sides,
            channels=channels,
            classes=None if classes is None else _class_names(classes.strip()),
            value_range=None if value_range is None else parsed_range(value_range),
        )

    def over(self, other: Declared) -> Declared:
        """Return this declaration, completed by another where this one leaves values open.

        >>> Declared(channels=1).over(Declared(size=(8, 8), channels=3))
        Declared(size=(8, 8), channels=1, classes=None, value_range=None)
        """
        return Declared(
            size=self.size or other.size,
            channels=self.channels or other.channels,
            classes=self.classes or other.classes,
            value_range=self.value_range or other.value_range,
        )

    def contradiction(self, other: Declared) -> str | None:
        """Say in a few words how another declaration contradicts this one; ``None`` if it does not.

        Classes may have other names, but there must not be more or fewer of them.

        >>> Declared(channels=3).contradiction(Declared(size=(8, 8), channels=1))
        '1 channel, not 3'
        """
        if self.size and other.size and self.size != other.size:
            return f"a fixed size of {_sides(other.size)} pixels, not {_sides(self.size)}"
        if self.channels and other.channels and self.channels != other.channels:
            return f"{other.channels} channel{'s' * (other.channels > 1)}, not {self.channels}"
        if self.classes and other.classes and len(self.classes) != len(other.classes):
            return f"{len(other.classes)} classes, not {len(self.classes)}"
        return None

    def fit(self, data: LabelledImages) -> LabelledImages:
        """Return the data with the declared names of its classes, if it is what was declared.

        Raises:
            DataError: the data is not what was declared.
        """
        channels, *sides = data.input_shape
        found = Declared(size=(sides[0], sides[1]), channels=channels)
        if wrong := self.contradiction(found):
            raise DataError(f"data set {data.name!r} ({data.split}) has {wrong}, as was declared")
        return data if self.classes is None else replace(data, class_names=self.classes)


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _class_names(text: str) -> tuple[str, ...]:
    if text.isascii() and text.isdigit():
        return tuple(map(str, range(min(int(text[:9]), MOST_CLASSES + 1))))
    if not text.startswith("@"):
        return tuple(name.strip() for name in text.split(","))
    path = Path(text[1:]).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            Setting("classes"),
            f": {path} cannot be read ({reason(error)}); it must be text, with one class per line",
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
