"""Where data sets live on this machine, and what to say when one does not.

>>> from unittest import mock
>>> with mock.patch.dict(os.environ, DPSD_DATA="/data"):
...     print(data_root())
/data
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_cache_path

from dpsd.datasets.fetch import fetchable_names
from dpsd.errors import MissingDataError


def data_root() -> Path:
    """The folder of data sets: ``DPSD_DATA``, else ``data`` in dpsd's part of the user's cache.

    On Linux that is ``$XDG_CACHE_HOME/dpsd/data``, by default ``~/.cache/dpsd/data``. The folder
    need not exist.
    """
    if chosen := os.environ.get("DPSD_DATA"):
        return Path(chosen).expanduser()
    return user_cache_path("dpsd", appauthor=False) / "data"


def missing(name: str, paths: Iterable[Path], *, home: str | None) -> MissingDataError:
    """The error for data that is not there: where to get it and where to put it.

    ``home`` is ``None`` for the user's own files, which dpsd cannot tell where to get.

    >>> print(missing("tiny", [Path("/data/tiny")], home="https://tiny.example"))
    data set 'tiny' is not there: no /data/tiny. Get it from https://tiny.example and put it \
there, or set DPSD_DATA to the folder that holds it
    """
    wanted = " or ".join(str(path) for path in paths)
    if home is None:
        return MissingDataError(f"data set {name!r} is not there: no {wanted}")
    hint = f", or run: dpsd data fetch {name}" if name in fetchable_names() else ""
    return MissingDataError(
        f"data set {name!r} is not there: no {wanted}. Get it from {home} and put it there, "
        f"or set DPSD_DATA to the folder that holds it{hint}"
    )
