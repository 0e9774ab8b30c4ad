"""The Open Inference Protocol's tensors: what a model takes and returns, requests and answers.

KServe, Triton, MLServer and OpenVINO Model Server speak version 2 of the protocol. Tensors travel
as JSON numbers, or as bytes behind the JSON where the server has the extension for binary tensors.

>>> import numpy as np
>>> metadata = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}],
...             "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]}
>>> model = read_interface(metadata, where="https://models.example/v2/models/digits")
>>> model.image.dimensions, model.num_classes
((1, 2, 2), 3)
>>> body, headers = encode(np.zeros((1, 1, 2, 2)), model, binary=False)
>>> body
b'{"inputs":[{"name":"image","shape":[1,1,2,2],"datatype":"FP32","data":[0.0,0.0,0.0,0.0]}],...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpsd.errors import Setting, TeacherError
from dpsd.privacy.answers import AnswerCheckError
from dpsd.teachers.failures import Kind, RequestFailure

Array: TypeAlias = NDArray[Any]

#: The header with the length of the JSON in front of binary tensors.
JSON_LENGTH = "Inference-Header-Content-Length"

#: The name of the extension for binary tensors in a server's description of itself.
BINARY = "binary_tensor_data"

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_IMAGES = {**_FLOATS, "UINT8": "u1"}

#: The most bytes of an answer for each score that is expected, and for everything else in it.
_SCORE_BYTES, _OTHER_BYTES = 64, 1 << 20
_MOST_CLASSES = 10_000  # while their number is not known


@dataclass(frozen=True)
class TensorDescription:
    """What a model says about one of its inputs or outputs.

    Attributes:
        name: the name.
        datatype: the type of its numbers, such as ``"FP32"``.
        shape: the sizes with the batch first; -1 is any. ``None`` if the model does not say.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    @property
    def batch(self) -> int | None:
        """The only number of images that a request may have; ``None`` if any may."""
        return self.shape[0] if self.shape and self.shape[0] > 0 else None

    @property
    def dimensions(self) -> tuple[int, ...] | None:
        """The sizes of one image or of one row of scores; ``None`` if the model does not say."""
        return None if self.shape is None else self.shape[1:]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype}{list(self.shape or ())}"


@dataclass(frozen=True)
class ModelInterface:
    """What a model takes and returns.

    Attributes:
        image: the input.
        scores: the output with the scores; ``None`` if the model does not list its outputs, and
            then its answers must have only one.
    """

    image: TensorDescription
    scores: TensorDescription | None

    @property
    def num_classes(self) -> int | None:
        """The number of classes, if the model says it."""
        dimensions = self.scores.dimensions if self.scores else None
        return dimensions[-1] if dimensions and dimensions[-1] > 0 else None


def read_interface(
    metadata: Mapping[str, Any], *, where: str, output: str | None = None
) -> ModelInterface:
    """Read a model's description of itself.

    Args:
        metadata: the description, from JSON.
        where: the address of the model, for messages.
        output: the name of the output with the scores; needed only if several could be.

    Raises:
        TeacherError: the description is damaged, or the model takes or returns something else than
            images and scores.
    """
    inputs = _described(metadata.get("inputs"), where)
    outputs = _described(metadata.get("outputs"), where)
    # Some servers describe a model only if its settings do; they take an input of any name.
    image = inputs[0] if inputs else TensorDescription("image", "FP32", None)
    if len(inputs) > 1:
        raise TeacherError(
            f"{where} has {len(inputs)} inputs, a teacher has one: {_listed(inputs)}"
        )
    if image.datatype not in _IMAGES or (image.shape is not None and len(image.shape) < 2):
        raise TeacherError(
            f"{where} takes {image}; a teacher takes images (N, C, H, W) of {', '.join(_IMAGES)}"
        )
    return ModelInterface(image, _the_scores(outputs, output, where))


def _the_scores(
    outputs: list[TensorDescription], chosen: str | None, where: str
) -> TensorDescription | None:
    if chosen is not None:
        named = [one for one in outputs if one.name == chosen]
        if outputs and not named:
            raise TeacherError(
                Setting("output"), f" {chosen!r} is none of {where}, which has {_listed(outputs)}"
            )
        return named[0] if named else TensorDescription(chosen, "FP32", None)
    able = [one for one in outputs if one.datatype in _FLOATS and len(one.shape or ()) == 2]
    if outputs and len(able) != 1:
        raise TeacherError(
            f"{where} has {len(able)} outputs that could be class scores (N, K), a teacher has "
            f"one: {_listed(outputs)}; name it with ",
            Setting("output"),
        )
    return able[0] if able else None


def _described(tensors: Any, where: str) -> list[TensorDescription]:
    try:
        return [
            TensorDescription(
                str(one["name"]), str(one["datatype"]), tuple(int(size) for size in one["shape"])
            )
            for one in tensors or []
        ]
    except (TypeError, KeyError, ValueError, OverflowError):
        raise TeacherError(
            f"{where} describes its inputs and outputs in another form than version 2 of the Open "
            "Inference Protocol: is it the address of a model?"
        ) from None


def encode(array: Array, model: ModelInterface, *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request.

    Args:
        array: images in the model's layout, ``(N, …)``, as numbers that its type can hold.
        model: what the model takes and returns.
        binary: whether to send bytes, and to ask for bytes.
    """
    image = model.image
    values = np.ascontiguousarray(array, dtype=_IMAGES[image.datatype])
    tensor: dict[str, Any] = {
        "name": image.name,
        "shape": list(values.shape),
        "datatype": image.datatype,
    }
    content: dict[str, Any] = {"inputs": [tensor]}
    if model.scores is not None:
        wanted: dict[str, Any] = {"name": model.scores.name}
        content["outputs"] = [wanted | ({"parameters": {"binary_data": True}} if binary else {})]
    elif binary:
        content["parameters"] = {"binary_data_output": True}
    if not binary:
        tensor["data"] = values.ravel().tolist()
        return _json(content), {"Content-Type": "application/json"}
    tensor["parameters"] = {"binary_data_size": values.nbytes}
    head = _json(content)
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return head + values.tobytes(), headers


def most_bytes(rows: int, num_classes: int | None) -> int:
    """Return the most bytes that an answer about so many images can honestly have."""
    return _OTHER_BYTES + rows * (num_classes or _MOST_CLASSES) * _SCORE_BYTES


def decode(
    body: bytes,
    headers: Mapping[str, str],
    *,
    model: ModelInterface,
    rows: int,
    version: str | None,
) -> tuple[NDArray[np.float32], str | None]:
    """Return the scores in an answer, ``(rows, K)``, and the version that answered, if it says so.

    Args:
        body: the body of the answer.
        headers: the headers of the answer.
        model: what the model takes and returns.
        rows: the number of images that were asked about.
        version: the version of the model that must have answered, if it is known.

    Raises:
        RequestFailure: the answer is cut off, of another form, or another version's.
        AnswerCheckError: the answer is about another number of images.
    """
    try:
        content, length = _head(body, headers)
        datatype, shape, values = _output(content, body[length:], model)
        scores = values.reshape(shape)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        # What went wrong may quote the answer, so it is kept for public images.
        reason = f" ({type(error).__name__}: {error})"
        raise RequestFailure(
            Kind.MALFORMED, f"answered in another form than the protocol's{reason}"
        ) from None
    if datatype not in _FLOATS:
        raise RequestFailure(
            Kind.MALFORMED,
            f"answered with {datatype}, which are no scores; name another output with ",
            Setting("output"),
        )
    answered = str(content.get("model_version") or "") or None
    if version is not None and answered not in (None, version):
        raise RequestFailure(
            Kind.CHANGED, f"answered as version {answered!r} of the model, not {version!r}"
        )
    if scores.ndim != 2 or len(scores) != rows:
        # Checked for each request, as two that are off by one would add up.
        raise AnswerCheckError(
            f"another shape than ({rows}, number of classes) to a request",
            seen=f"shape {scores.shape} instead of ({rows}, number of classes)",
        )
    return scores.astype(np.float32), answered


def _head(body: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Return the JSON in an answer, and its length."""
    length = int(headers.get(JSON_LENGTH) or len(body))
    if not 0 < length <= len(body):
        raise ValueError("cut off")
    content = json.loads(body[:length])
    if not isinstance(content, dict):
        raise TypeError("no object")
    return content, length


def _output(
    content: Mapping[str, Any], data: bytes, model: ModelInterface
) -> tuple[str, tuple[int, ...], Array]:
    """Return the type, the shape and the values, in a row, of the output with the scores."""
    found, at = [], 0
    for one in content["outputs"]:
        raw = None
        if (stated := (one.get("parameters") or {}).get("binary_data_size")) is not None:
            size = int(stated)
            raw = data[at : at + size]
            if size < 0 or len(raw) != size:
                raise ValueError("cut off")
            at += size
        if model.scores is None or one["name"] == model.scores.name:
            found.append((one, raw))
    if at != len(data):
        raise ValueError("more bytes than stated")
    if len(found) != 1:
        raise ValueError(f"{len(found)} outputs with scores")
    ((one, raw),) = found
    datatype, shape = str(one["datatype"]), tuple(int(size) for size in one["shape"])
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    if datatype not in _FLOATS:
        return datatype, (0,), np.empty(0)
    if raw is not None:
        return datatype, shape, np.frombuffer(raw, dtype=_FLOATS[datatype])
    values = np.asarray(one["data"])
    if values.dtype.kind not in "fiu":
        raise TypeError("no numbers")
    return datatype, shape, values.ravel()


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _listed(tensors: list[TensorDescription]) -> str:
    return ", ".join(map(str, tensors))
