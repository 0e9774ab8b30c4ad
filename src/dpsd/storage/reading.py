"""Finding out why a file cannot be opened.

>>> check_readable(Path("nowhere/teacher.safetensors"))
Traceback (most recent call last):
    ...
FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/teacher.safetensors'
"""

from __future__ import annotations

from pathlib import Path


def check_readable(path: Path) -> None:
    """Open a file for reading, and close it again.

    safetensors says of every file that it cannot open that there is none, even if it only may not
    read it. So a file is opened in Python first, whose error says why.

    Raises:
        OSError: the file cannot be opened; the error has the operating system's reason.
    """
    path.open("rb").close()
