"""What a server asks of a client, and what the client replies.

Nothing here depends on how it travels; :mod:`dpsd.federated.flower` sends it by Flower.

>>> images = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
>>> request = Request(federation="f00d", number=1, deadline=1e12, images=images)
>>> len(request), request.candidates
(2, None)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor


class Code(StrEnum):
    """Why a client did or did not answer; a code is all that a failure tells the server."""

    #: The client answered, and was charged for the images that it had not answered before.
    ANSWERED = "answered"
    #: The deadline had passed when the request arrived. Nothing was charged.
    LATE = "late"
    #: The client's cap or plan leaves no room for the request. Nothing was charged.
    BUDGET = "budget"
    #: The request's images or candidates have a wrong shape, type, range or number, or the request
    #: is of another federation. Nothing was charged.
    MALFORMED = "malformed"
    #: The client's teacher or its disk failed, or another process held its records for too long, or
    #: the client has stopped after such losses. What was reserved stays charged.
    FAILED = "failed"
    #: No reply came by the deadline. The server notes this; a client never says it.
    SILENT = "silent"
    #: The reply was no reply to the request: of a wrong shape, type or range. The server notes it.
    GARBAGE = "garbage"
    #: The client counts on sums that the server does not make, or the other clients count on noise
    #: that it does not add. The server notes it.
    UNLIKE = "unlike"


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The first message to a client: what the federation transcribes.

    Args:
        federation: the federation's identity, a random text of at most 200 letters, digits, ``-``,
            ``_`` and ``.``.
        shape: the shape of an image, ``(C, H, W)``.
        num_classes: the number of classes, K.
    """

    federation: str
    shape: tuple[int, int, int]
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """A client's reply to :class:`Hello`.

    Args:
        code: :attr:`Code.ANSWERED`, or why the client does not take part.
        mechanism: the parameters of the client's mechanism, as
            :meth:`~dpsd.privacy.mechanisms.Mechanism.parameters` states them; empty if it does not
            take part.
        answers_left: the number of images that the client's plan still lets it answer.
        spent: ε spent so far by adjacency, with ``delta``, as the client's own records state it.
        ledger: the hash of the last line of the client's ledger; empty before its first line.
    """

    code: Code
    mechanism: Mapping[str, Any] = field(default_factory=dict)
    answers_left: int = 0
    spent: Mapping[str, float] = field(default_factory=dict)
    ledger: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Images that a client is asked about.

    Args:
        federation: the federation's identity.
        number: the number of the round, from 1. A request that is sent again has the same number
            and the same images.
        deadline: when the server stops waiting, in seconds since 1970.
        images: the images, uint8 ``(N, C, H, W)``, all different.
        candidates: the classes that randomised response may report about each image, bool
            ``(N, K)``, at least two a row; ``None`` for all classes.
    """

    federation: str
    number: int
    deadline: float
    images: Tensor
    candidates: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def prior(self, num_classes: int) -> Tensor:
        """The prior that stands for the candidates: equal among them, float32 ``(N, K)``.

        Client and server both privatise, and read releases, with this prior.

        >>> some = torch.tensor([[True, True, False, False]])
        >>> images = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
        >>> Request(federation="", number=1, deadline=0, images=images, candidates=some).prior(4)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
        """
        if self.candidates is None:
            return torch.full((len(self), num_classes), 1 / num_classes)
        chosen = self.candidates.float()
        return chosen / chosen.sum(-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A client's reply to :class:`Request`.

    Args:
        code: whether it answered, and if not, why.
        release: the releases of the client's mechanism in the order of the images: int64 ``(N,)``
            of randomised response or float32 ``(N, K)`` of a sum or of gradients; ``None`` unless
            the client answered.
        answered: which images have a release, bool ``(N,)``. An image that was asked before with
            other candidates, or whose answer was lost in a crash, has none, as it is never asked
            again. Its row of ``release`` is zero.
        spent: ε spent so far by adjacency, with ``delta``, as the client's own records state it.
        ledger: the hash of the last line of the client's ledger.
    """

    code: Code
    release: Tensor | None = None
    answered: Tensor | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    ledger: str = ""
