"""The models of a run: its checkpoint while it is in progress, and the final models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from dpsd.errors import RunError, reason
from dpsd.images.names import Shape
from dpsd.models import build_classifier, build_generator
from dpsd.runs.certifying import check_model
from dpsd.runs.folder import RunFolder
from dpsd.storage.files import load_tensors, open_tensors, save_tensors


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, apart from its models.

    Args:
        round_index: the number of the last finished round.
        shares: the shares of the public sources; ``None`` before the first round.
        choice: what is known of the student that does best on the probe; empty without a probe.
        best: that student's weights, and the classes that it predicts for the probe.
    """

    round_index: int = 0
    shares: list[float] | None = None
    choice: Mapping[str, int] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    run: RunFolder, progress: Progress, *, student: nn.Module, generator: nn.Module
) -> None:
    """Store both models after a round, and the run's progress, completely or not at all."""
    tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    stated: dict[str, Any] = {"round": progress.round_index, "shares": progress.shares}
    if progress.choice:
        stated |= {"choice": dict(progress.choice)}
    save_tensors(
        _checkpoint(run),
        tensors,
        # A single entry, as safetensors writes several in an order that differs from run to run.
        metadata={"progress": json.dumps(stated)},
    )


def load_checkpoint(run: RunFolder, *, student: nn.Module, generator: nn.Module) -> Progress:
    """Restore both models, and return the run's progress.

    Raises:
        RunError: the checkpoint is damaged, or it belongs to other models.
    """
    path = _checkpoint(run)
    if not path.exists():
        return Progress()
    try:
        with open_tensors(path) as file:
            stated = json.loads(file.metadata()["progress"])
        _fill(path, student=student, generator=generator)
        choice = dict(stated["choice"]) if "choice" in stated else {}
        return Progress(
            round_index=int(stated["round"]),
            shares=stated["shares"],
            choice={name: int(value) for name, value in choice.items()},
            best=_part(load_tensors(path), "best") if choice else {},
        )
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
    facts, features = run.facts(), run.features()
    built = build_classifier(
        module or facts["student"],
        input_shape=_shape(run),
        num_classes=int(facts["num_classes"]),
        features=None if features is None else features.module,
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
            f"{run.path} has no {name} yet: no round is finished. Continue it with {run.resuming}"
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
        module.load_state_dict(_part(tensors, prefix))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _shape(run: RunFolder) -> Shape:
    channels, height, width = run.facts()["input_shape"]
    return int(channels), int(height), int(width)


def _first_line(error: Exception) -> str:
    return reason(error).splitlines()[0]
