"""Reading a client's reply: what its releases say, or that they are no reply to the request.

A reply may come from a client that lies, so it is checked for everything that a reader would rely
on. What is left, a false answer among possible ones, is for the panel to weigh.

>>> from dpsd.federated.requests import Code
>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> images = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
>>> request = Request(federation="f00d", number=1, deadline=1e12, images=images)
>>> reply = Reply(code=Code.ANSWERED, release=torch.tensor([1, 0]),
...               answered=torch.tensor([True, False]))
>>> read_reply(reply, request, mechanism=RandomizedResponse(epsilon=1.0), num_classes=3)
tensor([[-1.,  0., -1.],
        [ 0.,  0.,  0.]], dtype=torch.float16)
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from dpsd.distillation.panel import evidence
from dpsd.federated.requests import Greeting, Reply, Request
from dpsd.privacy.mechanisms import Mechanism, RandomizedResponse
from dpsd.privacy.targets import Adjacency

#: The most numbers of likelihoods that are in memory at once.
_MOST_NUMBERS = 1 << 22

#: What a client may state an ε for, besides δ.
_COSTS = {"delta", *(adjacency.value for adjacency in Adjacency)}


class GarbageError(ValueError):
    """An error that a reply is no reply to its request."""


def read_reply(reply: Reply, request: Request, *, mechanism: Mechanism, num_classes: int) -> Tensor:
    """Return what a client's releases say about each image, float16 ``(N, K)``.

    Args:
        reply: the reply, whose code is :attr:`.Code.ANSWERED`.
        request: the request that it replies to.
        mechanism: the client's mechanism.
        num_classes: the number of classes, K.

    Returns:
        ``log P(release | the client's teacher says class y)`` up to a constant in each row, and
        zeros where the client did not answer.

    Raises:
        GarbageError: the releases cannot be what the mechanism makes of this request.
    """
    columns = () if isinstance(mechanism, RandomizedResponse) else (num_classes,)
    release, answered = release_of(reply, len(request), columns=columns)
    rows = answered.nonzero().flatten()
    prior = request.prior(num_classes)[rows]
    release = release[rows]
    if isinstance(mechanism, RandomizedResponse):
        _check_classes(release, mechanism.reportable(prior))
    elif not release.isfinite().all():
        raise GarbageError("a release is no finite number")
    found = torch.zeros((len(request), num_classes), dtype=torch.float16)
    if not len(rows):
        return found
    mechanism = mechanism.informed(release, prior)
    for part in torch.split(torch.arange(len(rows)), max(1, _MOST_NUMBERS // num_classes)):
        likelihood = mechanism.log_likelihood(release[part], prior[part])
        if likelihood.isnan().any() or likelihood.isinf().all(-1).any():
            raise GarbageError("a release is impossible, whatever the teacher says")
        found[rows[part]] = evidence(likelihood)
    return found


def release_of(reply: Reply, images: int, *, columns: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the releases of a reply, and which images have one, bool ``(N,)``.

    Args:
        reply: the reply.
        images: the number of images, N.
        columns: the shape of a release: none for a class, int64, and K numbers, float32, otherwise.

    Raises:
        GarbageError: they are of another type or shape, or the reply states what means nothing.
    """
    check_stated(reply)
    release, answered = reply.release, reply.answered
    if not isinstance(answered, Tensor) or (answered.dtype, answered.shape) != (
        torch.bool,
        (images,),
    ):
        raise GarbageError("it does not say which images were answered")
    dtype = torch.float32 if columns else torch.int64
    if not isinstance(release, Tensor) or (release.dtype, release.shape) != (
        dtype,
        (images, *columns),
    ):
        raise GarbageError(f"its releases are not {dtype} {(images, *columns)}")
    return release, answered


def check_stated(said: Reply | Greeting) -> None:
    """Refuse what a client states of its ε and its ledger, if it means nothing.

    Raises:
        GarbageError: an ε is negative or no number, or is of no adjacency, or the hash is none.
    """
    for name, cost in said.spent.items():
        if name not in _COSTS or not isinstance(cost, float | int) or math.isnan(cost) or cost < 0:
            raise GarbageError("it states an ε that means nothing")
    if not re.fullmatch(r"(sha256:)?[0-9a-f]{0,64}", said.ledger):
        raise GarbageError("it states a hash that is none")


def _check_classes(release: Tensor, reportable: Tensor) -> None:
    classes = reportable.shape[-1]
    if not ((release >= 0) & (release < classes)).all():
        raise GarbageError(f"a release is no class from 0 to {classes - 1}")
    if not reportable.gather(-1, release.unsqueeze(-1)).all():
        raise GarbageError("a release is a class that was no candidate")
