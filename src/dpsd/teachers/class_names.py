"""The names of a teacher's classes, which are the owner's public words for them.

Names travel with a run into everything that is made from it. They come from the teacher's file or
from whoever starts the run, never from an answer, and no ε is about them.

>>> checked_class_names(["cat", "dog"], num_classes=2)
('cat', 'dog')
>>> checked_class_names(["cat", "cat"], num_classes=2)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: class_names: 'cat' is named twice; give every class a name of its own
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpsd.errors import ConfigError, Setting, TeacherError

_SETTING = Setting("class_names")

#: The most characters in a name; the longest of ImageNet has 121.
LONGEST_NAME = 200


def parsed_class_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names as a user wrote them: one by one, as ``"cat,dog"``, or as ``"@FILE"``.

    Args:
        names: the names, or the path of a text file with one name a line, behind an ``@``.

    Raises:
        ConfigError: the file cannot be read, or the names make no sense.

    >>> parsed_class_names("cat, dog")
    ('cat', 'dog')
    """
    parts = names.split(",") if isinstance(names, str) else list(names)
    if len(parts) == 1 and isinstance(parts[0], str) and parts[0].strip().startswith("@"):
        path = Path(parts[0].strip()[1:]).expanduser()
        try:
            parts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise ConfigError(
                *(_SETTING, f": {path} cannot be read ({error}); "),
                "it must be text, with one name a line",
            ) from None
    return checked_class_names([part.strip() if isinstance(part, str) else part for part in parts])


def checked_class_names(names: Sequence[Any], *, num_classes: int | None = None) -> tuple[str, ...]:
    """Return names that can be shown and told apart.

    Args:
        names: the names in the order of the labels.
        num_classes: the number of classes; ``None`` if it is not known yet.

    Raises:
        ConfigError: there are fewer than two, a name is empty, too long, not printable or there
            twice.
        TeacherError: there are not as many names as classes.
    """
    if len(names) < 2:
        raise ConfigError(
            *(_SETTING, f" needs at least two names, not {len(names)}; write "),
            "A,B,C in the order of the labels, or @FILE with one name a line",
        )
    if (wrong := _fault(names)) is not None:
        raise ConfigError(_SETTING, f": {wrong}")
    if num_classes is not None and len(names) != num_classes:
        raise TeacherError(
            *(_SETTING, f" has {len(names)} names, but the teacher has {num_classes} classes; "),
            "give one name for each class, in the order of the labels",
        )
    return tuple(names)


def found_class_names(names: object, *, num_classes: int) -> tuple[str, ...] | None:
    """Return the names that a file states, if they can be used; ``None`` if they cannot.

    Names that only repeat the labels, from 0, are none. Names that are there several times, as two
    are in ImageNet, are told apart by their labels.

    Args:
        names: whatever the file states.
        num_classes: the number of classes.

    >>> found_class_names(["crane", "duck", "crane"], num_classes=3)
    ('crane (0)', 'duck', 'crane (2)')
    >>> found_class_names(["crane", "duck"], num_classes=3) is None
    True
    """
    if not isinstance(names, list | tuple) or not len(names) == num_classes >= 2:
        return None
    named = [name.strip() if isinstance(name, str) else name for name in names]
    if named == [str(label) for label in range(num_classes)]:
        return None
    try:
        repeated = {name for name, many in Counter(named).items() if many > 1}
    except TypeError:  # not all of them are even hashable
        return None
    told_apart = [
        f"{name} ({label})" if name in repeated else name for label, name in enumerate(named)
    ]
    return None if _fault(told_apart) else tuple(told_apart)


def _fault(names: Sequence[Any]) -> str | None:
    """Say what is wrong with the names; ``None`` if nothing is."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            return f"{name!r} is not text; write every name in quotes"
        if not name or name != name.strip():
            return f"{name!r} is empty or has spaces around it; give every class a name"
        if len(name) > LONGEST_NAME:
            return f"{name[:40]!r}… has {len(name)} characters; give at most {LONGEST_NAME}"
        if not name.isprintable():
            return f"{name!a} has characters that cannot be printed; leave them out"
        if name in seen:
            return f"{name!r} is named twice; give every class a name of its own"
        seen.add(name)
    return None
