"""A quick check that a folder is a run, which reads nothing and imports little.

>>> import tempfile
>>> check_run(Path(tempfile.mkdtemp()))
Traceback (most recent call last):
    ...
dpsd.errors.RunError: ... is not a run directory: it has no config.toml
"""

from __future__ import annotations

from pathlib import Path

from dpsd.errors import RunError

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
