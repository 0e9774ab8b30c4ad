"""Whether a folder is a run, for whoever need not read it yet.

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


def check_run(path: Path) -> None:
    """Refuse a folder that is no run.

    Raises:
        RunError: it has no settings, which every run has from its first moment.
    """
    if not (path / CONFIG_FILE).is_file():
        raise RunError(f"{path} is not a run directory: it has no {CONFIG_FILE}")
