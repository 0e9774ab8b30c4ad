"""Teachers that are exported programs, ``.pt2``: graph and weights in a file, without Python code.

>>> import tempfile
>>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
>>> program = torch.export.export(module, (torch.zeros(4, 1, 8, 8),))
>>> with tempfile.TemporaryDirectory() as folder:
...     torch.export.save(program, f"{folder}/teacher.pt2")
...     teacher = ExportedTeacher(f"{folder}/teacher.pt2")
>>> teacher.input_shape, teacher.num_classes
((1, 8, 8), 3)
>>> teacher.ask(torch.rand(10, 1, 8, 8), query_batch=0)
RawAnswers(shape=(10, 3))
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from dpsd.errors import Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.archive import read_archive
from dpsd.teachers.base import (
    DeclaredScores,
    Normalization,
    Precision,
    Teacher,
    agree,
)
from dpsd.teachers.batches import in_batches
from dpsd.teachers.calling import Calling
from dpsd.teachers.class_names import found_class_names
from dpsd.teachers.module import checked_device
from dpsd.teachers.stated import stated_shape

#: The extra file in which dpsd's own exports describe themselves.
DESCRIPTION_FILE = "dpsd.json"

_LARGEST_BATCH = 1 << 16  # a larger bound counts as none


class ExportedTeacher(Teacher):
    """A teacher that is a program written by ``torch.export.save``.

    The program has one image input, and one output of scores or several of which one is named. A
    fixed or a largest batch size is fine, as batches are split and padded to it.

    Args:
        path: the path of the ``.pt2`` file.
        input_shape: the shape of an image; if given, it must be what the program takes.
        num_classes: the number of classes; if given, it must be what the program returns.
        scores: ``"logits"``, ``"probabilities"`` or ``"auto"``.
        normalization: ``(means, deviations)`` applied to the images first.
        device: the device that the program runs on.
        precision: the precision; ``"bfloat16"`` uses autocast.
        calling: what the program is handed, and where its scores are.

    Raises:
        TeacherError: the file is missing, damaged, could run code, or is not a classifier.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        input_shape: Shape | None = None,
        num_classes: int | None = None,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        calling: Calling | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise TeacherError(f"there is no file {path}: check the path")
        self._device = checked_device(device)
        self._precision = precision
        archive = read_archive(path.read_bytes(), where=str(path))
        program = load_program(archive.content, self._device, path)
        calling = calling or Calling()
        image, classes = _the_input_and_classes(program, path, calling)
        batch, *sizes = image.shape
        if not all(isinstance(size, int) for size in sizes):
            raise TeacherError(
                f"{path} takes images of varying shape: export it with only the batch dynamic"
            )
        calling, found = stated_shape(
            sizes, calling, declared=input_shape, is_whole=image.dtype == torch.uint8, path=path
        )
        agree("num_classes", num_classes, classes, where=str(path))
        self._batch = _largest_batch(batch, program)
        self._dtype = image.dtype
        self._module = program.module()
        super().__init__(
            input_shape=found,
            num_classes=num_classes,
            fingerprint=archive.fingerprint,
            description=f"exported program {path.name}",
            scores=scores,
            normalization=normalization,
            calling=calling,
        )
        self.class_names = found_class_names(
            _stated(archive.extra.get(DESCRIPTION_FILE, b""), "class_names"),
            num_classes=self.num_classes,
        )

    def _scores(self, images: Tensor) -> object:
        is_cast = self._precision == "bfloat16" and self._dtype is torch.float32
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_cast):
            images = images.to(self._device, self._dtype).contiguous()
            return in_batches(self._run, images, size=self._batch, shape=self.input_shape)

    def _run(self, images: Tensor) -> object:
        return self.calling.scores(self._module(images))


def _stated(content: bytes, name: str) -> object:
    """Return what a program's description says about something; ``None`` if it says nothing."""
    try:
        described = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return described.get(name) if isinstance(described, dict) else None


def load_program(content: bytes, device: torch.device, path: Path) -> ExportedProgram:
    """Load a program from the content of a checked archive, and move it to a device.

    Raises:
        TeacherError: this torch cannot load it.
    """
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.ERROR)  # torch logs a whole traceback before it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(content))
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            return program
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(
            f"{path} cannot be loaded by torch {torch.__version__}: {type(error).__name__}: "
            f"{reason}. Export it again, with a torch no newer than this one"
        ) from error
    finally:
        log.setLevel(level)


def _the_input_and_classes(
    program: ExportedProgram, path: Path, calling: Calling
) -> tuple[Tensor, int | None]:
    """Return the example of the image input, with symbolic sizes, and the number of classes."""
    signature = program.graph_signature
    examples = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs, outputs = list(signature.user_inputs), list(signature.user_outputs)
    if len(inputs) != 1:
        raise TeacherError(
            f"{path} has inputs {_listed(inputs, examples)}; a teacher has one: export one that "
            "takes images alone"
        )
    if len(outputs) != 1 and calling.output is None:
        raise TeacherError(
            f"{path} has outputs {_listed(outputs, examples)}: name the scores by their key, or ",
            *(f"by their place (0 to {len(outputs) - 1}), with ", Setting("output")),
        )
    image = examples.get(str(inputs[0]))
    is_numeric = isinstance(image, Tensor) and (
        image.is_floating_point() or image.dtype == torch.uint8
    )
    if not isinstance(image, Tensor) or not is_numeric or image.ndim not in (2, 4):
        raise TeacherError(
            f"{path} takes {_listed(inputs, examples)}; a teacher takes images (N, C, H, W) of a "
            "floating-point type or uint8, or flattened ones"
        )
    scores = examples.get(str(outputs[0])) if len(outputs) == 1 else None
    if not isinstance(scores, Tensor) or scores.ndim < 2 or not isinstance(scores.shape[1], int):
        return image, None
    return image, scores.shape[1] if scores.shape[1] > 1 else None


def _listed(names: list[Any], examples: dict[str, Any]) -> str:
    shapes = ((name, examples.get(str(name))) for name in names)
    return ", ".join(
        f"{name}{tuple(map(str, value.shape))}" if isinstance(value, Tensor) else str(name)
        for name, value in shapes
    )


def _largest_batch(batch: int | torch.SymInt, program: ExportedProgram) -> int | None:
    if isinstance(batch, int):
        return batch
    bounds = program.range_constraints.get(batch.node.expr)
    if bounds is None or not bounds.upper.is_finite or bounds.upper > _LARGEST_BATCH:
        return None
    return int(bounds.upper)
