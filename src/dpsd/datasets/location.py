"""The location of data sets on this machine, and the error for one that is missing.

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
    """Return the folder of data sets: ``DPSD_DATA``, else ``data`` in dpsd's folder of the cache.

    On Linux, the latter is ``$XDG_CACHE_HOME/dpsd/data``, by default ``~/.cache/dpsd/data``. The
    folder need not exist.
    """
    if chosen := os.environ.get("DPSD_DATA"):
        return Path(chosen).expanduser()
    return user_cache_path("dpsd", appauthor=False) / "data"


def missing(name: str, paths: Iterable[Path], *, home: str | None) -> MissingDataError:
    """Return the error for missing data, which says where to get it and where to put it.

    ``home`` is ``None`` for the user's own files, as dpsd does not know where to get those.

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
