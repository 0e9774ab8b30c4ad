"""The mechanisms that clients of a federation may have, rebuilt from what a client states.

A client's releases are read by the channel that it states. Nobody can check that the statement is
true; the panel of all clients limits what a client that lies can do. Here it is only made sure that
a statement describes a channel, whose likelihoods are finite.

>>> from dpsd.privacy.mechanisms import RandomizedResponse
>>> rebuilt(RandomizedResponse(epsilon=1.0).parameters(), num_classes=10).epsilon
1.0
>>> stated = {"name": "randomized-response", "epsilon_per_answer": 1e9, "candidates": "all"}
>>> rebuilt(stated, num_classes=10)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: no mechanism 'randomized-response' has the parameters that were stated
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from dpsd.errors import ConfigError
from dpsd.privacy.mechanisms import (
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SharedNoiseVotes,
    SummedGradients,
)
from dpsd.privacy.parameters import Scaling

#: The least and the most of a noise level or a bound that may be stated: within this range, no
#: likelihood overflows.
_LEAST, _MOST = 1e-4, 1e6
#: The most teachers that may be stated.
_MOST_TEACHERS = 1_000_000
#: The most clients of a federation that may be stated.
_MOST_CLIENTS = 1_000_000

_KNOWN = (
    *("gaussian", "noisy-votes", "randomized-response"),
    *("shared-noise-votes", "summed-gradients"),
)


def rebuilt(parameters: Mapping[str, Any], *, num_classes: int) -> Mechanism:
    """Return the mechanism that a client stated, as the channel that its releases are read by.

    Args:
        parameters: the parameters, as :meth:`~dpsd.privacy.mechanisms.Mechanism.parameters` states
            them. They may come from a client that lies.
        num_classes: the number of classes, K.

    Returns:
        A mechanism that states exactly these parameters: :class:`.RandomizedResponse` or
        :class:`.Gaussian` for one teacher, :class:`.NoisyVotes` or :class:`.SummedGradients` for
        several, and :class:`.SharedNoiseVotes` for any number where a trusted server adds up.

    Raises:
        ConfigError: no mechanism that can be used in a federation states these parameters.
    """
    name = parameters.get("name")
    if name not in _KNOWN:
        shown = name if isinstance(name, str) and len(name) < 40 else type(name).__name__
        raise ConfigError(
            f"mechanism {shown!r} cannot be used in a federation, which knows {', '.join(_KNOWN)}"
        )
    try:
        found = _built(name, parameters, num_classes)
        is_same = found.parameters() == dict(parameters)
    except (KeyError, TypeError, ValueError):
        is_same = False
    if not is_same:
        raise ConfigError(f"no mechanism {name!r} has the parameters that were stated")
    return found


def _built(name: str, stated: Mapping[str, Any], num_classes: int) -> Mechanism:
    """Build a mechanism from values that are of the right types, and in range."""
    if name == "randomized-response":
        candidates = stated["candidates"]
        is_named = candidates in ("per-query", "all")
        if not (is_named or _is_count(candidates, most=num_classes)):
            raise ValueError("candidates")
        return RandomizedResponse(
            epsilon=_number(stated["epsilon_per_answer"]), candidates=candidates
        )
    noise = _number(stated["noise_multiplier"])
    if name == "gaussian":
        # Without a prior, the coordinates of a gradient would be the same for every image.
        if stated["top_k"] is not None or not all(
            isinstance(stated[flag], bool) for flag in ("harden", "widen")
        ):
            raise ValueError("top_k, harden or widen")
        return Gaussian(
            noise_multiplier=noise,
            bound=_number(stated["bound"]),
            scaling=Scaling(stated["scaling"]),
            harden=stated["harden"],
            widen=stated["widen"],
        )
    if name == "shared-noise-votes":
        teachers, clients = stated["teachers"], stated["clients"]
        if not (
            _is_count(teachers, least=1, most=_MOST_TEACHERS)
            and _is_count(clients, most=_MOST_CLIENTS)
        ):
            raise ValueError("teachers or clients")
        return SharedNoiseVotes(noise_multiplier=noise, teachers=teachers, clients=clients)
    if not _is_count(stated["teachers"], most=_MOST_TEACHERS):
        raise ValueError("teachers")
    kind = NoisyVotes if name == "noisy-votes" else SummedGradients
    return kind(noise_multiplier=noise, teachers=stated["teachers"])


def _number(value: object) -> float:
    """Return a number in range as it was stated, as a whole number may be."""
    # A boolean is a whole number in Python, and equal to one.
    if type(value) not in (int, float) or not _LEAST <= value <= _MOST:  # type: ignore[operator]
        raise ValueError("a number")
    return value  # type: ignore[return-value]


def _is_count(value: object, *, most: int, least: int = 2) -> TypeGuard[int]:
    return type(value) is int and least <= value <= most
