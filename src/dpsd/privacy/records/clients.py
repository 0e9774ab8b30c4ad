"""What the certificate of a federation's client says otherwise than that of a run, in words.

A client privatises its answers before they leave it, and the images come from a server that it does
not trust: the noise is local.
"""

from __future__ import annotations

#: Who is trusted with what.
CLIENT_TRUST = (
    "Each client runs dpsd itself, and nobody else sees its teacher or an answer without noise: "
    "the noise is local. The server is trusted with nothing. It, the other clients and everyone "
    "else may see all that this client sent, may know everything about it but the noise, and may "
    "have chosen every image."
)

#: The addition to the limits: what a server that chooses the images can do.
CLIENT_LIMITS = (
    "The images came from a server, which may choose them to learn as much as it can. An image "
    "that is asked again gets the release that it got before. But a server may ask about many "
    "nearly equal images, whose answers are nearly the same and have noise of their own, and "
    "average the noise away: epsilon under `response` is about one image, byte by byte, and says "
    "nothing about that, nor does `round` about several such images in one request. Epsilon under "
    "`teacher` covers all that was sent, and the number of answers, shown as its events, is the "
    "most that such a server can have averaged."
)

#: The further addition where a record may also be with other clients.
OTHER_CLIENTS = (
    "A person whose records are with several clients is covered by each client's epsilon for what "
    "that client sent, and for all of it only by their sum."
)

#: What else a server sees.
CLIENT_SILENCE = (
    "No epsilon covers that an answer failed to come, either, and the server sees when each reply "
    "arrives."
)


def client_limits(limits: str, *, members: int) -> str:
    """Return what a client's certificate does not promise, given what that of a run would say.

    >>> client_limits("This is no promise.", members=1).startswith("This is no promise. The images")
    True
    """
    others = [OTHER_CLIENTS] if members > 1 else []
    return " ".join([limits, CLIENT_LIMITS, *others, CLIENT_SILENCE])
