"""What a client checks of a request before it looks at its own records.

>>> import torch
>>> twice = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
>>> request = Request(federation="f00d", number=1, deadline=1e12, images=twice)
>>> check_request(request, shape=(1, 8, 8), num_classes=10, takes_candidates=True)
>>> check_request(request, shape=(3, 8, 8), num_classes=10, takes_candidates=True)
Traceback (most recent call last):
    ...
dpsd.federated.client.checking.RefusedError: images are not uint8 (N, 3, 8, 8) with N at least 1
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from dpsd.federated.requests import Code, Hello, Request
from dpsd.teachers import Teacher

#: An identity of a federation, which the client's ledger and certificate show.
_IDENTITY = re.compile(r"[\w.-]{1,200}", re.ASCII)
#: No deadline is this far away, in seconds since 1970. (NaN and infinity are not below it, either.)
_END_OF_TIME = 1e15


class RefusedError(Exception):
    """A request that is refused, at no cost.

    Args:
        code: what the server is told.
        why: what the client's own operator is told.
    """

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


def check_hello(hello: Hello, teacher: Teacher) -> None:
    """Refuse a federation that transcribes other images or classes than the teacher's.

    Raises:
        RefusedError: it does, or what it says is nothing of the kind.
    """
    if not (isinstance(hello.federation, str) and _IDENTITY.fullmatch(hello.federation)):
        raise _malformed("the federation has no identity of letters and digits")
    for what, said, own in (
        ("images of shape", hello.shape, teacher.input_shape),
        ("a number of classes", hello.num_classes, teacher.num_classes),
    ):
        if said != own:
            raise _malformed(f"the federation is about {what} {said!r:.50}, and the teacher {own}")


def check_request(
    request: Request, *, shape: Sequence[int], num_classes: int, takes_candidates: bool
) -> None:
    """Refuse a request whose images, number, deadline or candidates make no sense.

    Args:
        request: the request.
        shape: the shape of an image, ``(C, H, W)``.
        num_classes: the number of classes, K.
        takes_candidates: whether the client's mechanism chooses from candidates.

    Raises:
        RefusedError: something makes no sense.
    """
    images, candidates = request.images, request.candidates
    if not (_is(images, torch.uint8, (None, *shape)) and len(images)):
        sizes = ", ".join(map(str, shape))
        raise _malformed(f"images are not uint8 (N, {sizes}) with N at least 1")
    if type(request.number) is not int or request.number < 1:
        raise _malformed("the number of the round is not a whole number from 1")
    if candidates is None:
        return
    if not takes_candidates:
        raise _malformed("there are candidates, and this client's mechanism takes none")
    if not _is(candidates, torch.bool, (len(images), num_classes)):
        raise _malformed(f"candidates are not bool ({len(images)}, {num_classes})")
    if int(candidates.sum(-1).min()) < 2:
        raise _malformed("an image has fewer than two candidates")


def is_over(deadline: object, now: float) -> bool:
    """Return whether a deadline has passed.

    Raises:
        RefusedError: it is no moment in time.

    >>> is_over(1_700_000_000.0, 1_800_000_000.0)
    True
    """
    if not (isinstance(deadline, int | float) and abs(deadline) < _END_OF_TIME):
        raise _malformed("the deadline is no moment in time")
    return now > deadline


def _is(tensor: object, dtype: torch.dtype, shape: tuple[int | None, ...]) -> bool:
    """Whether something is a tensor of a type and shape, in which ``None`` stands for any size."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.ndim != len(shape):
        return False
    sizes = zip(tensor.shape, shape, strict=True)
    return all(wanted in (None, size) for size, wanted in sizes)


def _malformed(why: str) -> RefusedError:
    return RefusedError(Code.MALFORMED, why)
