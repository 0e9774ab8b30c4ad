"""Teachers that are ONNX files, run by ONNX Runtime on the CPU; needs the extra ``onnx``.

A file written by, for example, ``torch.onnx.export(module, images, "teacher.onnx")`` needs no other
arguments, as it states its own image shape.

>>> OnnxTeacher("nowhere.onnx")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: there is no file nowhere.onnx: check the path
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from dpsd.errors import Setting, TeacherError
from dpsd.extras import how_to_install
from dpsd.images.names import Shape
from dpsd.teachers.base import (
    DeclaredScores,
    Normalization,
    Teacher,
    agree,
)
from dpsd.teachers.batches import in_batches
from dpsd.teachers.calling import Calling
from dpsd.teachers.class_names import found_class_names
from dpsd.teachers.fingerprint import fingerprint_files
from dpsd.teachers.stated import stated_shape

_FLOATS = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
}
_INPUTS = {**_FLOATS, "tensor(uint8)": torch.uint8}


class OnnxTeacher(Teacher):
    """A teacher that is a classifier in ONNX.

    The graph has one input of images ``(N, C, H, W)``, of another declared layout, or flattened as
    scikit-learn's, and an output of scores. A fixed batch dimension is fine, as batches are split
    and padded to it. External data must lie in the model's own folder.

    Args:
        path: the path of the ``.onnx`` file.
        input_shape: the shape of an image, ``(C, H, W)``; needed only if the graph leaves one of
            the three open.
        num_classes: the number of classes; if given, it must be what the graph says.
        scores: ``"logits"``, ``"probabilities"`` or ``"auto"``.
        normalization: ``(means, deviations)`` applied to the images first.
        calling: what the graph is handed, and which of its outputs holds the scores.

    Raises:
        TeacherError: the file is missing, damaged, reaches outside its folder, or is not a
            classifier, or ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        input_shape: Shape | None = None,
        num_classes: int | None = None,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        calling: Calling | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise TeacherError(f"there is no file {path}: check the path")
        # Locations are checked before the runtime, which would follow them, sees the file.
        data_files = external_data_files(path)
        self._session = open_session(path)
        calling = calling or Calling()
        self._input = _the_input(self._session, path)
        self._output = _the_output(self._session, calling.output, path)
        batch, *image = self._input.shape
        self._batch = batch if isinstance(batch, int) and batch > 0 else None
        self._dtype = _INPUTS[self._input.type]
        is_whole = self._dtype == torch.uint8
        calling, shape = stated_shape(
            image, calling, declared=input_shape, is_whole=is_whole, path=path
        )
        classes = self._output.shape[1]
        if not isinstance(classes, int) or classes < 2:
            classes = None
        agree("num_classes", num_classes, classes, where=str(path))
        super().__init__(
            input_shape=shape,
            num_classes=num_classes,
            fingerprint=fingerprint_files([path, *data_files]),
            description=f"onnx {path.name}",
            scores=scores,
            normalization=normalization,
            calling=calling,
        )
        self.class_names = found_class_names(
            _stated_names(self._session), num_classes=self.num_classes
        )

    def attempts(self) -> Iterator[Calling]:
        yield self.declared
        if self._batch is None:
            # Some graphs say that the batch is open while a Reshape inside them holds one image.
            self._batch = 1
            yield self.declared

    def _scores(self, images: Tensor) -> object:
        return in_batches(self._run, images, size=self._batch, shape=self.input_shape)

    def _run(self, images: Tensor) -> object:
        array = images.to("cpu", self._dtype).contiguous().numpy()
        (scores,) = self._session.run([self._output.name], {self._input.name: array})
        # The output was chosen by its name before the runtime computed it.
        return replace(self.calling, output=None).scores(scores)


def _stated_names(session: Any) -> object:
    """Return what the model's metadata says about ``class_names``; ``None`` if it says nothing."""
    try:
        return json.loads(session.get_modelmeta().custom_metadata_map.get("class_names", "null"))
    except (ValueError, RecursionError):
        return None


def external_data_files(path: Path) -> list[Path]:
    """Return the files that hold the model's weights, checked to lie in the model's folder."""
    try:
        import onnx
    except ImportError:
        raise _missing_extra(path) from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf and onnx each have their own kinds
        raise TeacherError(
            f"{path} is damaged, cut off or not an ONNX file ({type(error).__name__}): export it "
            "again"
        ) from None
    folder = path.parent.resolve()
    files: dict[str, Path] = {}
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
        absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
        file = folder / location
        if not location or absolute or ".." in parts or not _is_inside(file, folder):
            raise TeacherError(
                f"{path} keeps weights in {location!r}, outside its own folder: it will not be "
                "followed. Export the model with its weights inside or beside it"
            )
        if not file.is_file():
            raise TeacherError(
                f"{path} keeps weights in {location!r}, which is missing: copy it along"
            )
        files[location] = file
    return [files[location] for location in sorted(files)]


def _is_inside(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder)  # resolved: a link may lead elsewhere


def _tensors(message: Any, tensor_type: type) -> Iterator[Any]:
    """Yield every tensor in a model, be it in initialisers, attributes, subgraphs or functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if hasattr(value, "add") else [value]:
            if isinstance(item, tensor_type):
                yield item
            else:
                yield from _tensors(item, tensor_type)


def open_session(path: Path) -> Any:
    """Open a file whose external data was checked in ONNX Runtime.

    Raises:
        TeacherError: ONNX Runtime is not installed, or cannot run the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise _missing_extra(path) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; a log line could quote a value
    try:
        return onnxruntime.InferenceSession(
            str(path),
            sess_options=options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # the fallback would try the same provider again, and print so
        )
    except Exception as error:  # noqa: BLE001 - the runtime has a dozen kinds of its own
        reason = " ".join(str(error).split())
        raise TeacherError(f"{path} cannot be run by ONNX Runtime: {reason}") from None


def _the_input(session: Any, path: Path) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise TeacherError(
            f"{path} has {len(inputs)} inputs, a teacher has one: {_listed(inputs)}. Export it so "
            "that it takes images alone"
        )
    (image,) = inputs
    if image.type not in _INPUTS or len(image.shape) not in (2, 4):
        raise TeacherError(
            f"{path} takes {_listed(inputs)}; a teacher takes images (N, C, H, W) of a "
            "floating-point type or uint8, or flattened ones"
        )
    return image


def _the_output(session: Any, name: str | None, path: Path) -> Any:
    outputs = session.get_outputs()
    if name is not None:
        found = [out for out in outputs if out.name == name]
        if not found:
            raise TeacherError(
                f"{path} has no ", Setting("output"), f" {name!r}, but {_listed(outputs)}"
            )
        return found[0]
    scores = [out for out in outputs if out.type in _FLOATS and len(out.shape) in (2, 4)]
    if len(scores) == 1:
        return scores[0]
    if any("map" in out.type for out in outputs):
        raise TeacherError(
            f"{path} answers with {_listed(outputs)}: export it with its probabilities as a tensor "
            "(skl2onnx: options={'zipmap': False})"
        )
    raise TeacherError(
        f"{path} has {len(scores)} outputs that could be class scores (N, K), a teacher has one: "
        f"{_listed(outputs)}. Name it with ",
        Setting("output"),
    )


def _listed(arguments: list[Any]) -> str:
    return ", ".join(f"{a.name} {a.type}{list(a.shape)}" for a in arguments)


def _missing_extra(path: Path) -> TeacherError:
    return TeacherError(f"{path} needs ONNX Runtime: {how_to_install('onnx')}")
