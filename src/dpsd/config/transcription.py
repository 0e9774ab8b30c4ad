"""The typed configuration that the Python API, TOML files and command-line flags share.

:class:`TranscriptionConfig` has three parts, each of which validates itself: the teacher, the
privacy target, and the recipe. Files and flags use the settings' own names, without that of the
part. Nothing here depends on a teacher's answers.

>>> config = TranscriptionConfig(teacher="teacher/", epsilon=1.0, rounds=4)
>>> config.privacy.mechanism().protects, config.recipe.rounds
('labels', 4)
>>> config.flat()["rounds"]
4

Methods build what the settings stand for (a mechanism, an objective, a teacher) and import it only
then, so a setting that makes no sense is refused without waiting for torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dpsd.config.base import Divided, Settings
from dpsd.config.privacy import PrivacySettings
from dpsd.config.recipe import Recipe
from dpsd.config.teacher import TeacherSettings
from dpsd.models.names import check_features, check_generator, check_model
from dpsd.synthesis.names import check_left_out, check_sources

if TYPE_CHECKING:
    from dpsd.teachers import Teacher


class TranscriptionConfig(Divided):
    """The configuration of a whole transcription.

    Args:
        teacher: which teacher answers.
        privacy: the privacy target and the mechanism.
        recipe: everything else that determines how the transcription is carried out.
        student: the name of a model, or ``package.module:factory``.
        features: the name of features that the student is linear on; see :func:`check_features`.
        generator: the name of a generator, or ``package.module:factory``.

    Raises:
        ConfigError: a setting does not exist, is missing, or makes no sense.
    """

    parts: ClassVar[Mapping[str, type[Settings]]] = {
        "teacher": TeacherSettings,
        "privacy": PrivacySettings,
        "recipe": Recipe,
    }

    teacher: TeacherSettings
    privacy: PrivacySettings
    recipe: Recipe
    student: str = Field(
        "cnn", description="The student: the name of a model, or package.module:factory."
    )
    features: str | None = Field(
        None,
        description="What the student 'scattering' is linear on: glyphs, cifar100 (backbones that "
        "dpsd trains once on public images), a .pt2 or .onnx file, package.module:factory, or "
        "wavelets. If not given, the teachers' own features. They must be public.",
    )
    generator: str = Field(
        "dcgan", description="The generator: the name of one, or package.module:factory."
    )

    def __init__(self, **settings: Any) -> None:
        # Settings come by their own names, which type checkers would not find among the fields.
        super().__init__(**settings)

    def check_names(self) -> None:
        """Refuse unknown names of models and sources, in a run that is about to begin.

        Raises:
            ConfigError: a name is unknown, the sources cannot be combined, or a setting needs a
                probe or sources that there are not.
        """
        check_model(self.student)
        if self.features is not None:
            check_features(self.features, model=self.student)
        check_generator(self.generator)
        check_sources(self.recipe.sources)
        self.recipe.check_until()
        if self.recipe.leave_one_out_steps:
            check_left_out(self.recipe.sources)

    def load_teacher(self, *, device: str | None = None) -> Teacher:
        """Load the teacher in the precision of the run, on the run's device or on another.

        Raises:
            TeacherError: the teacher cannot be loaded.
            ConfigError: mean and deviation are not given together, or there is no such device.
        """
        from dpsd.devices.execution import Execution

        recipe = self.recipe
        several = 1 if device else recipe.devices
        execution = Execution.of(device or recipe.device, recipe.precision, devices=several)
        return self.teacher.load(execution)
