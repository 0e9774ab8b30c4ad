"""Which teacher answers, and how it is loaded and called.

>>> TeacherSettings(teacher="teacher/").scores
'auto'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from dpsd.config.base import Settings
from dpsd.errors import ConfigError, Setting
from dpsd.teachers.class_names import parsed_class_names

if TYPE_CHECKING:
    from dpsd.devices.execution import Execution
    from dpsd.teachers import Teacher


class TeacherSettings(Settings):
    """Which teacher answers. Every field is also a command-line flag."""

    teacher: str = Field(
        description="The teacher: a directory, an .onnx or .pt2 file, hf:FOLDER, or "
        "package.module:factory.",
    )
    teacher_weights: str | None = Field(
        None,
        description="State dict for a teacher from a factory (.safetensors, or .pt without code).",
    )
    input_shape: tuple[int, int, int] | None = Field(
        None,
        description="Channels, height and width of an image, if the teacher's file does not state "
        "them.",
    )
    num_classes: int | None = Field(
        None, ge=2, description="Number of classes, if the teacher's file does not state it."
    )
    scores: Literal["auto", "logits", "probabilities"] = Field(
        "auto", description="What the teacher returns: logits, probabilities, or auto to find out."
    )
    mean: tuple[float, ...] | None = Field(
        None, description="Input normalisation of the teacher: the mean of each channel."
    )
    deviation: tuple[float, ...] | None = Field(
        None,
        description="Input normalisation of the teacher: the standard deviation of each channel.",
    )

    class_names: tuple[str, ...] | None = Field(
        None,
        description="Names of the classes in the order of their labels, as in cat,dog, or @FILE "
        "with one name a line. They are your public words: all that is made from a run shows them.",
    )

    @field_validator("class_names", mode="before")
    @classmethod
    def _named(cls, names: Any) -> Any:
        """Read the names, which may be in a file, before anything waits for the teacher."""
        is_listed = isinstance(names, str | list | tuple)
        return parsed_class_names(names) if is_listed else names

    def check_normalization(self) -> None:
        """Refuse a mean without a deviation, or a deviation without a mean.

        Raises:
            ConfigError: one of the two is given without the other.
        """
        if (self.mean is None) != (self.deviation is None):
            raise ConfigError(
                *(Setting("mean"), " and ", Setting("deviation")),
                " belong together: give both or neither",
            )

    def load(self, execution: Execution) -> Teacher:
        """Load the teacher onto the device and in the precision of a run.

        Raises:
            TeacherError: the teacher cannot be loaded.
            ConfigError: mean is given without deviation, or deviation without mean.
        """
        from dpsd.teachers import load_teacher

        self.check_normalization()
        return load_teacher(
            self.teacher,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            weights=self.teacher_weights,
            scores=self.scores,
            normalization=(self.mean, self.deviation) if self.mean and self.deviation else None,
            device=str(execution.device),
            precision=execution.precision,
            class_names=self.class_names,
        )
