"""Which teacher is asked, and how it is called.

>>> TeacherSettings(teacher="teacher/").scores
'auto'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dpsd.config.base import Settings
from dpsd.errors import ConfigError, Setting

if TYPE_CHECKING:
    from dpsd.devices.execution import Execution
    from dpsd.teachers import Teacher


class TeacherSettings(Settings):
    """Which teacher is asked. Every field is also a command-line flag."""

    teacher: str = Field(
        description="Teacher: directory, .onnx, .pt2 or package.module:factory.",
    )
    teacher_weights: str | None = Field(
        None, description="State dict of a factory's teacher (.safetensors, or .pt without code)."
    )
    input_shape: tuple[int, int, int] | None = Field(
        None, description="Channels, height, width; where the teacher's file does not say."
    )
    num_classes: int | None = Field(None, ge=2, description="Likewise, the number of classes.")
    scores: Literal["auto", "logits", "probabilities"] = Field(
        "auto", description="What the teacher returns."
    )
    mean: tuple[float, ...] | None = Field(
        None, description="Input normalisation of the teacher: means, one a channel."
    )
    deviation: tuple[float, ...] | None = Field(
        None, description="Input normalisation of the teacher: standard deviations."
    )

    def check_normalization(self) -> None:
        """Refuse half of the teacher's normalisation.

        Raises:
            ConfigError: one of mean and deviation without the other.
        """
        if (self.mean is None) != (self.deviation is None):
            raise ConfigError(
                *(Setting("mean"), " and ", Setting("deviation")),
                " belong together: give both or neither",
            )

    def load(self, execution: Execution) -> Teacher:
        """The teacher, where a run executes.

        Raises:
            TeacherError: it cannot be loaded.
            ConfigError: one of mean and deviation without the other.
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
        )
