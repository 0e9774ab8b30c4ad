"""The libraries that only some of dpsd's features need, and how they are installed.

What to type names the libraries themselves, as ``pyproject.toml`` bounds their versions, so that it
works from every folder and however dpsd came here: no package index need know of dpsd.

>>> how_to_install("dicom")
"pip install 'pydicom>=3.0'"
"""

from __future__ import annotations

import re
from importlib.metadata import requires

from dpsd.shell import command_line


def how_to_install(extra: str) -> str:
    """Return the command that installs the libraries of an extra.

    Args:
        extra: its name in ``pyproject.toml``.

    Raises:
        ValueError: there is no such extra.
    """
    libraries = []
    for stated in requires("dpsd") or ():
        library, _, marker = stated.partition(";")
        if re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", marker):
            libraries.append(library.strip())
    if not libraries:
        raise ValueError(f"dpsd has no extra {extra!r}")
    return command_line("pip", "install", *libraries)
