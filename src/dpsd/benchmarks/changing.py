"""Rows with some settings changed, under names that say so and mix with no others.

What can be set of a row is a field of its recipe, its mechanism or its baseline, and of its target
``epsilon`` and ``delta``. Values are texts, as the command line has them.

>>> from pathlib import Path
>>> from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
>>> from dpsd.benchmarks.methods import Task
>>> row = Row(key="mnist/1/dp-sgd", task=Task(data="mnist", teachers=Path("teachers")),
...           method=PrivateSGD(), target=Budget(epsilon=1.0))
>>> changed(row, {"network": "tempered", "epochs": "10"}).key
'mnist/1/dp-sgd with epochs=10, network=tempered'
>>> changed(row, {"epoch": "10"})
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: epoch=10: mnist/1/dp-sgd has no setting 'epoch': did you mean 'epochs'? ...
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dpsd.benchmarks.methods import Method
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.config.privacy import OF_GRADIENTS
from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget

_OF_TARGETS = ("epsilon", "delta")

#: Settings of mechanisms, by what they protect and whether there are many teachers.
_OF_MECHANISMS: Mapping[tuple[str, bool], Collection[str]] = {
    ("labels", False): ("candidates",),
    ("data", False): OF_GRADIENTS,
    ("labels", True): ("consensus", "consensus_noise", "consensus_answered"),
    ("data", True): (),
}


def changed(row: Row, changes: Mapping[str, str]) -> Row:
    """A row with other settings, and a key that names them.

    Figures that were published for the row as it was are left out.

    Args:
        row: one row of a suite.
        changes: texts by setting: JSON, plain words, words between commas for several, or ``none``.

    Raises:
        ConfigError: a setting that the row has not, or a value that it cannot take.
    """
    types = _settable(row)
    # In one order, whatever it was given in: a row is known by how its settings read.
    values = {name: _value(row, types, name, text) for name, text in sorted(changes.items())}
    said = tuple(f"{name}={_shown(value)}" for name, value in values.items())
    of_target = {name: values.pop(name) for name in _OF_TARGETS if name in values}
    try:
        target = replace(row.target, **of_target) if row.target else None
        method = _with(row.method, values, target)
    except ConfigError as error:
        raise ConfigError(f"{', '.join(said)}: {error}") from None
    return replace(
        row,
        key=f"{row.key} with {', '.join(said)}",
        method=method,
        target=target,
        changes=said,
        published=None,
        source="",
    )


def _settable(row: Row) -> dict[str, Any]:
    """What can be set of a row, with its type."""
    of_target = dict.fromkeys(_OF_TARGETS, float) if row.target else {}
    return {} if isinstance(row.method, Quoted) else of_target | _of_method(row.method)


def _of_method(method: Method) -> dict[str, Any]:
    if isinstance(method, Race):
        return _of_method(method.method)
    if isinstance(method, Transcribing):
        names = {*Recipe.model_fields, *_of_mechanism(method), "student", "features"} - {"seed"}
        fields = TranscriptionConfig.fields()
        types = {name: fields[name].annotation for name in names}
        types |= {name: get_type_hints(type(method))[name] for name in _added(method)}
        return types if method.shards is None else types | {"shards": int}
    assert dataclasses.is_dataclass(method)
    hints = get_type_hints(type(method))
    names = {field.name for field in dataclasses.fields(method) if field.init} - {"name"}
    return {name: hints[name] for name in names}


def _added(method: Transcribing) -> set[str]:
    """The settings that a kind of transcription has besides those of all, such as its clients."""
    every, common = (
        {field.name for field in dataclasses.fields(kind)} for kind in (type(method), Transcribing)
    )
    return every - common


def _of_mechanism(method: Transcribing) -> Collection[str]:
    return _OF_MECHANISMS[method.protect, method.shards is not None]


def _value(row: Row, types: Mapping[str, Any], name: str, text: str) -> Any:
    """What a text stands for, as the setting's type has it."""
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1)
        hint = f": did you mean {near[0]!r}?" if near else "."
        has = f"It has {', '.join(sorted(types))}" if types else "It is only quoted"
        raise ConfigError(
            f"{name}={text}: {row.key} has no setting {name!r}{hint} {has}; --only chooses rows"
        )
    kind = types[name]
    value: Any
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if text == "none" and type(None) in get_args(kind):
        value = None
    if get_origin(kind) is tuple and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        reasons = " or ".join(problem["msg"] for problem in error.errors(include_url=False))
        raise ConfigError(f"{name}={text}: {row.key} cannot take it: {reasons}") from None


def _with(method: Method | Quoted, values: Mapping[str, Any], target: Budget | None) -> Any:
    if isinstance(method, Race):
        return replace(method, method=_with(method.method, values, target))
    if not isinstance(method, Transcribing):
        return replace(method, **values)  # type: ignore[type-var]  # methods are dataclasses
    mechanism = {name: values[name] for name in _of_mechanism(method) if name in values}
    own = {
        name: values[name]
        for name in ("student", "features", "shards", *_added(method))
        if name in values
    }
    recipe = {name: value for name, value in values.items() if name not in {*mechanism, *own}}
    made = replace(
        method,
        recipe={**method.recipe, **recipe},
        mechanism={**method.mechanism, **mechanism},
        **own,
    )
    if target is not None:
        config = made.configuration(target)
        config.check_names()
        config.privacy.require_effect(members=made.shards or 1)
    return made


def _shown(value: Any) -> str:
    """A value as text, in one way whichever way it was given."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
