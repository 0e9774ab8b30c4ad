"""Which teacher answers, and how it is loaded and called.

>>> TeacherSettings(teacher="teacher/").scores
'auto'
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dpsd.config.base import Settings
from dpsd.errors import ConfigError, Setting
from dpsd.teachers.address import ServiceAddress, ServiceOptions, is_service
from dpsd.teachers.class_names import parsed_class_names
from dpsd.teachers.kinds import TEACHER_HELP, check_source

if TYPE_CHECKING:
    from dpsd.devices.execution import Execution
    from dpsd.teachers import Teacher


_SERVICE = ServiceOptions()


class TeacherSettings(Settings):
    """Which teacher answers. Every field is also a command-line flag."""

    teacher: str = Field(
        description=TEACHER_HELP,
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

    request_images: int | None = Field(
        None,
        ge=1,
        description="The most images in one request to a service; by default, as many as fit into "
        "4 MiB, and at most 64. It is halved when the service says that a request is too large.",
    )
    requests_in_flight: int = Field(
        _SERVICE.requests_in_flight,
        ge=1,
        description="Number of requests to a service that are under way at once.",
    )
    request_seconds: float = Field(
        _SERVICE.request_seconds,
        gt=0,
        description="Seconds after which a request to a service counts as unanswered. It is not "
        "sent again, as it may have been answered: the run stops, and --resume continues it.",
    )
    service_seconds: float | None = Field(
        None,
        gt=0,
        description="The most seconds that all requests to a service may take together, each time "
        "that the run is started or resumed; by default, there is no limit.",
    )
    ca_bundle: str | None = Field(
        None,
        description="PEM file with the authorities that certify a service, in place of the "
        "system's, or of those in the environment variable SSL_CERT_FILE.",
    )
    plain_http: bool = Field(
        False,
        description="Ask a service on another machine without encryption (http://).",
    )

    class_names: tuple[str, ...] | None = Field(
        None,
        description="Names of the classes in the order of their labels, as in cat,dog, or @FILE "
        "with one name a line. They are your public words: all that is made from a run shows them.",
    )

    @model_validator(mode="after")
    def _check_service(self) -> Self:
        """Refuse an address that must not be written to a file, and settings without effect."""
        if is_service(self.teacher):
            ServiceAddress.of(self.teacher, plain_http=self.plain_http)
        elif self.service().chosen():
            name = next(iter(self.service().chosen()))
            raise ConfigError(
                Setting(name),
                f" is for a teacher behind a service, and {self.teacher} is not the address of "
                "one: leave it out",
            )
        return self

    def service(self) -> ServiceOptions:
        """Return how a service is called."""
        return ServiceOptions(
            **{field.name: getattr(self, field.name) for field in fields(ServiceOptions)}
        )

    def check_source(self, *, budget_file: str | None) -> None:
        """Refuse, before anything slow is imported, a teacher that cannot be loaded or charged.

        Args:
            budget_file: the budget file of the run.

        Raises:
            TeacherError: nothing can be loaded from there.
            ConfigError: the teacher is behind a service, and there is no budget file.
        """
        check_source(self.teacher, plain_http=self.plain_http)
        if is_service(self.teacher) and budget_file is None:
            raise ConfigError(
                f"{self.teacher} is a service, which shows no content under which its budget could "
                "be kept: say with ",
                *(Setting("budget_file"), " where to keep it, as in budgets.jsonl"),
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
            layout=self.layout,
            input_scale=self.input_scale,
            output=self.output,
            device=str(execution.device),
            precision=execution.precision,
            service=self.service() if is_service(self.teacher) else None,
            class_names=self.class_names,
        )
