"""The names of public sources of queries; see :mod:`dpsd.synthesis.sources`.

>>> print(*source_names())
noise strokes silhouettes glyphs leaves fractals crops mixed diffusion folder:PATH none
"""

from __future__ import annotations

from collections.abc import Sequence

from dpsd.errors import ConfigError, Setting, UnknownNameError

#: The sources that need only their name.
DRAWN = ("noise", "strokes", "silhouettes", "glyphs", "leaves", "fractals", "crops")

#: The source that blends the images of the others that are named.
MIXED = "mixed"

#: The source whose images are drawn by a denoiser that was trained on the images of the others.
DIFFUSION = "diffusion"

#: The sources of a run for which none are chosen. One that suits a domain may say nothing of
#: another, so all of them are used.
DEFAULT = (*DRAWN, MIXED)

#: The prefix of ``folder:PATH``, a folder of public images.
FOLDER = "folder"

#: The name for no source: the generator makes all queries, from the first on.
NO_SOURCE = "none"


def source_names() -> list[str]:
    """Return the names of sources in the order in which they are shown."""
    return [*DRAWN, MIXED, DIFFUSION, f"{FOLDER}:PATH", NO_SOURCE]


def is_folder_source(name: str) -> bool:
    """Return whether a source is a folder of images.

    >>> is_folder_source("folder:public-images"), is_folder_source("noise")
    (True, False)
    """
    return name.partition(":")[0] == FOLDER


def check_sources(names: Sequence[str]) -> None:
    """Refuse names from which no mixture of sources can be made.

    Raises:
        UnknownNameError: there is no such source.
        ConfigError: ``none`` is given among others, ``mixed`` without another, or a folder has no
            path.

    >>> check_sources(["noise", "folder:public-images"])
    >>> check_sources(["noise", "none"])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: sources: 'none' must stand alone, not in noise,none
    """
    if NO_SOURCE in names and len(names) > 1:
        raise ConfigError(
            Setting("sources"), f": {NO_SOURCE!r} must stand alone, not in {','.join(names)}"
        )
    if MIXED in names and set(names) <= {MIXED, DIFFUSION}:
        raise ConfigError(
            Setting("sources"),
            f": {MIXED!r} blends the images of other sources; name another, as in noise,{MIXED}",
        )
    for name in names:
        kind, _, path = name.partition(":")
        if kind == FOLDER and not path:
            raise ConfigError(f"source {name!r}: say which folder, as in folder:public-images")
        if kind != FOLDER and name not in (*DRAWN, MIXED, DIFFUSION, NO_SOURCE):
            raise UnknownNameError("source", name, source_names())
