"""The command line: ``dpsd train-teacher``, ``transcribe``, ``evaluate``, ``sample``, and so on.

It is the top layer and holds no logic of its own: each command reads its arguments, calls the
library and shows the result. Whatever is slow to import is imported by the command that needs it,
so ``dpsd --help`` answers at once.
"""

from dpsd.cli.app import app, main

__all__ = ["app", "main"]
