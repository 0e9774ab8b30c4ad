"""A flag whose value is one of a few words; for another word, the nearest one is suggested."""

from __future__ import annotations

import difflib
from typing import Any

import click


class Words(click.Choice):  # type: ignore[type-arg, unused-ignore]
    """A parameter that is one of some words.

    >>> Words(["test", "validation", "train"]).convert("val", None, None)
    Traceback (most recent call last):
        ...
    click.exceptions.BadParameter: 'val' is not one of 'test', 'validation', 'train'. Did you ...
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word; an error names the words, and the nearest of them."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            begun = [word for word in self.choices if value and word.startswith(str(value))]
            near = begun or difflib.get_close_matches(str(value), self.choices, n=1)
            if len(near) == 1:
                error.message = f"{error.message.rstrip('.')}. Did you mean {near[0]!r}?"
            raise
