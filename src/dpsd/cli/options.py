"""The flags made from the configuration's fields, with their types, defaults and descriptions."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from click.core import ParameterSource
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dpsd.cli.choices import Words
from dpsd.cli.errors import Command, accept_earlier_names, unwrapped
from dpsd.config.privacy import PrivacySettings
from dpsd.config.teacher import TeacherSettings
from dpsd.config.transcription import TranscriptionConfig

PANELS = {
    "Privacy": tuple(PrivacySettings.model_fields),
    "Queries": (
        "rounds",
        "queries",
        "first_queries",
        "sources",
        "cold_start",
        "public",
        "probe",
        "probe_images",
        "until",
        "value_range",
        "adaptive",
        "generator_share",
        "exploration",
        "prior_temperature",
        "selection",
    ),
    "Student": (
        "student",
        "features",
        "objective",
        "alpha",
        "beta",
        "temperature",
        "balance",
        "epochs",
        "first_epochs",
        "replay",
        "consolidate",
        "student_steps",
        "augment",
        "restarts",
        "polish_steps",
        "leave_one_out_steps",
        "batch_size",
        "learning_rate",
    ),
    "Generator": (
        "generator",
        "generator_steps",
        "generator_batch_size",
        "generator_learning_rate",
        "classification_weight",
        "balance_weight",
        "activation_weight",
    ),
    "Teacher": tuple(TeacherSettings.model_fields),
    "Clients": ("clients", "at_least", "trusted_aggregator", "deadline", "patience"),
}
#: The panel for fields that no other panel names, and for flags that are not fields.
RUN_PANEL = "Run"
_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}


class CommaList(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A parameter of values separated by commas; the configuration validates each value."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split a string at its commas.

        >>> CommaList().convert("noise, crops", None, None)
        ('noise', 'crops')
        """
        if not isinstance(value, str):
            return tuple(value)
        return tuple(part.strip() for part in value.split(",") if part.strip())


def built_command(
    name: str,
    function: Callable[..., None],
    *,
    names: Collection[str] | None = None,
    fields: Mapping[str, FieldInfo] | None = None,
) -> click.Command:
    """Return a command whose ``**flags`` are fields of a configuration.

    Args:
        name: the name of the command.
        function: the function that it calls, whose docstring is its help.
        names: the fields to make flags of; all by default.
        fields: the fields of the configuration, by default those of a transcription.
    """
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": accept_earlier_names,
        },
    )
    text = unwrapped(inspect.cleandoc(function.__doc__ or ""))
    app.command(name, cls=Command, help=text)(
        with_config_flags(function, names=names, fields=fields)
    )
    return typer.main.get_command(app)


def with_config_flags(
    function: Callable[..., None],
    *,
    names: Collection[str] | None = None,
    fields: Mapping[str, FieldInfo] | None = None,
) -> Callable[..., None]:
    """Replace ``**flags`` by a flag for every field except ``teacher``, which is an argument.

    Args:
        function: the command's function, whose other parameters stay.
        names: the fields to make flags of; all by default.
        fields: the fields of the configuration, by default those of a transcription.
    """
    fields = TranscriptionConfig.fields() if fields is None else fields
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [
        _flag(name, field)
        for name, field in _by_panel(fields)
        if name != "teacher" and (names is None or name in names)
    ]

    def command(**values: Any) -> None:
        function(**values)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__signature__ = inspect.Signature(own + flags)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in own + flags}
    return command


def given(ctx: click.Context, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that the user gave, without those at their defaults."""
    return {
        name: value
        for name, value in flags.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def flag_name(field: str) -> str:
    """Return a field's spelling on the command line.

    >>> flag_name("learning_rate")
    '--learning-rate'
    """
    return "--" + field.replace("_", "-")


def _by_panel(fields: Mapping[str, FieldInfo]) -> list[tuple[str, FieldInfo]]:
    order = {name: position for position, name in enumerate(_PANEL_OF)}
    return sorted(fields.items(), key=lambda item: order.get(item[0], len(order)))


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    choice, metavar = _click_type(field.annotation)
    default = None if field.default is PydanticUndefined else field.default
    if isinstance(default, Enum):
        default = default.value
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    declaration = flag_name(name)
    if choice is click.BOOL:
        declaration = f"{declaration}/--no-{declaration[2:]}"
    option = typer.Option(
        default,
        declaration,
        help=field.description,
        rich_help_panel=_PANEL_OF.get(name, RUN_PANEL),
        metavar=metavar,
        click_type=None if choice is click.BOOL else choice,
    )
    annotation: Any = bool if choice is click.BOOL else Any
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation
    )


def _click_type(
    annotation: Any,
) -> tuple[click.ParamType, str | None]:  # type: ignore[type-arg, unused-ignore]
    """Return a flag's type, and a placeholder where that of the type says too little."""
    options = [part for part in _alternatives(annotation) if part is not type(None)]
    words = [word for part in options if get_origin(part) is Literal for word in get_args(part)]
    if len(options) > 1:  # words or a number; the configuration distinguishes them
        return click.STRING, "|".join([*words, "N"])
    (only,) = options
    if words:
        return Words(words), None
    if get_origin(only) is tuple:
        return CommaList(), "A,B,…"
    if isinstance(only, type) and issubclass(only, Enum):
        return Words([member.value for member in only]), None
    plain = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}
    return plain[only], None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)
