"""The plan of a federation: everything that its server decides once, before anything is asked.

>>> from dpsd.config.federation import FederationConfig
>>> plan = FederationPlan.of(FederationConfig(input_shape=(1, 8, 8), num_classes=3, rounds=2))
>>> plan.shape, plan.recipe.rounds, plan.student
((1, 8, 8), 2, 'cnn')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dpsd.config.federation import FederationConfig, FederationSettings
from dpsd.config.recipe import NO_PROBE, Recipe
from dpsd.devices.execution import Execution
from dpsd.images.names import Shape
from dpsd.models.names import WAVELETS
from dpsd.teachers import Teacher
from dpsd.teachers.backbones import Backbone
from dpsd.training.pretraining import find_backbone
from dpsd.transcription.plan import model_name, new_models
from dpsd.transcription.public import Images, PublicImages, gathered


@dataclass(frozen=True, kw_only=True)
class FederationPlan:
    """The plan of a federation.

    Args:
        settings: what the federation is about, and when its server waits.
        recipe: how the student is made, resolved for these images.
        student: the name of a model, ``package.module:factory``, or a module.
        generator: the name of a generator, ``package.module:factory``, or a module.
        public: the public images that queries are made from.
        features: the frozen public backbone that the student is linear on, if there is one.
        simulated: whether all clients are on this machine, and end with the server.
    """

    settings: FederationSettings
    recipe: Recipe
    student: str | nn.Module
    generator: str | nn.Module
    public: PublicImages
    features: Backbone | None = None
    simulated: bool = False

    @classmethod
    def of(
        cls,
        config: FederationConfig,
        *,
        student: str | nn.Module | None = None,
        generator: str | nn.Module | None = None,
        given: Mapping[str, Images | None] | None = None,
        features: Backbone | None = None,
        simulated: bool = False,
        teachers: Sequence[Teacher] = (),
    ) -> FederationPlan:
        """Resolve the recipe, and read public images.

        Args:
            config: the configuration.
            student: the student, in place of the configuration's.
            generator: the generator, in place of the configuration's.
            given: public images that were given as tensors, by the names of their settings.
            features: the backbone of the student, in place of the one that the configuration names.
            simulated: whether all clients are on this machine, and end with the server.
            teachers: the teachers of clients on this machine, whose training data are refused as
                public images; a server cannot know those of other machines.

        Raises:
            ConfigError: the settings make no sense together or with the teachers.
            DataError: public images cannot be read.
            DpsdError: as for :func:`.find_backbone`.
        """
        shape = config.federation.input_shape
        recipe = config.recipe.resolved(images=shape)
        # A panel tells nothing unbiased of agreement, so no public image is set apart for a probe.
        recipe = recipe.model_copy(update={"probe": NO_PROBE} if recipe.public else {})
        recipe.objective_function()
        recipe, public = gathered(recipe, given or {}, shape=shape, teachers=teachers)
        if features is None and student is None and config.features not in (None, WAVELETS):
            features = find_backbone(str(config.features), input_shape=shape)
        return cls(
            settings=config.federation,
            recipe=recipe,
            student=student or config.student,
            generator=generator or config.generator,
            public=public,
            features=features,
            simulated=simulated,
        )

    @property
    def shape(self) -> Shape:
        """The shape of an image, ``(C, H, W)``."""
        return self.settings.input_shape

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return self.settings.num_classes

    def config(self) -> FederationConfig:
        """The configuration that describes this plan, as far as settings can describe objects."""
        return FederationConfig(
            federation=self.settings,
            recipe=self.recipe,
            student=model_name(self.student),
            generator=model_name(self.generator),
            features=None if self.features is None else self.features.name,
        )

    def facts(self, identity: str) -> dict[str, Any]:
        """The facts that are needed, besides the configuration, to read the run back."""
        names = self.settings.class_names
        return {
            "format": "dpsd-student",
            "version": 1,
            "run": identity,
            "student": model_name(self.student),
            "generator": model_name(self.generator),
            "input_shape": list(self.shape),
            "num_classes": self.num_classes,
            **({"class_names": list(names)} if names else {}),
            "simulated": self.simulated,
            **({"public_images": images} if (images := self.public.facts()) else {}),
            **({"features": {"student": self.features.stated()}} if self.features else {}),
        }

    def models(self, execution: Execution) -> tuple[nn.Module, nn.Module]:
        """Build a new student and a new generator, and place them on the device.

        Raises:
            ConfigError: there is no such model, or the student has nothing to train.
        """
        return new_models(
            self.student,
            self.generator,
            input_shape=self.shape,
            num_classes=self.num_classes,
            seed=self.recipe.seed,
            execution=execution,
            features=self.features,
        )
