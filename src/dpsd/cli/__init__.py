"""The command line: ``dpsd train-teacher``, ``transcribe``, ``evaluate``, ``sample``, and so on.

It stands on top of everything and holds no logic of its own: each command reads its arguments,
calls the library and shows what came back. Whatever is slow to import is imported by the command
that needs it, so ``dpsd --help`` answers at once.
"""

from dpsd.cli.app import app, main

__all__ = ["app", "main"]
