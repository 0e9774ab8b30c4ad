"""Exporting the student to formats that other software reads.

- ``.onnx``: a graph from images ``(N, C, H, W)`` in [0, 1] to logits, for ONNX Runtime and others.
- ``.pt2``: a ``torch.export`` program from the same images to logits.
- ``.safetensors``: the weights, with a ``.json`` file beside them that describes them.

Graphs and programs are read back and compared with the student before they are written.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from dpsd.errors import ConfigError, RunError, unwritable
from dpsd.runs.directory import RunDirectory
from dpsd.storage.files import replacing, write_text

#: The most that logits may differ from the student's own, relatively and absolutely.
TOLERANCE = 1e-3
_FORMATS = (".onnx", ".pt2", ".safetensors")


def exported_paths(path: Path) -> list[Path]:
    """Return the files that an export writes.

    Raises:
        ConfigError: the suffix does not stand for a format.

    >>> [path.name for path in exported_paths(Path("out/student.safetensors"))]
    ['student.safetensors', 'student.json']
    """
    if path.suffix not in _FORMATS:
        raise ConfigError(
            f"{path} does not name a format: the student is exported to {', '.join(_FORMATS)}"
        )
    return [path, path.with_suffix(".json")] if path.suffix == ".safetensors" else [path]


def export_student(run: RunDirectory, path: Path, *, student: nn.Module | None = None) -> None:
    """Write a run's student to ``path``, in the format that its suffix names.

    Args:
        run: a run with at least one finished round.
        path: a path that ends in ``.onnx``, ``.pt2`` or ``.safetensors``; an existing file is
            replaced.
        student: the module to load the weights into, if the run's student was not a named model.

    Raises:
        ConfigError: the suffix is unknown, or an extra is not installed.
        RunError: no round is finished, the student cannot be expressed in that format, or the
            disk is full.
    """
    exported_paths(path)
    module = run.student(student).float().eval()
    facts = run.facts()
    example = torch.rand(2, *facts["input_shape"], generator=torch.Generator().manual_seed(0))
    if path.suffix == ".safetensors":
        content = encode_tensors(module.state_dict(), metadata={"format": "pt"})
        described = {name: facts[name] for name in ("student", "input_shape", "num_classes")}
        described |= {"input": "float images in [0, 1]", "output": "logits"}
    else:
        convert = _to_onnx if path.suffix == ".onnx" else _to_program
        content, reread = _converted(convert, module, example, path)
        _compare(module, reread, tuple(facts["input_shape"]), path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{path.parent} cannot be created", mend="give another place", kind=RunError
        ) from None
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    if path.suffix == ".safetensors":
        write_text(path.with_suffix(".json"), json.dumps(described, indent=2) + "\n")


Reread = Callable[[Tensor], Tensor]


def _converted(
    convert: Callable[[nn.Module, Tensor], tuple[bytes, Reread]],
    module: nn.Module,
    example: Tensor,
    path: Path,
) -> tuple[bytes, Reread]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return convert(module, example)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - exporters raise anything at what they cannot express
        raise RunError(
            f"{type(module).__name__} cannot be exported to {path.suffix}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None


def _to_program(module: nn.Module, example: Tensor) -> tuple[bytes, Reread]:
    program = torch.export.export(module, (example,), dynamic_shapes=_any_batch())
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _to_onnx(module: nn.Module, example: Tensor) -> tuple[bytes, Reread]:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigError(f"ONNX needs {needed}: pip install 'dpsd[onnx]'")
    import onnxruntime

    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # torch warns of missing libraries that are not needed
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=_any_batch(),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    finally:
        log.setLevel(level)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def reread(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)

    return content, reread


def _any_batch() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim("batch")},)


def _compare(module: nn.Module, reread: Reread, shape: tuple[int, ...], path: Path) -> None:
    """Refuse a file whose answers differ from the student's, for batches of several sizes."""
    random = torch.Generator().manual_seed(1)
    for size in (1, 2, 7):
        images = torch.rand(size, *shape, generator=random)
        with torch.inference_mode():
            expected, found = module(images), reread(images)
        if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            worst = float((found - expected).abs().max())
            raise RunError(
                f"{path} was not written: its answers would differ from the student's (logits "
                f"differ by up to {worst:.2g} for a batch of {size})"
            )
