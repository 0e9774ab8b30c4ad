"""Downloading MNIST and Fashion-MNIST, verified, up to a size limit, and never half-written.

>>> fetchable_names()
['fashion-mnist', 'mnist']
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import os
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpsd.datasets.archives import DAMAGED, open_compressed
from dpsd.datasets.published import dataset_names, home_of, places_of
from dpsd.errors import (
    ConfigError,
    DataError,
    Setting,
    UnknownNameError,
    is_full,
    reason,
    unwritable,
)

Progress = Callable[[str, int, int], None]
"""A function of the file's name, the bytes so far, and the bytes in all (0 if unknown)."""

LARGEST_DOWNLOAD = 64 * 2**20
LARGEST_UNPACKED = 128 * 2**20
"""Limits in bytes, about twice the largest file, so that a wrong server cannot fill the disk."""

_CHUNK = 2**16
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a data set, and the checksums of its files.

    Args:
        mirrors: the base URLs, which are tried in order.
        checksums: the MD5 of each file. It guards only against damage, but publishers give no
            other.
        of_unpacked: whether the checksums are those of the unpacked content.
    """

    mirrors: tuple[str, ...]
    checksums: dict[str, str]
    of_unpacked: bool


SOURCES = {
    "mnist": Source(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        checksums={
            "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
        },
        of_unpacked=True,
    ),
    "fashion-mnist": Source(
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        checksums={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        of_unpacked=False,
    ),
}


def fetchable_names() -> list[str]:
    """Return the names of the data sets that :func:`fetch` can download."""
    return sorted(SOURCES)


def fetch(
    name: str, root: Path, *, base_url: str | None = None, progress: Progress | None = None
) -> list[Path]:
    """Download a data set into ``root/name``; existing files with right checksums are kept.

    A file appears under its name only when it is complete and its checksum is right; only then is
    an existing wrong file replaced.

    Args:
        name: one of :func:`fetchable_names`.
        root: the folder of data sets (:func:`dpsd.datasets.data_root`).
        base_url: the URL of a mirror to use instead of the known ones, ``http`` or ``https``.
        progress: a function to call with the progress of each download.

    Returns:
        The paths of the files, in the order of the source's list.

    Raises:
        UnknownNameError: there is no such data set.
        ConfigError: dpsd does not fetch this data set, or ``base_url`` is not a web address.
        DataError: no mirror returned the right file, or it cannot be written.
    """
    if name not in SOURCES:
        raise _not_fetched(name, root)
    if base_url is not None and urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
        raise ConfigError(
            Setting("base_url"), f" is {base_url!r}; it must start with http:// or https://"
        )
    source = SOURCES[name]
    mirrors = source.mirrors if base_url is None else (base_url,)
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"cannot create {folder}", mend="give another folder", kind=DataError
        ) from None
    return [_fetch_file(folder / file, mirrors, source, progress) for file in source.checksums]


def _not_fetched(name: str, root: Path) -> ConfigError:
    """Return the error for a data set that dpsd does not fetch, which says where to get it."""
    if name not in dataset_names():
        return UnknownNameError("data set to fetch", name, SOURCES)
    home = home_of(name)
    if home is None:
        return ConfigError(
            f"data set {name!r} comes with scikit-learn, so there is no need to fetch it"
        )
    places = " or ".join(map(str, places_of(name, root)))
    return ConfigError(
        f"dpsd does not fetch data set {name!r}: get it from {home} and put it there: {places}"
    )


def _fetch_file(
    path: Path, mirrors: tuple[str, ...], source: Source, progress: Progress | None
) -> Path:
    if path.is_file() and _problem(path, source, path.name) is None:
        return path
    # Beside its destination, so that the renaming is atomic, and with the suffix of its format.
    part = path.with_name(f".{os.getpid()}.part.{path.name}")
    report = None if progress is None else functools.partial(progress, path.name)
    failures = []
    try:
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{path.name}"
            problem = _download(url, part, report) or _problem(part, source, path.name)
            if problem is None:
                part.replace(path)
                return path
            failures.append(f"{url}: {problem}")
    except OSError as error:
        raise unwritable(
            error, f"cannot write {path}", mend="give another folder", kind=DataError
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    files = ", ".join(source.checksums)
    raise DataError(
        f"cannot fetch {path.name}: {'; '.join(failures)}. Try again online, give another ",
        *("server with ", Setting("base_url"), f", or copy {files} into {path.parent}"),
    )


def _download(url: str, part: Path, report: Callable[[int, int], None] | None) -> str | None:
    """Download ``url`` to ``part``, and return what went wrong, if anything."""
    with part.open("wb") as file:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                total, done = response.length or 0, 0
                while chunk := response.read(_CHUNK):
                    done += len(chunk)
                    if done > LARGEST_DOWNLOAD:
                        return f"more than {LARGEST_DOWNLOAD:,} bytes"
                    file.write(chunk)
                    if report is not None:
                        report(done, total)
        except OSError as error:  # every error of urllib is one
            if is_full(error):  # another mirror would not help
                raise
            return reason(error)
        except http.client.HTTPException as error:
            return f"{type(error).__name__}: {error}"
    return None


def _problem(path: Path, source: Source, name: str) -> str | None:
    """Return what is wrong with a file, if anything."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with open_compressed(path) if source.of_unpacked else path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > LARGEST_UNPACKED:
                    return f"unpacks to more than {LARGEST_UNPACKED:,} bytes"
                digest.update(chunk)
    except DAMAGED as error:
        return f"damaged or truncated: {error}"
    expected = source.checksums[name]
    if digest.hexdigest() != expected:
        return f"MD5 {digest.hexdigest()}, expected {expected}"
    return None
