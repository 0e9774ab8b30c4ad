"""How asking a service can fail, in words that depend on no answer.

A service that is asked about a run's queries may put anything into an error: its status, its
message and the length of its body may all depend on an answer. All that is said then is the
:class:`Kind`. About public noise, when a teacher is loaded, the whole message is shown.

>>> failure = RequestFailure(Kind.REFUSED, "answered with status 500 (class 3 overflowed)")
>>> print(failure.kind.value)
answered with an error instead of scores
"""

from __future__ import annotations

from enum import Enum

from dpsd.errors import Setting


class Kind(Enum):
    """The kinds of failures; an enumeration, so that no foreign code can add words to it."""

    TIMEOUT = "did not answer in time"
    CONNECTION = "could not be reached, or the connection to it broke"
    REFUSED = "answered with an error instead of scores"
    MALFORMED = "answered with something other than class scores for each image"
    CHANGED = "answered as another version of the model than before"


class RequestFailure(Exception):  # noqa: N818 - it describes what a service did, see Kind
    """A service failed to answer a request.

    Args:
        kind: the kind of failure, which may be shown always.
        seen: what happened in full, which may be shown for public images only: the pieces of a
            message, as for :class:`~dpsd.errors.DpsdError`.
    """

    def __init__(self, kind: Kind, *seen: str) -> None:
        super().__init__("".join(seen))
        self.kind = kind
        self.seen = seen

    @property
    def withheld(self) -> tuple[str, ...]:
        """What may be said of the failure if it was about queries, as parts of a message."""
        if self.kind is Kind.TIMEOUT:
            limits = (Setting("request_seconds"), " and ", Setting("service_seconds"))
            return (self.kind.value, " (the limits are ", *limits, ")")
        return (self.kind.value,)
