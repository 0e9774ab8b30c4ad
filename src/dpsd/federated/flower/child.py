"""Runs a command of Flower's in a process that ends when the program that started it is gone.

``python -m dpsd.federated.flower.child PID flower-superlink …`` runs ``flower-superlink …``, and
ends when there is no process PID any more.
"""

from __future__ import annotations

import importlib
import sys

from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.exit import ExitCode, flwr_exit

#: The modules of the commands, of which only the one that is run is imported, and their functions.
_COMMANDS = {
    "flower-superlink": ("flwr.superlink.cli.flower_superlink", "flower_superlink"),
    "flower-supernode": ("flwr.supernode.cli.flower_supernode", "flower_supernode"),
}


def main() -> None:
    """Run the command that the arguments name."""
    start_parent_process_monitor(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    module, function = _COMMANDS[sys.argv[0]]
    getattr(importlib.import_module(module), function)()
    # A node whose server failed returns, and would stay for the threads that it has left behind.
    flwr_exit(ExitCode.SUCCESS)


if __name__ == "__main__":
    main()
