"""What the certificate of a federation's client says otherwise than that of a run.

A client privatises its answers before they leave it, and the images come from a server that it does
not trust: the noise is local. Where clients trust the server to add up, the certificate also states
the smaller ε against all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dpsd.privacy.accounting import PrivacySpent, Spending, beyond_reach, spent_together
from dpsd.privacy.mechanisms import SharedNoiseVotes

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


def trusted_server(costs: str, *, delta: float, clients: object) -> str:
    """Return what is promised against those who see no more than a trusted server lets them.

    >>> trusted_server("1 under `response`", delta=1e-5, clients=5)[:53]
    'Against whoever sees nothing of these answers but sum'
    """
    return (
        f"Against whoever sees nothing of these answers but sums over at least {clients} clients, "
        f"ε = {costs}, at δ = {delta:g}, if these clients add the noise that they state. The "
        "server is trusted to let others see no more, and sees more itself, as does whoever gets "
        "this client's own files. Clients that join to subtract their noise from a sum, or that "
        "add none, weaken this; it allows for one. It does not cover a record that is with several "
        "of the clients, whose answers then move the same sum together. Every other epsilon here "
        "is against the server, too, and trusts nobody."
    )


def against_others(
    mechanism: Mapping[str, Any], spending: Spending, *, delta: float
) -> PrivacySpent | None:
    """Return what a client spent against everybody but a server that is trusted to add up.

    Args:
        mechanism: the parameters of the client's mechanism.
        spending: what it spent against the server.
        delta: the δ at which ε is stated.

    Returns:
        The ε under all adjacencies; ``None`` if the server is not trusted to add up.

    Raises:
        ValueError: the parameters make no sense.

    >>> from dpsd.privacy.targets import Exposure
    >>> share = SharedNoiseVotes(noise_multiplier=3.0, teachers=1, clients=5)
    >>> asked = Exposure.of_rounds([1_000])
    >>> own = Spending(event=share.event(), mean_event=share.event(), exposure=asked)
    >>> found = against_others(share.parameters(), own, delta=1e-5)
    >>> round(spent_together([own], delta=1e-5).response, 2), round(found.response, 2)
    (1.87, 0.87)
    """
    if mechanism.get("name") != "shared-noise-votes":
        return None
    share = SharedNoiseVotes(
        noise_multiplier=float(mechanism["noise_multiplier"]),
        teachers=int(mechanism["teachers"]),
        clients=int(mechanism["clients"]),
    )
    event, exposure = share.event_against_others(), spending.exposure
    # The tables that shares are drawn from end somewhere, which is part of δ for each of them.
    ends = share.clients * beyond_reach(((share.event(), exposure.teacher),))
    whole = Spending(event=event, mean_event=event, exposure=exposure)
    return replace(spent_together([whole], delta=max(0.0, delta - ends)), delta=delta)
