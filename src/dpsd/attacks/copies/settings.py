"""How much is looked at when copies are searched for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dpsd.errors import ConfigError, Setting


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The settings of the search for copies.

    Args:
        samples: the number of the generator's images that are examined.
        members: the most training records that are searched; a random part of more is.
        others: the most held-out records that are used.
        rate: the share of held-out records that the threshold lets pass for near-copies, in (0, 1).
        neighbours: the number of nearest records over which a distance is taken relatively.
        training: the number of the generator's images on which models are trained.
        epochs: the number of passes over them.
        pairs: the number of closest pairs that are shown.

    Raises:
        ConfigError: a number is not positive, or the rate is not below 1.
    """

    samples: int = 2_000
    members: int = 60_000
    others: int = 4_000
    rate: float = 0.001
    neighbours: int = 50
    training: int = 5_000
    epochs: int = 10
    pairs: int = 10

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if getattr(self, name) <= 0:
                raise ConfigError(Setting(name), f" must be positive, not {getattr(self, name)}")
        if self.rate >= 1:
            raise ConfigError(Setting("rate"), f" is {self.rate}; it must be below 1, as in 0.001")

    @property
    def plan(self) -> str:
        """What is made, in words."""
        return (
            f"{self.samples:,} of the generator's images are compared with records, and 2 models "
            f"are trained on {self.training:,}"
        )

    @classmethod
    def quick(cls) -> Copies:
        """Return settings that take seconds on images of 8x8 pixels."""
        return cls(samples=400, members=2_000, others=1_000, training=600, epochs=4)
