"""What every baseline refuses: settings out of range, and targets that it cannot meet.

>>> from dpsd.benchmarks.baselines.distillation import Distillation
>>> Distillation(epochs=0)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: epochs must be positive, not 0
"""

from __future__ import annotations

import math

from dpsd.errors import ConfigError
from dpsd.privacy.targets import Budget


def require_positive(method: object, *names: str) -> None:
    """Refuse a method whose settings of these names are not all above 0 and finite.

    Raises:
        ConfigError: naming the first that is not.
    """
    for name in names:
        if not 0 < getattr(method, name) < math.inf:
            raise ConfigError(f"{name} must be positive, not {getattr(method, name)}")


def refuse_target(name: str, target: Budget | None) -> None:
    """Refuse a target that a method without privacy, of this name, would not keep.

    Raises:
        ConfigError: there is one.
    """
    if target is not None:
        raise ConfigError(f"{name} is not private and cannot meet {target}: give no target")


def required_target(name: str, target: Budget | None, *, needs_delta: bool = False) -> Budget:
    """The target of a private method of this name, with a δ above 0 where its noise needs one.

    Raises:
        ConfigError: there is none, or one that the noise cannot meet.
    """
    if target is None:
        raise ConfigError(f"{name} is private: give a target")
    if needs_delta and not target.delta:
        raise ConfigError(f"{name} adds Gaussian noise, which needs a delta above 0")
    return target
