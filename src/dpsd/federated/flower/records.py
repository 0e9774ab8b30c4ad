"""Messages as Flower's records, and back, strictly, as the other side may be hostile.

Images travel compressed by zlib, candidates as bits, releases of randomised response as one byte
each. A reader checks every type, size and range before it allocates memory, and raises
:class:`RecordError` for whatever is wrong.

>>> hello = Hello(federation="f00d", shape=(1, 8, 8), num_classes=10)
>>> read_hello(hello_record(hello)) == hello
True
>>> read_hello(RecordDict())
Traceback (most recent call last):
    ...
dpsd.federated.flower.records.RecordError: the message has no record of its values
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
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

#: How the bytes of an array are packed.
_ZLIB, _BITS, _PLAIN = "dpsd/zlib", "dpsd/bits", "dpsd/plain"


class RecordError(DpsdError):
    """A record is not the message that it should be."""


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
    values, _, _ = _parts(record, {"federation", "shape", "classes"})
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
        },
        costs=greeting.spent,
    )


def read_greeting(record: RecordDict) -> Greeting:
    """Return the client's reply to the first message that a record holds.

    Raises:
        RecordError: the record holds no such reply.
    """
    values, costs, _ = _parts(record, {"code", "mechanism", "left", "ledger"})
    return Greeting(
        code=_code(values["code"]),
        mechanism=_parameters(values["mechanism"]),
        answers_left=_whole(values["left"], 0, _LARGEST),
        spent=_spent(costs),
        ledger=_text(values["ledger"]),
    )


def request_record(request: Request) -> RecordDict:
    """Return the record of a request."""
    arrays = {"images": _packed_images(request.images)}
    if request.candidates is not None:
        arrays["candidates"] = _packed_bits(request.candidates)
    values = {
        "federation": request.federation,
        "number": request.number,
        "deadline": float(request.deadline),
    }
    return _record(values, arrays=arrays)


def read_request(record: RecordDict) -> Request:
    """Return the request that a record holds.

    Raises:
        RecordError: the record holds no request, or one of more than :data:`MOST_BYTES`.
    """
    values, _, arrays = _parts(record, {"federation", "number", "deadline"})
    _check_names(arrays, {"images"}, optional={"candidates"})
    images = _images(arrays["images"])
    candidates = None
    if "candidates" in arrays:
        candidates = _bits(arrays["candidates"], 2)
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
    arrays = {}
    if reply.release is not None and reply.answered is not None:
        arrays = {
            "release": _packed_release(reply.release, reply.answered),
            "answered": _packed_bits(reply.answered),
        }
    return _record(
        {"code": str(reply.code), "ledger": reply.ledger}, costs=reply.spent, arrays=arrays
    )


def read_reply(record: RecordDict) -> Reply:
    """Return the client's reply to a request that a record holds.

    The release of an image without an answer is zero.

    Raises:
        RecordError: the record holds no such reply.
    """
    values, costs, arrays = _parts(record, {"code", "ledger"})
    code = _code(values["code"])
    release = answered = None
    if code is Code.ANSWERED:
        _check_names(arrays, {"release", "answered"})
        answered = _bits(arrays["answered"], 1)
        release = _release(arrays["release"])
        if len(release) != len(answered):
            raise RecordError("there are not as many releases as marks of what was answered")
        release[~answered] = 0
    elif arrays:
        raise RecordError("a reply without answers holds arrays")
    return Reply(
        code=code,
        release=release,
        answered=answered,
        spent=_spent(costs),
        ledger=_text(values["ledger"]),
    )


def _record(
    values: Mapping[str, Any],
    *,
    costs: Mapping[str, float] | None = None,
    arrays: Mapping[str, Array] | None = None,
) -> RecordDict:
    record = RecordDict({"values": ConfigRecord(dict(values))})
    if costs:
        record["costs"] = MetricRecord({name: float(cost) for name, cost in costs.items()})
    if arrays:
        record["arrays"] = ArrayRecord(dict(arrays))
    return record


def _parts(
    record: RecordDict, names: set[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Array]]:
    """Return the values, the costs and the arrays of a record that has these values."""
    kinds = {"values": ConfigRecord, "costs": MetricRecord, "arrays": ArrayRecord}
    parts: dict[str, Any] = dict(record)
    if not set(parts) <= set(kinds):
        raise RecordError("the message has a record that is no part of it")
    if "values" not in parts:
        raise RecordError("the message has no record of its values")
    for name, part in parts.items():
        if not isinstance(part, kinds[name]):
            raise RecordError(f"the record of {name} is of another kind")
    _check_names(parts["values"], names)
    return parts["values"], parts.get("costs", {}), parts.get("arrays", {})


def _check_names(
    found: Mapping[str, Any], needed: Set[str], *, optional: Set[str] = frozenset()
) -> None:
    if not needed <= set(found) <= needed | optional:
        raise RecordError(f"the names are not {', '.join(sorted(needed))}")


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


def _spent(costs: Mapping[str, Any]) -> dict[str, float]:
    if len(costs) > _MOST_COSTS:
        raise RecordError(f"there are more than {_MOST_COSTS} costs")
    for name, cost in costs.items():
        _text(name)
        if type(cost) is not float or not cost >= 0:  # infinity is allowed, NaN is not
            raise RecordError("a cost is no number from 0")
    return dict(costs)


def _lengths(values: object, dimensions: int) -> tuple[int, ...]:
    """Return the lengths of so many dimensions, each from 1."""
    if not isinstance(values, list | tuple) or len(values) != dimensions:
        raise RecordError(f"the shape has not {dimensions} dimensions")
    return tuple(_whole(length, 1, _LARGEST) for length in values)


def _packed_images(images: Tensor) -> Array:
    data = np.ascontiguousarray(images.cpu().numpy())
    return Array("uint8", tuple(data.shape), _ZLIB, zlib.compress(data.tobytes()))


def _images(array: Array) -> Tensor:
    shape = _lengths(array.shape, 4)
    _check_kind(array, "uint8", _ZLIB)
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


def _packed_bits(marks: Tensor) -> Array:
    data = np.packbits(marks.cpu().numpy(), axis=-1)
    return Array("bool", tuple(marks.shape), _BITS, data.tobytes())


def _bits(array: Array, dimensions: int) -> Tensor:
    """Return marks, bool, of which eight are in a byte; each row begins a byte."""
    *rows, width = _lengths(array.shape, dimensions)
    _check_kind(array, "bool", _BITS)
    row_bytes = -(-width // 8)
    size = math.prod(rows) * row_bytes
    if 8 * size > MOST_BYTES or len(array.data) != size:
        raise RecordError("there are not as many marks as the shape says")
    packed = np.frombuffer(array.data, np.uint8).reshape(*rows, row_bytes)
    return torch.from_numpy(np.unpackbits(packed, axis=-1, count=width).astype(bool))


def _packed_release(release: Tensor, answered: Tensor) -> Array:
    values = release.cpu().numpy().copy()
    values[~answered.cpu().numpy()] = 0
    if release.is_floating_point():
        values = values.astype("<f4")
        if not np.isfinite(values).all():
            raise RecordError("a release is no finite number")
        return Array("float32", tuple(values.shape), _PLAIN, values.tobytes())
    if values.size and not 0 <= values.min() <= values.max() < _MOST_CLASSES:
        raise RecordError(f"a release is no class from 0 to {_MOST_CLASSES - 1}")
    kind = "uint8" if not values.size or values.max() <= 255 else "int16"
    data = values.astype(np.dtype(kind).newbyteorder("<"))
    return Array(kind, tuple(data.shape), _PLAIN, data.tobytes())


def _release(array: Array) -> Tensor:
    """Return releases: int64 ``(N,)`` of classes, or float32 ``(N, K)``."""
    types: dict[str, np.dtype[Any]] = {
        "uint8": np.dtype("u1"),
        "int16": np.dtype("<i2"),
        "float32": np.dtype("<f4"),
    }
    _check_kind(array, array.dtype, _PLAIN)
    if array.dtype not in types:
        raise RecordError("releases are of another type")
    shape = _lengths(array.shape, 2 if array.dtype == "float32" else 1)
    count = math.prod(shape)
    if 8 * count > MOST_BYTES or len(array.data) != count * types[array.dtype].itemsize:
        raise RecordError("there are not as many releases as the shape says")
    values = np.frombuffer(array.data, types[array.dtype]).reshape(shape)
    if array.dtype == "float32":
        if not np.isfinite(values).all():
            raise RecordError("a release is no finite number")
        return torch.from_numpy(values.astype(np.float32))
    if (values < 0).any():
        raise RecordError("a release is no class")
    return torch.from_numpy(values.astype(np.int64))


def _check_kind(array: Array, dtype: str, packing: str) -> None:
    if array.dtype != dtype or array.stype != packing:
        raise RecordError("an array is of another type, or packed in another way")
