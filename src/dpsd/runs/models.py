"""The models of a run: its checkpoint while it is in progress, and the final models."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from dpsd.errors import RunError, reason
from dpsd.images.names import Shape
from dpsd.models import build_classifier, build_generator
from dpsd.runs.certifying import check_model
from dpsd.runs.folder import RunFolder
from dpsd.shell import command_line
from dpsd.storage.files import load_tensors, open_tensors, save_tensors


def save_checkpoint(
    run: RunFolder,
    round_index: int,
    *,
    student: nn.Module,
    generator: nn.Module,
    shares: list[float],
) -> None:
    """Store both models after a round, completely or not at all."""
    tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    save_tensors(
        _checkpoint(run),
        tensors,
        # A single entry, as safetensors writes several in an order that differs from run to run.
        metadata={"progress": json.dumps({"round": round_index, "shares": shares})},
    )


def load_checkpoint(
    run: RunFolder, *, student: nn.Module, generator: nn.Module
) -> tuple[int, list[float] | None]:
    """Restore both models, and return the number of finished rounds and the sources' shares.

    Raises:
        RunError: the checkpoint is damaged, or it belongs to other models.
    """
    path = _checkpoint(run)
    if not path.exists():
        return 0, None
    try:
        with open_tensors(path) as file:
            progress = json.loads(file.metadata()["progress"])
        _fill(path, student=student, generator=generator)
        return int(progress["round"]), progress["shares"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"checkpoint {path} cannot be read: {_first_line(error)}") from None


def load_student(run: RunFolder, module: nn.Module | None = None) -> nn.Module:
    """Load the trained student; in an unfinished run, as it was after the last finished round.

    Args:
        run: the folder of the run.
        module: the module to load the weights into, if the student was not a named model.

    Raises:
        RunError: no round is finished, or the file is damaged.
    """
    facts = run.facts()
    built = build_classifier(
        module or facts["student"],
        input_shape=_shape(run),
        num_classes=int(facts["num_classes"]),
    )
    return _filled(run, built, "student")


def load_generator(run: RunFolder, module: nn.Module | None = None) -> nn.Module:
    """Load the trained generator; arguments and errors are those of :func:`load_student`."""
    built = build_generator(module or run.facts()["generator"], input_shape=_shape(run))
    return _filled(run, built, "generator")


def _checkpoint(run: RunFolder) -> Path:
    return run.path / "checkpoint.safetensors"


def _filled(run: RunFolder, module: nn.Module, name: str) -> nn.Module:
    check_model(run, name)
    path = run.path / f"{name}.safetensors"
    if not path.exists() and not _checkpoint(run).exists():
        raise RunError(
            f"{run.path} has no {name} yet: no round is finished. Continue it with "
            + command_line("dpsd", "transcribe", "--resume", run.path)
        )
    try:
        if path.exists():
            module.load_state_dict(load_tensors(path))
        else:
            path = _checkpoint(run)
            _fill(path, **{name: module})
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
    except (SafetensorError, RuntimeError) as error:
        raise RunError(f"{path} does not fit the model: {_first_line(error)}") from None
    return module.eval()


def _fill(checkpoint: Path, **modules: nn.Module) -> None:
    tensors = load_tensors(checkpoint)
    for prefix, module in modules.items():
        own = {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{prefix}.")
        }
        module.load_state_dict(own)


def _shape(run: RunFolder) -> Shape:
    channels, height, width = run.facts()["input_shape"]
    return int(channels), int(height), int(width)


def _first_line(error: Exception) -> str:
    return reason(error).splitlines()[0]
