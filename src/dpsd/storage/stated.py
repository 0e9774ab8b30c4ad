"""What JSON files state: infinity, which JSON lacks, and contents that are checked as a whole.

>>> as_json({"bounds": (1.0, math.inf)})
{'bounds': [1.0, 'infinity']}
>>> from_json({"bounds": [1.0, "infinity"]})
{'bounds': [1.0, inf]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

Kind = TypeVar("Kind")

#: How infinity is written.
_INFINITY = {"infinity": math.inf, "-infinity": -math.inf}
#: The types among which a cell's error says that none fitted; they are no part of its place.
_BRANCHES = {"str", "int", "float"}
#: The most characters of a value that an error quotes.
_MOST_QUOTED = 40


def as_json(value: Any) -> Any:
    """Return a value in JSON types, in which infinity is a word and tuples are lists."""
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, float) and math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    return value


def from_json(value: Any) -> Any:
    """Return what :func:`as_json` was given, with lists for tuples."""
    if isinstance(value, dict):
        return {name: from_json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [from_json(one) for one in value]
    return _INFINITY.get(value, value) if isinstance(value, str) else value


def validated(kind: type[Kind], content: Mapping[str, Any]) -> Kind:
    """Return the content of a JSON file as an object, if it is exactly that.

    Args:
        kind: a dataclass or a model, whose types are taken strictly: no text is a number.
        content: the content, in JSON types.

    Raises:
        ValueError: it is something else; one line names the first field that is wrong.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     rows: int
    >>> validated(Size, {"rows": "3"})
    Traceback (most recent call last):
        ...
    ValueError: rows: input should be a valid integer (not '3')
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import

    try:
        # As text, since strictness is about the types that JSON has.
        return TypeAdapter(kind).validate_json(json.dumps(content, allow_nan=False), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    names = (str(part) for part in problem["loc"] if part not in _BRANCHES)
    place = " ".join(".".join(names).split())[:_MOST_QUOTED]
    if "error" in problem.get("ctx", {}):  # raised by the kind's own check
        message = str(problem["ctx"]["error"])
    elif problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "there is no such field"
    else:
        message = problem["msg"][:1].lower() + problem["msg"][1:]
        if problem["type"] != "missing":
            value = repr(problem["input"])
            shown = value if len(value) <= _MOST_QUOTED else f"{value[:_MOST_QUOTED]}…"
            message += f" (not {shown})"
    raise ValueError(f"{place}: {message}" if place else message)
