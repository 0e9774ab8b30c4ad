"""The settings of the inversion attacks.

>>> Inversion.quick().reconstructions
20
>>> Inversion(reconstructions=7, restarts=5)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: reconstructions is 7; it must be a multiple of restarts, which is 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dpsd.attacks.names import LETTERS
from dpsd.errors import ConfigError, Setting, UnknownNameError

#: The names of the attacks, in the order in which they are shown.
ATTACKS = ("gmi", "plg-mi", "label-only", "prior-free")


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """The settings of the inversion attacks, whose defaults suit images of 28x28 on two cores.

    Args:
        public: the public images of the attacker: ``"letters"``, printed letters without digits;
            the name of a drawn source; a folder, an ``.npz`` file or a data set, whose labels are
            dropped; or ``classes:NAME,NAME``, the held-out records of some classes of the private
            data set, of which the others are attacked, as in GMI's milder setting. The private data
            set itself would say nothing.
        public_images: the most public images, at least 64.
        attacks: the attacks, each of :data:`ATTACKS`.
        reconstructions: the number of reconstructions of each class, a multiple of ``restarts``.
        restarts: the number of restarts among which the target picks the one that it is surest of.
        control_reconstructions: the number of reconstructions of each class of planted targets, a
            multiple of ``restarts``; more are made if there are few classes.
        steps: the number of optimisation steps of a reconstruction.
        rounds: the number of rounds of the label-only attack.
        points: the number of points around each latent that a round of it asks about.
        width: the channels of the last hidden layer of the attacker's generator.
        latent_dim: the length of a latent.
        prior_steps: the number of training steps of the prior that all targets share.
        conditional_steps: the number of steps in which it is adapted to each target.
        evaluator_steps: the number of training steps of an evaluator.

    Raises:
        ConfigError: a number is too small, or reconstructions cannot be divided among restarts.
        UnknownNameError: there is no attack of that name.
    """

    public: str = LETTERS
    public_images: int = 8192
    attacks: tuple[str, ...] = ATTACKS
    reconstructions: int = 100
    restarts: int = 5
    control_reconstructions: int = 20
    steps: int = 100
    rounds: int = 12
    points: int = 12
    width: int = 24
    latent_dim: int = 64
    prior_steps: int = 1500
    conditional_steps: int = 200
    evaluator_steps: int = 1500

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ConfigError(Setting("attacks"), " is empty; give at least one")
        for name in self.attacks:
            if name not in ATTACKS:
                raise UnknownNameError("attack", name, ATTACKS)
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(Setting(name), f" is {value}; it must be at least 1")
        if self.public_images < 64:
            raise ConfigError(
                Setting("public_images"), f" is {self.public_images}; it must be at least 64"
            )
        for name in ("reconstructions", "control_reconstructions"):
            if getattr(self, name) % self.restarts:
                raise ConfigError(
                    Setting(name),
                    f" is {getattr(self, name)}; it must be a multiple of ",
                    *(Setting("restarts"), f", which is {self.restarts}"),
                )

    @property
    def plan(self) -> str:
        """What is made, in words."""
        return (
            f"3 evaluators are trained, and a generator of public images ({self.public}); then "
            f"{', '.join(self.attacks)} make {self.reconstructions} reconstructions of each class "
            f"from every model, and {self.control_reconstructions} from planted ones"
        )

    @classmethod
    def quick(cls) -> Self:
        """Return settings for tests and demonstrations, which take seconds for images of 8x8."""
        return cls(
            public_images=2048,
            reconstructions=20,
            control_reconstructions=20,
            steps=60,
            width=12,
            latent_dim=32,
            prior_steps=300,
            conditional_steps=60,
            evaluator_steps=200,
        )
