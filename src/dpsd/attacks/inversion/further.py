"""Further models to attack, from paths: students of other runs, exported ones, and teachers.

Another run, and a student's ``.safetensors`` file, name the student's architecture. Only dpsd's own
architectures are built from there, as another name would run code that a file chooses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, DpsdError, RunError, Setting, TeacherError, reason
from dpsd.images.names import Shape
from dpsd.models import build_classifier, model_names
from dpsd.models.names import BACKBONES
from dpsd.runs.directory import RunDirectory
from dpsd.runs.files import CONFIG_FILE
from dpsd.storage.files import open_tensors
from dpsd.teachers import Teacher, load_teacher
from dpsd.teachers.backbones import unfilled_backbone
from dpsd.teachers.record import checked_statement
from dpsd.teachers.weights import fill_module, read_weights


@dataclass(frozen=True)
class _Stated:
    """What a model says of itself, and how it is opened after that was compared with the run's."""

    input_shape: Shape
    num_classes: int
    class_names: Sequence[str] | None
    opened: Callable[[], nn.Module | Teacher]


def further_model(path: str, *, run: RunDirectory, execution: Execution) -> nn.Module | Teacher:
    """Open a model that is attacked beside those of a run.

    Args:
        path: the directory of another run, whose student is meant; a ``.safetensors`` file that
            ``dpsd export`` wrote; or anything that :func:`dpsd.load_teacher` opens by its path.
        run: the run that is attacked.
        execution: where the model runs.

    Returns:
        A module from images in [0, 1] to logits, in eval mode; or a teacher.

    Raises:
        ConfigError: the model takes other images than the run's, or has other classes.
        TeacherError: nothing can be opened there.
    """
    with _naming(path):
        if (Path(path) / CONFIG_FILE).is_file():
            stated = _of_run(path)
        elif path.endswith(".safetensors"):
            stated = _of_export(Path(path))
        else:
            stated = _of_teacher(path, execution)
    _require_fit(path, stated, run)
    with _naming(path):
        return stated.opened()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Say of an error in which model it occurred."""
    try:
        yield
    except DpsdError as error:
        cannot = (Setting("also"), f": {path} cannot be attacked: ")
        raise TeacherError(*cannot, *error.parts) from None


def _of_run(path: str) -> _Stated:
    run = RunDirectory.open(path)
    if not run.is_finished():
        raise RunError(f"the run is not finished: finish it with {run.resuming}")
    facts = run.facts()
    _require_own(facts["student"], facts.get("features", {}).get("student"))
    return _Stated(
        tuple(facts["input_shape"]), facts["num_classes"], run.class_names(), run.student
    )


def _of_export(path: Path) -> _Stated:
    try:
        with open_tensors(path) as file:
            stated = json.loads((file.metadata() or {})["dpsd"])
        name, shape, classes = (stated[one] for one in ("student", "input_shape", "num_classes"))
        sizes = [*shape, classes]
        names, features = stated.get("class_names", []), checked_statement(stated.get("features"))
        if len(sizes) != 4 or not all(type(size) is int for size in sizes):
            raise ValueError("a size is not a number")
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise ValueError("a name is not a text")
    except OSError as error:
        raise TeacherError(f"it cannot be read: {reason(error)}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        raise TeacherError(
            "its header does not describe a student, as dpsd export writes it: give a .pt2 or "
            ".onnx file, or package.module:factory"
        ) from None
    _require_own(name, features)

    def opened() -> nn.Module:
        backbone = None
        if features is not None:
            backbone = unfilled_backbone(features["name"], input_shape=tuple(shape))
        module = build_classifier(
            name, input_shape=tuple(shape), num_classes=classes, seed=0, features=backbone
        )
        fill_module(module, read_weights(path), where=str(path))
        return module.eval()

    return _Stated(tuple(shape), classes, names, opened)


def _require_own(student: object, features: Mapping[str, str] | None) -> None:
    """Refuse an architecture, or features, whose code a file or folder would choose.

    Raises:
        TeacherError: it is not dpsd's own.
    """
    strange = None if student in model_names() else student
    if strange is None and features is not None and features["name"] not in BACKBONES:
        strange = features["name"]
    if strange is not None:
        raise TeacherError(
            f"its student is {str(strange)[:60]!r}, which is no architecture of dpsd's own, and "
            "others run code: export it to .pt2 or .onnx with dpsd export, and give that file, "
            "which is attacked by its labels"
        )


def _of_teacher(path: str, execution: Execution) -> _Stated:
    device = str(execution.device)
    teacher = load_teacher(path, device=device, precision=execution.precision)
    return _Stated(teacher.input_shape, teacher.num_classes, teacher.class_names, lambda: teacher)


def _require_fit(path: str, stated: _Stated, run: RunDirectory) -> None:
    """Refuse a model of other images or classes, before a student's memory is allocated.

    A teacher is open by then, as only so it tells what it takes.

    Raises:
        ConfigError: it is one.
    """
    facts, names = run.facts(), run.class_names()
    for what, here, there in (
        ("images of shape", stated.input_shape, tuple(facts["input_shape"])),
        ("number of classes", stated.num_classes, facts["num_classes"]),
    ):
        if here != there:
            raise ConfigError(
                *(Setting("also"), f": {path} has {what} {here}, and the run's is {there}: "),
                "give a model of the same shape and classes",
            )
    own = stated.class_names
    if names and own and set(own) == set(names) and tuple(own) != tuple(names):
        raise ConfigError(
            *(Setting("also"), f": {path} has the run's classes in another order: give a model "),
            "of the same classes in the same order",
        )
