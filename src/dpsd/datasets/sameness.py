"""Whether two names mean the same data: by where the data lie, however their paths are written.

A path may be relative, hold ``..`` or lead through links, and a data set of a known name may be
named by its path as well. So names are compared by the files that they lead to.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> for name in ("scans/train/ill", "scans/test/ill"):
...     (folder / name).mkdir(parents=True)
>>> origin = Origin.of(f"folder:{folder}/scans")
>>> origin.is_named(f"folder:{folder}/scans/../scans/"), origin.is_named("digits")
(True, False)
>>> [origin.is_shown_by(f"{folder}/{name}") for name in ("scans/train/ill", "scans/test", "")]
[True, False, True]
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dpsd.datasets.location import data_root
from dpsd.datasets.public_images import is_dataset, path_of
from dpsd.datasets.published import places_of


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A data set that something was made of, wherever it may lie.

    Args:
        name: the name by which it was given.
        places: the paths at which it may lie, absolute and without links, at least one.
    """

    name: str
    places: tuple[Path, ...]

    @classmethod
    def of(cls, name: str, *, place: str = "", bases: Sequence[Path] = ()) -> Origin:
        """Return the data set of a name.

        Args:
            name: the name, as :func:`dpsd.datasets.load_dataset` takes it.
            place: where it lay, as :func:`place_of` returned it; empty if that is not known.
            bases: folders from which a relative path may have counted, where the place is not
                known or the data are no longer there.
        """
        if place and _status(Path(place)):
            return cls(name=name, places=(Path(place),))
        places = [Path(place)] if place else []
        places.append(place_of(name))
        path = path_of(name, absolute=False)
        if not is_dataset(name) and not path.is_absolute():
            places += [_resolved(base / path) for base in bases if _status(base / path)]
        return cls(name=name, places=tuple(dict.fromkeys(places)))

    def __str__(self) -> str:
        """The name; with the place, if it is a path, which may mean other data elsewhere."""
        return self.name if is_dataset(self.name) else f"{self.name} at {self.places[0]}"

    def is_named(self, name: str, *, root: str | Path | None = None) -> bool:
        """Return whether a name means this data set.

        Args:
            name: the name, as :func:`dpsd.datasets.load_dataset` takes it.
            root: the folder of data sets; by default :func:`~dpsd.datasets.data_root`.
        """
        if is_dataset(name) and is_dataset(self.name):
            return name == self.name  # two may share their images, and differ in their classes
        place = place_of(name, root=root)
        return any(_is_same(place, own) for own in self.places)

    def is_shown_by(self, spec: str) -> bool:
        """Return whether public images are, hold or are among its training images.

        A folder is compared with the training images alone, so that its test images may be shown.
        A copy of a file is known while the original is there; that of a folder is not.

        Args:
            spec: the public images, as :func:`~dpsd.datasets.public_images.read_public` takes them.
        """
        if is_dataset(spec) and spec == self.name:
            return True
        shown = _training_part(place_of(spec)) if is_dataset(spec) else _resolved(path_of(spec))
        return any(_meet(shown, _training_part(place)) for place in self.places)


def place_of(name: str, *, root: str | Path | None = None) -> Path:
    """Return where a data set lies, or would lie: a path that is absolute and without links.

    Args:
        name: the name of a data set, ``folder:PATH`` or a path.
        root: the folder of data sets; by default :func:`~dpsd.datasets.data_root`.

    >>> place_of("medmnist:bloodmnist", root="/data") == place_of("/data/medmnist/bloodmnist.npz")
    True
    """
    if not is_dataset(name):
        return _resolved(path_of(name))
    places = places_of(name, data_root() if root is None else Path(root))
    return _resolved(next((place for place in places if _status(place)), places[0]))


def _resolved(path: Path) -> Path:
    # Unlike Path.resolve, this raises nothing where links lead in a circle.
    return Path(os.path.realpath(path))


def _status(place: Path) -> os.stat_result | None:
    """Return what the operating system says of a place; ``None`` if it is not within reach."""
    try:
        return place.stat()
    except OSError:  # Path.exists raises it where a folder may not be entered
        return None


def _training_part(place: Path) -> Path:
    """Return where the training images of a data set lie: a file, or a folder."""
    train = place / "train"
    return _resolved(train) if _status(train) else place


def _is_same(place: Path, other: Path) -> bool:
    one, two = _status(place), _status(other)
    if one is None or two is None:
        return place == other
    return os.path.samestat(one, two) or _is_copy(place, other)


def _is_copy(place: Path, other: Path) -> bool:
    """Return whether two files are equal; their content is read only if their sizes are."""
    try:
        return filecmp.cmp(place, other, shallow=False)
    except OSError:  # one of them is a folder, or not within reach
        return False


def _meet(shown: Path, train: Path) -> bool:
    """Return whether one place is or holds the other, or links make them share a file."""
    if shown.is_relative_to(train) or train.is_relative_to(shown) or _is_copy(shown, train):
        return True
    return not _files(shown).isdisjoint(_files(train))


def _files(place: Path) -> set[tuple[int, int]]:
    """Return what the operating system knows the files at a place by, through all links."""
    found, seen, waiting = set(), set(), [place]
    while waiting:
        here = waiting.pop()
        if (status := _status(here)) is None:
            continue
        known = (status.st_dev, status.st_ino)
        if not stat.S_ISDIR(status.st_mode):
            found.add(known)
        elif known not in seen:  # links may lead in a circle
            seen.add(known)
            with suppress(PermissionError):  # what cannot be listed cannot be shown
                waiting += here.iterdir()
    return found
