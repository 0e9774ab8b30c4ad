"""What keeps Flower from reaching for the internet.

Flower would report its use, look for newer versions and install what a bundle lists. All of this is
switched off by the environment, for this process and for those that it starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: The variables that Flower and Ray read.
_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def stay_offline() -> None:
    """Keep this process offline; to be called before ``flwr`` is imported."""
    os.environ.update(_OFF)


def offline_environment(home: Path) -> Mapping[str, str]:
    """Return the environment of a process of Flower's that stays offline.

    Args:
        home: the folder in which Flower keeps its files, instead of the user's home.
    """
    return {**os.environ, **_OFF, "FLWR_HOME": str(home.absolute())}
