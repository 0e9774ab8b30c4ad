"""``dpsd inspect``: what a teacher is and how it would be called, from public noise alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from dpsd.cli.console import grid, hint, say_json, show, warn
from dpsd.cli.errors import PARTS_OF_TEACHER, Command, spell, unwrapped
from dpsd.cli.options import flag_name, given, with_config_flags
from dpsd.config.recipe import Recipe
from dpsd.config.teacher import TeacherSettings
from dpsd.config.transcription import TranscriptionConfig
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.shell import command_line
from dpsd.teachers.kinds import check_source, is_ensemble

if TYPE_CHECKING:
    from dpsd.teachers import Teacher

_RANGES = {
    "1": "float32 in [0, 1]",
    "255": "float32 in [0, 255]",
    "uint8": "uint8 in 0 to 255",
}


def command() -> click.Command:
    """Return the command with a flag for everything that can be said of a teacher."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    text = unwrapped(inspect.cleandoc(_inspect.__doc__ or ""))
    names = {*TeacherSettings.model_fields, "device", "precision"}
    flags = with_config_flags(_inspect, names=names)
    app.command("inspect", cls=Command, help=text)(flags)
    return typer.main.get_command(app)


def _inspect(
    ctx: typer.Context,
    teacher: Annotated[
        str,
        typer.Argument(
            help="The teacher: a directory, an .onnx or .pt2 file, hf:FOLDER, "
            "package.module:factory, or the address of a service, https://HOST/v2/models/NAME."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: Any,
) -> None:
    """Say what a teacher is, how it would be called and how fast it answers.

    It is asked about public noise alone, which costs no privacy. Nothing is written or spent. The
    flags are those of `dpsd transcribe`: whatever is needed here is needed there too.

    Example: dpsd inspect teacher.onnx

    The flag to know first is --input-shape, for a teacher that does not state the shape of its
    images.
    """
    chosen = given(ctx, flags)
    spell(ctx, PARTS_OF_TEACHER)
    check_source(teacher, plain_http=bool(chosen.get("plain_http")))
    settings = TranscriptionConfig(teacher=teacher, epsilon=1.0, **chosen)

    loaded = settings.load_teacher()
    facts = {
        "teacher": loaded.description,
        "identity": loaded.fingerprint,
        "members": loaded.members,
        "input_shape": list(loaded.input_shape),
        "layout": loaded.declared_calling.layout,
        "input_scale": loaded.declared_calling.scale,
        "num_classes": loaded.num_classes,
        "class_names": None if loaded.class_names is None else list(loaded.class_names),
        "scores": loaded.scores,
        "notes": list(loaded.notes),
        "images_per_second": _speed(loaded),
        **_asked(loaded, is_many=is_ensemble(teacher)),
    }
    if as_json:
        say_json(facts)
        return
    _show(loaded, facts)
    for note in loaded.notes:
        warn(note)
    words = [
        "transcribe",
        *_arguments(teacher, chosen),
        "--epsilon",
        "1",
        "--adjacency",
        facts["adjacency"],
        "--out",
        "runs/new",
    ]
    hint(f"transcribe it: {command_line('dpsd', *words)}")


def _speed(teacher: Teacher) -> float | None:
    """Return how many images of noise it answers in a second; a function may cost money."""
    if not teacher.is_free:
        return None

    import time

    from dpsd.devices.execution import forward_batch
    from dpsd.teachers.probing import public_noise

    count = min(teacher.query_batch, forward_batch(teacher.input_shape, torch_device(teacher)))
    noise = public_noise(teacher, count)
    start = time.perf_counter()
    teacher.rehearse(noise)
    return round(count / (time.perf_counter() - start), 1)


def torch_device(teacher: Teacher) -> Any:
    """Return the device that a teacher computes on."""
    import torch

    return getattr(teacher, "_device", torch.device("cpu"))


def _asked(teacher: Teacher, *, is_many: bool) -> dict[str, Any]:
    """Return what a run with the defaults would ask."""
    adjacency = Adjacency.TEACHER if is_many else Adjacency.ROUND
    budget = Budget(epsilon=1.0, adjacency=adjacency)
    recipe = Recipe().resolved(members=teacher.members, images=teacher.input_shape, budget=budget)
    queries = sum(recipe.queries_in(index) for index in range(1, recipe.rounds + 1))
    return {"adjacency": adjacency.value, "rounds": recipe.rounds, "queries": queries}


def _show(teacher: Teacher, facts: dict[str, Any]) -> None:
    channels, height, width = teacher.input_shape
    shape = {
        "nhwc": f"(N, {height}, {width}, {channels})",
        "flat": f"(N, {channels * height * width})",
    }.get(facts["layout"], f"(N, {channels}, {height}, {width})")
    handed = _RANGES[facts["input_scale"]]
    if teacher.normalization is not None:
        handed = "float32, normalised by --mean and --deviation"
    speed, queries = facts["images_per_second"], facts["queries"]
    rounds = "1 round" if facts["rounds"] == 1 else f"{facts['rounds']} rounds"
    asked = f"{queries:,} queries in {rounds}, at ε = 1 under {facts['adjacency']!r}"
    table = grid("", "")
    table.show_header = False
    table.columns[1].overflow = "fold"  # an identity is of use as a whole only
    for name, value in (
        ("teacher", teacher.description),
        ("identity", teacher.fingerprint),
        ("teachers", f"{teacher.members:,}" if teacher.members > 1 else None),
        ("is handed", f"{shape}, {handed}"),
        ("returns", f"{teacher.scores} of {teacher.num_classes:,} classes"),
        ("classes", None if teacher.class_names is None else _listed(teacher.class_names)),
        ("answers", None if speed is None else f"about {speed:,.0f} images of noise a second"),
        ("by default", asked + ("" if speed is None else f": {_duration(queries / speed)}")),
        ("verdict", "it can be transcribed" + (", but see the warnings" if teacher.notes else "")),
    ):
        if value is not None:
            table.add_row(name, value)
    show(table)


def _listed(names: Sequence[str], *, most: int = 10) -> str:
    """List the names of classes, the first of many.

    >>> _listed(["cat", "dog", "owl"], most=2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _duration(seconds: float) -> str:
    """Say how long something takes.

    >>> _duration(42), _duration(600), _duration(7200)
    ('about 42 seconds', 'about 10 minutes', 'about 2.0 hours')
    """
    if seconds < 120:
        return f"about {max(1, round(seconds))} seconds"
    if seconds < 7200:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


def _arguments(teacher: str, chosen: dict[str, Any]) -> list[str]:
    """Return the arguments that name the teacher, as they were given."""
    words = [teacher]
    for name, value in chosen.items():
        listed = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        words += [flag_name(name)] if value is True else [flag_name(name), listed]
    return words
