"""``dpsd inspect``: what a teacher is and how it would be called, from public noise alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from dpsd.cli.console import grid, hint, say_json, show, warn
from dpsd.cli.errors import PARTS_OF_TEACHER, spell
from dpsd.cli.options import built_command, flag_name, given
from dpsd.config.recipe import Recipe
from dpsd.config.teacher import TeacherSettings
from dpsd.config.transcription import TranscriptionConfig
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.shell import command_line
from dpsd.teachers.kinds import TEACHER_HELP, check_source, is_ensemble

if TYPE_CHECKING:
    from dpsd.teachers import Teacher

_RANGES = {
    "1": "float32 in [0, 1]",
    "255": "float32 in [0, 255]",
    "uint8": "uint8 in 0 to 255",
}


def command() -> click.Command:
    """Return the command with a flag for everything that can be said of a teacher."""
    names = {*TeacherSettings.model_fields, "device", "precision"}
    return built_command("inspect", _inspect, names=names)


def _inspect(
    ctx: typer.Context,
    teacher: Annotated[
        str,
        typer.Argument(help=TEACHER_HELP),
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
        "images_per_second": _speed(loaded, settings.recipe.device),
        **_asked(loaded, is_many=is_ensemble(teacher)),
    }
    if as_json:
        say_json(facts)
        return
    _show(loaded, facts)
    for note in loaded.notes:
        warn(note)
    given_budget = ("--epsilon", "1", "--adjacency", facts["adjacency"])
    words = ("transcribe", *_arguments(teacher, chosen), *given_budget, "--out", "runs/new")
    hint(f"transcribe it: {command_line('dpsd', *words)}")


def _speed(teacher: Teacher, device: str) -> float | None:
    """Return how many images of noise it answers in a second; a function may cost money."""
    if not teacher.is_free:
        return None

    import time

    from dpsd.devices.execution import Execution, forward_batch
    from dpsd.teachers.probing import public_noise

    fastest = forward_batch(teacher.input_shape, Execution.of(device).device)
    noise = public_noise(teacher, min(teacher.query_batch, fastest))
    start = time.perf_counter()
    teacher.rehearse(noise)
    return round(len(noise) / (time.perf_counter() - start), 1)


def _asked(teacher: Teacher, *, is_many: bool) -> dict[str, Any]:
    """Return what a run with the defaults would ask."""
    adjacency = Adjacency.TEACHER if is_many else Adjacency.ROUND
    budget = Budget(epsilon=1.0, adjacency=adjacency)
    recipe = Recipe().resolved(members=teacher.members, images=teacher.input_shape, budget=budget)
    queries = sum(recipe.queries_in(index) for index in range(1, recipe.rounds + 1))
    return {"adjacency": adjacency.value, "rounds": recipe.rounds, "queries": queries}


def _show(teacher: Teacher, facts: dict[str, Any]) -> None:
    from dpsd.teachers.service import duration

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
        ("by default", asked + ("" if speed is None else f": about {duration(queries / speed)}")),
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


def _arguments(teacher: str, chosen: dict[str, Any]) -> list[str]:
    """Return the arguments that name the teacher, as they were given."""
    words = [teacher]
    for name, value in chosen.items():
        listed = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        words += [flag_name(name)] if value is True else [flag_name(name), listed]
    return words
