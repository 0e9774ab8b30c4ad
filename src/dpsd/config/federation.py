"""The configuration of a federation's server: what it transcribes, how, and when it waits.

It says nothing of any client's privacy, which each client decides for itself. Flags and files use
the settings' own names, as in :mod:`dpsd.config.transcription`.

>>> config = FederationConfig(input_shape=(1, 28, 28), num_classes=10, rounds=4)
>>> config.federation.at_least, config.recipe.rounds
(1, 4)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from dpsd.config.base import Divided, Settings
from dpsd.config.privacy import PrivacySettings
from dpsd.config.recipe import NO_PROBE, Recipe
from dpsd.errors import ConfigError, Setting
from dpsd.extras import how_to_install
from dpsd.models.names import CLOSED_FORM, check_features, check_generator, check_model
from dpsd.synthesis.names import check_sources
from dpsd.teachers.class_names import checked_class_names, parsed_class_names

#: The settings of a recipe that a federation has no use for: they need the exact channel of one
#: teacher, or several processes.
_WITHOUT = {"probe", "probe_images", "until", "leave_one_out_steps", "devices"}

#: Where the clients of a simulation answer: in its own process, or in processes of Ray's.
BACKENDS = ("in-process", "ray")


def require_backend(name: str) -> None:
    """Make sure that a simulation's clients can answer by a backend.

    Args:
        name: the backend.

    Raises:
        ConfigError: there is no such backend, or it is not installed.

    >>> require_backend("in-process")
    """
    if name not in BACKENDS:
        raise ConfigError(Setting("backend"), f" is {name!r}, not {' or '.join(BACKENDS)}")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError(Setting("backend"), f" 'ray' needs Ray: {how_to_install('ray')}")


class FederationSettings(Settings):
    """What a federation is about, and when its server waits. Every field is also a flag."""

    input_shape: tuple[int, int, int] = Field(
        description="Channels, height and width of an image, on which all clients agreed."
    )
    num_classes: int = Field(
        ge=2, description="Number of classes, on whose order all clients agreed."
    )
    class_names: tuple[str, ...] | None = Field(
        None,
        description="Names of the classes in the order of their labels, as in cat,dog, or @FILE "
        "with one name a line. They are public words: all that is made from a run shows them.",
    )
    clients: int = Field(
        1, ge=1, description="Number of clients that the first round waits for, up to --patience."
    )
    at_least: int = Field(
        1,
        ge=1,
        description="Number of clients that must answer a round. With fewer, the silent ones are "
        "asked again, which costs them nothing more, up to --patience.",
    )
    trusted_aggregator: int | None = Field(
        None,
        ge=3,
        description="Fewest clients whose answers are added up before they are used. Each adds a "
        "share of the noise, and trusts this server to keep sums alone; every client must consent. "
        "If not given, clients trust the server with nothing.",
    )
    deadline: float = Field(
        600.0,
        gt=0,
        description="Seconds that clients have to answer a round. A request that arrives later is "
        "not answered, and costs nothing.",
    )
    patience: float = Field(
        3600.0,
        ge=0,
        description="Seconds to wait for too few clients before the server stops. --resume goes "
        "on from there.",
    )

    @field_validator("class_names", mode="before")
    @classmethod
    def _named(cls, names: Any) -> Any:
        """Read the names, which may be in a file."""
        is_listed = isinstance(names, str | list | tuple)
        return parsed_class_names(names) if is_listed else names

    @model_validator(mode="before")
    @classmethod
    def _enough(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Have the server wait for as many clients as a sum needs, unless it is told otherwise."""
        needed = values.get("trusted_aggregator")
        return values if needed is None else {"clients": needed, "at_least": needed} | values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.input_shape) < 1:
            raise ConfigError(
                Setting("input_shape"), f" is {self.input_shape}, and every size is at least 1"
            )
        if self.class_names is not None:
            checked_class_names(self.class_names, num_classes=self.num_classes)
        if self.at_least > self.clients:
            raise ConfigError(
                *(Setting("at_least"), f" is {self.at_least}, but the first round waits for "),
                *(f"{self.clients} only: raise ", Setting("clients")),
            )
        if (needed := self.trusted_aggregator) is not None and self.at_least < needed:
            raise ConfigError(
                *(Setting("at_least"), f" is {self.at_least}, but sums over fewer clients than "),
                *(Setting("trusted_aggregator"), f" says, {needed}, have too little noise: "),
                *("raise ", Setting("at_least")),
            )
        return self


class FederationConfig(Divided):
    """The configuration of a federation's server.

    Args:
        federation: what the federation is about, and when its server waits.
        recipe: how the student is made.
        student: the name of a model, or ``package.module:factory``.
        features: the name of features that the student is linear on; see :func:`check_features`.
        generator: the name of a generator, or ``package.module:factory``.

    Raises:
        ConfigError: a setting does not exist, is missing, or makes no sense.
    """

    parts: ClassVar[Mapping[str, type[Settings]]] = {
        "federation": FederationSettings,
        "recipe": Recipe,
    }

    federation: FederationSettings
    recipe: Recipe
    student: str = Field(
        "cnn",
        description="The student: the name of a model, or package.module:factory; scattering if "
        "features are given.",
    )
    features: str | None = Field(
        None,
        description="What the student 'scattering' is linear on: glyphs, cifar100 (backbones that "
        "dpsd trains once on public images), a .pt2 or .onnx file, package.module:factory, or "
        "wavelets. They must be public.",
    )
    generator: str = Field(
        "dcgan", description="The generator: the name of one, or package.module:factory."
    )

    def __init__(self, **settings: Any) -> None:
        # Settings come by their own names, which type checkers would not find among the fields.
        super().__init__(**settings)

    @classmethod
    def chosen(cls) -> dict[str, FieldInfo]:
        """The settings that a user may choose, under their own names."""
        return {name: field for name, field in cls.fields().items() if name not in _WITHOUT}

    @model_validator(mode="before")
    @classmethod
    def _linear(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Have a student that can be linear on features, if there are any."""
        has_features = values.get("features") is not None
        return {"student": CLOSED_FORM} | values if has_features else values

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        for name in sorted(_WITHOUT):
            given, default = getattr(self.recipe, name), Recipe.model_fields[name].default
            if given not in (default, NO_PROBE):
                raise ConfigError(
                    Setting(name),
                    f" is {given!r}, but a federation has no use for it: leave it out",
                )
        return self

    def check_names(self) -> None:
        """Refuse unknown names of models and sources, in a federation that is about to begin.

        Raises:
            ConfigError: a name is unknown, or the sources cannot be combined.
        """
        check_model(self.student)
        if self.features is not None:
            check_features(self.features, model=self.student)
        check_generator(self.generator)
        check_sources(self.recipe.sources)


class SimulationSettings(Divided):
    """What the clients of a simulated federation are.

    Args:
        teachers: where the teacher of each client is.
        privacy: the privacy that each client demands.

    >>> SimulationSettings(teachers=["a", "b"], epsilon=1.0, adjacency="response").privacy.epsilon
    1.0
    """

    parts: ClassVar[Mapping[str, type[Settings]]] = {"privacy": PrivacySettings}

    teachers: tuple[str, ...] = Field(
        min_length=1, description="Where the teacher of each client is."
    )
    privacy: PrivacySettings

    def __init__(self, **settings: Any) -> None:
        # Settings come by their own names, which type checkers would not find among the fields.
        super().__init__(**settings)
