"""The kinds of attack on a run, without importing what they do.

>>> check_kinds("copies,membership")
('membership', 'copies')
"""

from __future__ import annotations

from dpsd.errors import ConfigError, Setting, UnknownNameError
from dpsd.runs.files import ATTACKS

KINDS = ATTACKS


def check_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that a list with commas names, each once and in the order of ``KINDS``.

    Raises:
        UnknownNameError: there is no kind of that name.
        ConfigError: the list is empty.

    >>> check_kinds("inversoin")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown kind of attack 'inversoin': did you mean 'inversion'? ...
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in KINDS:
            raise UnknownNameError("kind of attack", name, KINDS)
    if not named:
        raise ConfigError(Setting("kind"), f" is empty; give some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)
