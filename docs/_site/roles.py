"""Docstrings as the site shows them: roles of reStructuredText become plain code.

The docstrings refer to names as ``:func:`dpsd.load_teacher```, which the site's Markdown would show
with its colons.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)([\w.]+)`")


class PlainRoles(griffe.Extension):
    """Rewrites every docstring that is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(docstring: str) -> str:
    """A docstring without roles; ``~`` leaves the last part of a name, as Sphinx does.

    >>> plain("See :meth:`Recipe.suited_to` and :class:`~dpsd.teachers.Teacher`.")
    'See `Recipe.suited_to` and `Teacher`.'
    """
    return _ROLE.sub(lambda role: f"`{role[2].split('.')[-1] if role[1] else role[2]}`", docstring)
