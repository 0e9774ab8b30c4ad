"""The names of ``dpsd bench``'s suites; :mod:`dpsd.benchmarks.suites` has what each measures."""

from __future__ import annotations

from dpsd.errors import UnknownNameError

SUITE_NAMES = (
    "data-sensitive",
    "label-sensitive",
    "transfer",
    "sensitivity",
    "ablation",
    "speed",
    "scale",
    "federated",
    "synthetic",
)


def check_suite(name: str) -> None:
    """Refuse a name that no suite has.

    Raises:
        UnknownNameError: there is no suite of that name.

    >>> check_suite("ablatoin")
    Traceback (most recent call last):
        ...
    dpsd.errors.UnknownNameError: unknown suite 'ablatoin': did you mean 'ablation'? Known: ...
    """
    if name not in SUITE_NAMES:
        raise UnknownNameError("suite", name, SUITE_NAMES)
