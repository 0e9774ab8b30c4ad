"""The names of public sources of queries; see :mod:`dpsd.synthesis.sources`.

>>> print(*source_names())
noise strokes silhouettes glyphs leaves fractals crops networks mixed diffusion folder:PATH none
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpsd.errors import ConfigError, Setting, UnknownNameError

#: The sources whose images are drawn by hand-made rules.
_SHOWN = ("noise", "strokes", "silhouettes", "glyphs", "leaves", "fractals", "crops")

#: The source whose images come from generators with random weights, which learned nothing yet.
NETWORKS = "networks"

#: The sources that need only their name.
DRAWN = (*_SHOWN, NETWORKS)

#: The source that blends the images of the others that are named.
MIXED = "mixed"

#: The source whose images are drawn by a denoiser that was trained on the images of the others.
DIFFUSION = "diffusion"

#: The sources of a run for which none are chosen. One that suits a domain may say nothing of
#: another, so all of them are used.
DEFAULT = (*_SHOWN, MIXED)

#: The prefix of ``folder:PATH``, a folder of public images.
FOLDER = "folder"

#: The name of the source of the images that the setting of this name states.
PUBLIC = "public"

#: The plain sources that a run needs to leave each of them out once.
FEWEST_TO_LEAVE_OUT = 3

#: The name for no source: the generator makes all queries, from the first on.
NO_SOURCE = "none"


def source_names() -> list[str]:
    """Return the names of sources in the order in which they are shown."""
    return [*DRAWN, MIXED, DIFFUSION, f"{FOLDER}:PATH", NO_SOURCE]


def begun_with(names: tuple[str, ...], *, cold_start: bool) -> tuple[str, ...]:
    """Return the sources that a run asks about: for none, networks if that start is wanted.

    All images of an untrained generator are of one class. Those of many networks are not.

    >>> begun_with(("none",), cold_start=True), begun_with(("none",), cold_start=False)
    (('networks',), ('none',))
    """
    return (NETWORKS,) if cold_start and names == (NO_SOURCE,) else names


def is_folder_source(name: str) -> bool:
    """Return whether a source is a folder of images.

    >>> is_folder_source("folder:public-images"), is_folder_source("noise")
    (True, False)
    """
    return name.partition(":")[0] == FOLDER


def published_name(name: str) -> str:
    """Return public images, or other data, as they are named to everyone: without their folders.

    >>> published_name("folder:/home/ann/scans/"), published_name("public:medmnist:bloodmnist")
    ('folder:scans', 'public:medmnist:bloodmnist')
    """
    kinds = re.match(r"(?:\w+:)*", name)
    assert kinds is not None  # as it may be empty
    return kinds[0] + last_part(name[kinds.end() :])


def last_part(path: str) -> str:
    """Return the last part of a path as any system writes it, which tells nothing of its folders.

    >>> last_part("/home/ann/scans/"), last_part(r"C:\\scans\\one.npz")
    ('scans', 'one.npz')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def plain_sources(names: Sequence[str]) -> list[str]:
    """Return the names of sources whose images come from nothing else that a run asks about.

    These are the drawn sources and folders, each once. Blends (``mixed``, and images of the domain
    that ``public`` shows in new ways), ``diffusion`` and the generator are not among them.

    >>> plain_sources(["noise", "mixed", "strokes", "noise", "public", "generator"])
    ['noise', 'strokes']
    """
    plain = (name for name in names if name in DRAWN or is_folder_source(name))
    return list(dict.fromkeys(plain))


def check_left_out(names: Sequence[str]) -> None:
    """Refuse to leave out one source at a time where fewer than two others would remain.

    Raises:
        ConfigError: there are fewer than three plain sources.

    >>> check_left_out(["noise", "strokes", "mixed"])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: leave_one_out_steps needs 3 sources that are no blends, as a ...
    """
    plain = plain_sources(names)
    if len(plain) < FEWEST_TO_LEAVE_OUT:
        raise ConfigError(
            *(Setting("leave_one_out_steps"), f" needs {FEWEST_TO_LEAVE_OUT} sources that are no "),
            "blends, as a student learns from two or more and is compared on another, but ",
            *(
                Setting("sources"),
                f" has {len(plain)} ({','.join(plain) or NO_SOURCE}): name more, ",
            ),
            *("as in ", Setting("sources"), " noise,strokes,silhouettes, or give "),
            *(Setting("leave_one_out_steps"), " 0"),
        )


def check_sources(names: Sequence[str]) -> None:
    """Refuse names from which no mixture of sources can be made.

    Raises:
        UnknownNameError: there is no such source.
        ConfigError: ``none`` is given among others, ``mixed`` without another, a folder has no
            path, or a path is no folder's.

    >>> check_sources(["noise", "folder:public-images"])
    >>> check_sources(["noise", "none"])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: sources: 'none' must stand alone, not in noise,none
    >>> check_sources(["noise", "../scans"])
    Traceback (most recent call last):
        ...
    dpsd.errors.ConfigError: sources: '../scans' looks like a path: write folder:../scans for a ...
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
        if name == PUBLIC:
            raise ConfigError(
                *(Setting("sources"), f": leave {name!r} out, as "),
                *(Setting("public"), " adds the images that it names to the sources"),
            )
        if kind != FOLDER and ("/" in name or "\\" in name):
            raise ConfigError(
                *(Setting("sources"), f": {name!r} looks like a path: write {FOLDER}:{name} "),
                *("for a folder of public images, or give it with ", Setting("public")),
            )
        if kind != FOLDER and name not in (*DRAWN, MIXED, DIFFUSION, NO_SOURCE):
            raise UnknownNameError("source", name, source_names())
