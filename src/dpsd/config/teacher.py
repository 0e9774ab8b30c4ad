"""Which teacher answers, and how it is loaded and called.

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
    """Which teacher answers. Every field is also a command-line flag."""

    teacher: str = Field(
        description="The teacher: a directory, an .onnx or .pt2 file, or package.module:factory.",
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

    layout: Literal["auto", "nchw", "nhwc", "flat"] = Field(
        "auto",
        description="The order of axes that the teacher takes: nchw, nhwc, flat, or auto to find "
        "out.",
    )
    input_scale: Literal["1", "255", "uint8"] = Field(
        "1",
        description="The range of pixels that the teacher takes: 1 for [0, 1], 255 for [0, 255], "
        "uint8 for whole numbers.",
    )
    output: str | None = Field(
        None,
        description="The output that holds the scores, by its name or its place from 0, if the "
        "teacher has several.",
    )

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
            layout=self.layout,
            input_scale=self.input_scale,
            output=self.output,
            device=str(execution.device),
            precision=execution.precision,
        )
