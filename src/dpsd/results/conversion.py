"""Converting a student to a program or a graph that other software runs.

What was converted is read back and compared with the student, so that a file whose answers differ
is never written.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpsd.errors import ConfigError, RunError
from dpsd.extras import how_to_install
from dpsd.teachers.exported import DESCRIPTION_FILE

#: The most that logits may differ from the student's own, relatively and absolutely.
TOLERANCE = 1e-4

Reread = Callable[[Tensor], Tensor]


def converted(
    module: nn.Module, shape: tuple[int, ...], description: Mapping[str, Any], path: Path
) -> bytes:
    """Return a student as the content of an ``.onnx`` or ``.pt2`` file.

    Args:
        module: the student, in eval mode and float32.
        shape: the shape of an image, ``(C, H, W)``.
        description: facts about the student, in JSON types, which the file states as well.
        path: the path that the file will have, whose suffix names the format.

    Raises:
        ConfigError: an extra is not installed.
        RunError: the student cannot be expressed in that format, or would answer otherwise.
    """
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    convert = _to_onnx if path.suffix == ".onnx" else _to_program
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content, reread = convert(module, example, description)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - exporters raise anything at what they cannot express
        raise RunError(
            f"{type(module).__name__} cannot be exported to {path.suffix}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    _compare(module, reread, shape, path)
    return content


def _to_program(
    module: nn.Module, example: Tensor, description: Mapping[str, Any]
) -> tuple[bytes, Reread]:
    program = torch.export.export(module, (example,), dynamic_shapes=_any_batch())
    buffer = io.BytesIO()
    said = json.dumps(description, ensure_ascii=False)
    torch.export.save(program, buffer, extra_files={DESCRIPTION_FILE: said})
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _to_onnx(
    module: nn.Module, example: Tensor, description: Mapping[str, Any]
) -> tuple[bytes, Reread]:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigError(f"ONNX needs {needed}: {how_to_install('onnx')}")
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
    model = program.model_proto
    for name, value in description.items():
        # The format takes text only.
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=name, value=text)
    content: bytes = model.SerializeToString()
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
