"""The base of all settings: immutable, validated when they are made, and readable as TOML.

>>> class Sizes(Settings):
...     rows: int = 3
>>> print(to_toml(Sizes(rows=4)), end="")
rows = 4
>>> Sizes(row=4)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: row is not a setting: did you mean rows?
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dpsd.errors import ConfigError, DpsdError, Setting, reason


class Settings(BaseModel):
    """The base class of settings: immutable, without unknown keys, and with one clear error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    #: Fields that are sets of settings themselves.
    parts: ClassVar[Collection[str]] = ()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(*_readable(error, self.parts, self.fields())) from None

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Every setting under its own name, as files and flags use it."""
        return dict(cls.model_fields)

    def flat(self, **how: Any) -> dict[str, Any]:
        """Every setting by its own name; ``how`` is as for pydantic's ``model_dump``."""
        return self.model_dump(**how)


class Divided(Settings):
    """Settings in parts; files and flags use the settings' own names, without that of the part."""

    #: The parts by the names of their fields.
    parts: ClassVar[Mapping[str, type[Settings]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _into_parts(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Pass each setting to the part that it belongs to; a part may also be given whole."""
        found: dict[str, Any] = {name: {} for name in cls.parts}
        for name, value in values.items():
            is_whole = name in cls.parts and isinstance(value, cls.parts[name])
            has_it = (part for part, kind in cls.parts.items() if name in kind.model_fields)
            if is_whole or (part := next(has_it, None)) is None:
                found[name] = value
            else:
                found[part][name] = value
        return found

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Every setting under its own name, as files and flags use it."""
        own = {name: field for name, field in cls.model_fields.items() if name not in cls.parts}
        for part in cls.parts.values():
            own |= part.model_fields
        return own

    def flat(self, **how: Any) -> dict[str, Any]:
        whole = self.model_dump(**how)
        parts: dict[str, Any] = {}
        for name in self.parts:
            parts |= whole.pop(name, {})
        return parts | whole

    def changed(self, **settings: Any) -> Self:
        """Return a copy with other settings, validated like a new one."""
        return type(self)(**self.flat(exclude_unset=True) | settings)


def to_toml(settings: Settings, *, without: Collection[str] = ()) -> str:
    """Return settings as TOML, without those that are unset or named in ``without``.

    >>> from dpsd.config.recipe import Recipe
    >>> print(to_toml(Recipe()).splitlines()[0])
    rounds = 8
    """
    stated = settings.flat(mode="json", exclude_none=True)
    return tomli_w.dumps({name: value for name, value in stated.items() if name not in without})


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys of a TOML file, which the settings validate.

    Raises:
        ConfigError: the file does not exist, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no TOML, or no text
        raise ConfigError(
            f"configuration {path} is not readable as TOML: {reason(error)}"
        ) from None


def _readable(
    error: ValidationError, parts: Collection[str], known: Mapping[str, FieldInfo]
) -> Iterator[str]:
    """Yield what is wrong, as the parts of a :class:`DpsdError`'s message."""
    told: set[str] = set()
    for problem in error.errors(include_url=False):
        stated = list(_stated(problem, parts, known))
        if (text := "".join(stated)) not in told:
            yield from ["; ", *stated] if told else stated
            told.add(text)


def _stated(
    problem: ErrorDetails, parts: Collection[str], known: Mapping[str, FieldInfo]
) -> Iterator[str]:
    """Yield the parts of one problem's message: the setting, what is wrong, and the value."""
    place, kind, value = problem["loc"], problem["type"], problem["input"]
    if len(place) > 1 and place[0] in parts:
        place = place[1:]  # users know the setting by its own name
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, DpsdError):  # raised by dpsd's own check, which names the setting itself
        yield from cause.parts
        return
    yield Setting(place[0]) if place else "configuration"
    if kind == "missing" and len(place) > 1:  # in a tuple
        yield f" has too few values (not {value!r})"
    elif kind == "missing":
        yield " is required"
    elif kind == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        yield " is not a setting" + (f": did you mean {near[0]}?" if near else "")
    elif wanted := _wanted(problem, known.get(str(place[0])) if len(place) == 1 else None):
        yield f" must be {wanted}, not {value!r}"
    else:
        yield f": {problem['msg']}"
        if place:
            yield f" (not {value!r})"


def _wanted(problem: ErrorDetails, field: FieldInfo | None) -> str | None:
    """Return what a value must be, in words; ``None`` for a problem that is no such matter.

    Args:
        problem: what is wrong with the value.
        field: the setting, whose whole range is stated; ``None`` for a part of one.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind not in _BOUNDS.values():
        return _KINDS.get(kind)
    bounds = [(name, context[name]) for name in _BOUNDS if name in context]
    if field is not None:
        stated = ((name, part) for part in field.metadata for name in _BOUNDS)
        bounds = [
            (name, at) for name, part in stated if (at := getattr(part, name, None)) is not None
        ]
    return " and ".join(f"{_IN_WORDS[name]} {at:,}" for name, at in bounds)


#: The bounds of a number, with the kind of problem that a value outside has, and in words.
_BOUNDS = {
    **{"gt": "greater_than", "ge": "greater_than_equal"},
    **{"lt": "less_than", "le": "less_than_equal"},
}
_IN_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}

#: What a value of another type must be, by the kind of problem.
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **{"finite_number": "a finite number", "string_type": "a text"},
}
