"""Messages as Flower's records, and back, strictly, as the other side may be hostile.

A message is one record of values, as Flower carries each record and each array of a message by
requests of its own. Images travel compressed by zlib, candidates as bits, releases of randomised
response as one byte each. A reader checks every type, size and range before it allocates memory,
and raises :class:`RecordError` for whatever is wrong.

>>> hello = Hello(federation="f00d", shape=(1, 8, 8), num_classes=10)
>>> read_hello(hello_record(hello)) == hello
True
>>> read_hello(RecordDict())
Traceback (most recent call last):
    ...
dpsd.federated.flower.records.RecordError: the message is not one record of values
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from dpsd.errors import DpsdError
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request

#: The most bytes of memory that the images, or the releases, of one message may take.
MOST_BYTES = 1 << 28
#: The most characters of a text in a message, and the most adjacencies whose ε it states.
_LONGEST_TEXT, _MOST_COSTS = 1 << 16, 16
#: The largest whole number in a message, and the most classes.
_LARGEST, _MOST_CLASSES = 1 << 31, 1 << 15
#: The codes that a client may reply; the others are the server's notes.
_OF_CLIENTS = frozenset(set(Code) - {Code.SILENT, Code.GARBAGE})

#: The name of a message's record.
_MESSAGE = "message"
#: The values that state what was spent: adjacencies, and the ε of each.
_COSTS = ("adjacencies", "costs")
#: The types of releases.
_RELEASES: Mapping[str, np.dtype[Any]] = {
    "uint8": np.dtype("u1"),
    "int16": np.dtype("<i2"),
    "float32": np.dtype("<f4"),
}


class RecordError(DpsdError):
    """A record is not the message that it should be."""


@dataclass(frozen=True)
class _Packed:
    """An array as it travels, in three values of a message.

    Args:
        kind: the type of its numbers, and how they are packed.
        shape: its shape, which may have been stated by a side that lies.
        data: its bytes.
    """

    kind: object
    shape: object
    data: bytes

    @staticmethod
    def names(name: str) -> set[str]:
        """The names of the values of an array."""
        return {name, f"{name}.kind", f"{name}.shape"}

    def values(self, name: str) -> dict[str, Any]:
        """The values of the array in a message."""
        return {name: self.data, f"{name}.kind": self.kind, f"{name}.shape": self.shape}

    @classmethod
    def of(cls, values: Mapping[str, Any], name: str) -> _Packed:
        """Return the array that values state.

        Raises:
            RecordError: its data are no bytes.
        """
        if type(values[name]) is not bytes:
            raise RecordError("an array has no bytes")
        return cls(values[f"{name}.kind"], values[f"{name}.shape"], values[name])


def hello_record(hello: Hello) -> RecordDict:
    """Return the record of a first message to a client."""
    return _record(
        {
            "federation": hello.federation,
            "shape": list(hello.shape),
            "classes": hello.num_classes,
        }
    )


def read_hello(record: RecordDict) -> Hello:
    """Return the first message to a client that a record holds.

    Raises:
        RecordError: the record holds no such message.
    """
    values = _values(record, {"federation", "shape", "classes"})
    channels, height, width = _lengths(values["shape"], 3)
    return Hello(
        federation=_text(values["federation"]),
        shape=(channels, height, width),
        num_classes=_whole(values["classes"], 2, _MOST_CLASSES),
    )


def greeting_record(greeting: Greeting) -> RecordDict:
    """Return the record of a client's reply to the first message."""
    return _record(
        {
            "code": str(greeting.code),
            "mechanism": json.dumps(dict(greeting.mechanism), allow_nan=False),
            "left": greeting.answers_left,
            "ledger": greeting.ledger,
            **_cost_values(greeting.spent),
        }
    )


def read_greeting(record: RecordDict) -> Greeting:
    """Return the client's reply to the first message that a record holds.

    Raises:
        RecordError: the record holds no such reply.
    """
    values = _values(record, {"code", "mechanism", "left", "ledger", *_COSTS})
    return Greeting(
        code=_code(values["code"]),
        mechanism=_parameters(values["mechanism"]),
        answers_left=_whole(values["left"], 0, _LARGEST),
        spent=_spent(values),
        ledger=_text(values["ledger"]),
    )


def request_record(request: Request) -> RecordDict:
    """Return the record of a request."""
    values: dict[str, Any] = {
        "federation": request.federation,
        "number": request.number,
        "deadline": float(request.deadline),
        **_packed_images(request.images).values("images"),
    }
    if request.candidates is not None:
        values |= _packed_bits(request.candidates).values("candidates")
    return _record(values)


def read_request(record: RecordDict) -> Request:
    """Return the request that a record holds.

    Raises:
        RecordError: the record holds no request, or one of more than :data:`MOST_BYTES`.
    """
    needed = {"federation", "number", "deadline"} | _Packed.names("images")
    values = _values(record, needed, optional=_Packed.names("candidates"))
    images = _images(_Packed.of(values, "images"))
    candidates = None
    if "candidates" in values:
        candidates = _bits(_Packed.of(values, "candidates"), 2)
        if len(candidates) != len(images):
            raise RecordError("there are not as many rows of candidates as images")
        if (candidates.sum(-1) < 2).any():
            raise RecordError("an image has fewer than two candidates")
    deadline = values["deadline"]
    if type(deadline) is not float or not math.isfinite(deadline):
        raise RecordError("the deadline is no finite number")
    return Request(
        federation=_text(values["federation"]),
        number=_whole(values["number"], 1, _LARGEST),
        deadline=deadline,
        images=images,
        candidates=candidates,
    )


def reply_record(reply: Reply) -> RecordDict:
    """Return the record of a client's reply to a request.

    Raises:
        RecordError: a release is neither a class number nor a finite score.
    """
    values: dict[str, Any] = {
        "code": str(reply.code),
        "ledger": reply.ledger,
        **_cost_values(reply.spent),
    }
    if reply.release is not None and reply.answered is not None:
        values |= _packed_release(reply.release, reply.answered).values("release")
        values |= _packed_bits(reply.answered).values("answered")
    return _record(values)


def read_reply(record: RecordDict) -> Reply:
    """Return the client's reply to a request that a record holds.

    The release of an image without an answer is zero.

    Raises:
        RecordError: the record holds no such reply.
    """
    arrays = _Packed.names("release") | _Packed.names("answered")
    values = _values(record, {"code", "ledger", *_COSTS}, optional=arrays)
    code = _code(values["code"])
    release = answered = None
    if (code is Code.ANSWERED) is not ("release" in values):
        raise RecordError("a reply has releases if, and only if, it says that it answered")
    if "release" in values:
        answered = _bits(_Packed.of(values, "answered"), 1)
        release = _release(_Packed.of(values, "release"))
        if len(release) != len(answered):
            raise RecordError("there are not as many releases as marks of what was answered")
        release[~answered] = 0
    return Reply(
        code=code,
        release=release,
        answered=answered,
        spent=_spent(values),
        ledger=_text(values["ledger"]),
    )


def _record(values: Mapping[str, Any]) -> RecordDict:
    return RecordDict({_MESSAGE: ConfigRecord(dict(values))})


def _values(
    record: RecordDict, needed: Set[str], *, optional: Set[str] = frozenset()
) -> Mapping[str, Any]:
    """Return the values of a message, which has all that are needed, and all or no optional ones.

    Raises:
        RecordError: it has others, or is no message.
    """
    found: Any = record.get(_MESSAGE)
    if len(record) != 1 or not isinstance(found, ConfigRecord):
        raise RecordError("the message is not one record of values")
    if set(found) not in (needed, needed | optional):
        raise RecordError(f"the names are not {', '.join(sorted(needed))}")
    return found


def _text(value: object) -> str:
    if type(value) is not str or len(value) > _LONGEST_TEXT:
        raise RecordError("what should be a text is none, or is too long")
    return value


def _whole(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise RecordError(f"what should be a whole number from {least} to {most} is none")
    return value


def _code(value: object) -> Code:
    code = next((code for code in _OF_CLIENTS if code == value), None)
    if code is None:
        raise RecordError("the code is none that a client may reply")
    return code


def _parameters(value: object) -> Mapping[str, Any]:
    """Return the parameters of a mechanism, which are JSON without numbers that are none."""
    try:
        parameters = json.loads(_text(value), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RecordError("the mechanism's parameters are no JSON") from None
    if not isinstance(parameters, dict):
        raise RecordError("the mechanism's parameters have no names")
    return parameters


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _cost_values(spent: Mapping[str, float]) -> dict[str, Any]:
    return dict(zip(_COSTS, (list(spent), [float(cost) for cost in spent.values()]), strict=True))


def _spent(values: Mapping[str, Any]) -> dict[str, float]:
    names, costs = (values[name] for name in _COSTS)
    if not (isinstance(names, list) and isinstance(costs, list) and len(names) == len(costs)):
        raise RecordError("there are not as many costs as adjacencies")
    if len(costs) > _MOST_COSTS or len(set(names)) < len(names):
        raise RecordError(f"there are more than {_MOST_COSTS} costs, or two under one name")
    for name, cost in zip(names, costs, strict=True):
        _text(name)
        if type(cost) is not float or not cost >= 0:  # infinity is allowed, NaN is not
            raise RecordError("a cost is no number from 0")
    return dict(zip(names, costs, strict=True))


def _lengths(values: object, dimensions: int) -> tuple[int, ...]:
    """Return the lengths of so many dimensions, each from 1."""
    if not isinstance(values, list | tuple) or len(values) != dimensions:
        raise RecordError(f"the shape has not {dimensions} dimensions")
    return tuple(_whole(length, 1, _LARGEST) for length in values)


def _packed_images(images: Tensor) -> _Packed:
    return _Packed("zlib", list(images.shape), zlib.compress(images.cpu().numpy().tobytes()))


def _images(array: _Packed) -> Tensor:
    shape = _lengths(array.shape, 4)
    _check_kind(array, "zlib")
    size = math.prod(shape)
    if size > MOST_BYTES:
        raise RecordError(f"the images have more than {MOST_BYTES} bytes")
    stream = zlib.decompressobj()
    try:
        # One byte more than there may be, to find out if there are more.
        pixels = stream.decompress(array.data, size + 1)
    except zlib.error:
        raise RecordError("the images are damaged") from None
    if len(pixels) != size or not stream.eof or stream.unused_data:
        raise RecordError("there are not as many pixels as the shape says")
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).reshape(shape)


def _packed_bits(marks: Tensor) -> _Packed:
    data = np.packbits(marks.cpu().numpy(), axis=-1)
    return _Packed("bits", list(marks.shape), data.tobytes())


def _bits(array: _Packed, dimensions: int) -> Tensor:
    """Return marks, bool, of which eight are in a byte; each row begins a byte."""
    *rows, width = _lengths(array.shape, dimensions)
    _check_kind(array, "bits")
    row_bytes = -(-width // 8)
    size = math.prod(rows) * row_bytes
    if 8 * size > MOST_BYTES or len(array.data) != size:
        raise RecordError("there are not as many marks as the shape says")
    packed = np.frombuffer(array.data, np.uint8).reshape(*rows, row_bytes)
    return torch.from_numpy(np.unpackbits(packed, axis=-1, count=width).astype(bool))


def _packed_release(release: Tensor, answered: Tensor) -> _Packed:
    values = release.cpu().numpy().copy()
    values[~answered.cpu().numpy()] = 0
    if release.is_floating_point():
        values = values.astype(_RELEASES["float32"])
        if not np.isfinite(values).all():
            raise RecordError("a release is no finite number")
        return _Packed("float32", list(values.shape), values.tobytes())
    if values.size and not 0 <= values.min() <= values.max() < _MOST_CLASSES:
        raise RecordError(f"a release is no class from 0 to {_MOST_CLASSES - 1}")
    kind = "uint8" if not values.size or values.max() <= 255 else "int16"
    return _Packed(kind, list(values.shape), values.astype(_RELEASES[kind]).tobytes())


def _release(array: _Packed) -> Tensor:
    """Return releases: int64 ``(N,)`` of classes, or float32 ``(N, K)``."""
    _check_kind(array, *_RELEASES)
    kind = _RELEASES[str(array.kind)]
    is_float = kind.kind == "f"
    shape = _lengths(array.shape, 2 if is_float else 1)
    count = math.prod(shape)
    if 8 * count > MOST_BYTES or len(array.data) != count * kind.itemsize:
        raise RecordError("there are not as many releases as the shape says")
    values = np.frombuffer(array.data, kind).reshape(shape)
    if is_float:
        if not np.isfinite(values).all():
            raise RecordError("a release is no finite number")
        return torch.from_numpy(values.astype(np.float32))
    if (values < 0).any():
        raise RecordError("a release is no class")
    return torch.from_numpy(values.astype(np.int64))


def _check_kind(array: _Packed, *kinds: str) -> None:
    if array.kind not in kinds:
        raise RecordError("an array is of another type, or packed in another way")
