"""Command lines in messages, quoted so that they can be pasted into a shell.

>>> from pathlib import PurePosixPath
>>> command_line("dpsd", "certify", PurePosixPath("runs/digits"))
'dpsd certify runs/digits'
"""

from __future__ import annotations

import os
import shlex
import subprocess


def command_line(*words: object) -> str:
    """Return a command line whose words are quoted for the shell of this system.

    Args:
        words: the command and its arguments, which are converted to text.

    >>> import sys
    >>> shown = command_line("dpsd", "evaluate", "runs/my run", "--data", "NAME")
    >>> shown == ('dpsd evaluate "runs/my run" --data NAME' if sys.platform == "win32" else
    ...           "dpsd evaluate 'runs/my run' --data NAME")
    True
    """
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)
