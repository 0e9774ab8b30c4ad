"""Quick checks that a folder is a run, or may become one, which read nothing and import little.

>>> import tempfile
>>> check_run(Path(tempfile.mkdtemp()))
Traceback (most recent call last):
    ...
dpsd.errors.RunError: ... is not a run directory: it has no config.toml
"""

from __future__ import annotations

from pathlib import Path

from dpsd.errors import RunError, unwritable
from dpsd.shell import command_line

CONFIG_FILE = "config.toml"

#: The name of a federation's journal, by which its directory is known.
JOURNAL_FILE = "journal.jsonl"

#: The folder of what attacks on a run found, which is the owner's alone.
ATTACKS_FOLDER = "attacks"

#: The kinds of attack on a run, in the order in which they are made and shown.
ATTACKS = ("inversion", "membership", "copies")


def check_run(path: Path) -> None:
    """Refuse a folder that is not a run.

    Raises:
        RunError: the folder has no settings file, which every run has from its start.
    """
    if not (path / CONFIG_FILE).is_file():
        raise RunError(f"{path} is not a run directory: it has no {CONFIG_FILE}")


def check_new(path: Path) -> None:
    """Refuse a folder in which no run can begin, as there is something else.

    Raises:
        RunError: the folder is a file, is not empty, or cannot be read.
    """
    try:
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file, but a run is a directory: give another --out")
        if path.exists() and any(path.iterdir()):
            is_run = (path / CONFIG_FILE).exists()
            resume = command_line("--resume", path)
            mend = f"Continue that run with {resume}, or give" if is_run else "Give"
            raise RunError(f"{path} is not empty. {mend} another --out")
    except OSError as error:
        raise unwritable(
            error, f"{path} cannot be created", mend="give another --out", kind=RunError
        ) from None
