"""Exporting the student to formats that other software reads.

- ``onnx``: a graph from images ``(N, C, H, W)`` in [0, 1] to logits, for ONNX Runtime and others.
- ``pt2``: a ``torch.export`` program from the same images to logits.
- ``safetensors``: the weights, with a ``.json`` file beside them that describes them.
- ``hf``: a folder as the Hugging Face Hub has them, see :mod:`dpsd.results.hub`.

Every file states the names of the classes and the hash of the run's certificate, if there are any:
ONNX in ``metadata_props``, a program in the extra file ``dpsd.json``, safetensors in its header.
Graphs and programs are read back and compared with the student before they are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dpsd.errors import ConfigError, RunError, Setting, unwritable
from dpsd.results.conversion import converted
from dpsd.results.destinations import Destination
from dpsd.runs.directory import RunDirectory
from dpsd.storage.files import Column, file_hash, replacing, stream_tensors, write_text


def export_student(
    run: RunDirectory,
    to: str | Path,
    *,
    student: nn.Module | None = None,
    evaluations: Iterable[str | Path] = (),
) -> list[Path]:
    """Write a run's student.

    Args:
        run: a run with at least one finished round; for ``hf:FOLDER``, a finished run.
        to: a path that ends in ``.onnx``, ``.pt2`` or ``.safetensors``; one of these formats alone,
            for a file called ``student`` in the current folder; or ``hf:FOLDER``. Existing files
            are replaced.
        student: the module to load the weights into, if the run's student was not a named model.
        evaluations: files that ``dpsd evaluate --json`` wrote about this student, which the model
            card of ``hf:FOLDER`` then publishes.

    Returns:
        The files that were written.

    Raises:
        ConfigError: the format is unknown, an extra is not installed, or an evaluation is not about
            this student.
        RunError: no round is finished, the student cannot be expressed in that format, or the
            disk is full.
    """
    destination = Destination.of(to)
    path, measured = destination.path, [Path(file) for file in evaluations]
    if measured and destination.format != "hf":
        raise ConfigError(
            Setting("evaluation"), " is for the model card that hf:FOLDER has: leave it out"
        )
    module = run.student(student).float().eval()
    try:
        (path if destination.format == "hf" else path.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{path} cannot be created", mend="give another place", kind=RunError
        ) from None
    if destination.format == "hf":
        from dpsd.results.hub import write_hub_folder

        write_hub_folder(run, module, path, evaluations=measured)
    elif destination.format == "safetensors":
        write_weights(run, module, path)
        write_text(path.with_suffix(".json"), json.dumps(description(run), indent=2) + "\n")
    else:
        write_converted(run, module, path)
    return list(destination.files)


def description(run: RunDirectory) -> dict[str, Any]:
    """Return what every exported file states about its student, in JSON types."""
    facts = run.facts()
    stated = {name: facts[name] for name in ("student", "input_shape", "num_classes")}
    stated |= {"input": "float images in [0, 1]", "output": "logits", "run": run.identity}
    if (features := facts.get("features", {}).get("student")) is not None:
        stated["features"] = features
    if (names := run.class_names()) is not None:
        stated["class_names"] = list(names)
    certificate = run.path / "certificate.json"
    if run.is_finished() and certificate.is_file():
        stated["certificate_sha256"] = file_hash(certificate).removeprefix("sha256:")
    return stated


def write_converted(run: RunDirectory, module: nn.Module, path: Path) -> None:
    """Write a student as a graph or a program, which the suffix of the path decides."""
    shape = tuple(run.facts()["input_shape"])
    content = converted(module, shape, description(run), path)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_weights(run: RunDirectory, module: nn.Module, path: Path) -> None:
    """Write a student's weights, with its description as ``dpsd`` in the header."""
    columns = {name: Column.of(tensor) for name, tensor in module.state_dict().items()}
    stream_tensors(path, columns, metadata=_header(description(run)))


def _header(stated: Mapping[str, Any]) -> dict[str, str]:
    # Other software looks for the format, and takes text only.
    return {"format": "pt", "dpsd": json.dumps(stated, ensure_ascii=False)}
