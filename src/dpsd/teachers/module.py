"""Teachers that are PyTorch modules.

>>> import torch
>>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
>>> teacher = ModuleTeacher(module, input_shape=(1, 8, 8))
>>> teacher.ask(torch.rand(2, 1, 8, 8), query_batch=0)
RawAnswers(shape=(2, 3))
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dpsd.devices.layout import type_of
from dpsd.errors import TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.base import DeclaredScores, Normalization, Precision, Teacher
from dpsd.teachers.batches import in_batches
from dpsd.teachers.calling import Calling
from dpsd.teachers.fingerprint import fingerprint_module


class ModuleTeacher(Teacher):
    """A teacher that is a module, frozen in place.

    The module is in eval mode, without gradients, and on ``device``, channels last if it can
    compute so. It is handed images of the type of its parameters.

    Args:
        module: a module from images ``(N, C, H, W)`` to scores ``(N, K)``, which is not copied.
        input_shape: the shape of an image, ``(C, H, W)``.
        num_classes: the number of classes K; taken from a probe's answers if ``None``.
        scores: ``"logits"``, ``"probabilities"`` or ``"auto"``.
        normalization: ``(means, deviations)`` applied to the images first.
        device: the device that the module runs on.
        precision: the precision; ``"bfloat16"`` uses autocast.
        calling: what the module is handed, and where its scores are.
        description: the teacher in a few words, for reports; by default, the module's class.

    Raises:
        TeacherError: the device is unusable, or the module does not answer with class scores.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Shape,
        num_classes: int | None = None,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        calling: Calling | None = None,
        description: str | None = None,
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise TeacherError(f"precision must be float32 or bfloat16, not {precision!r}")
        self._content = fingerprint_module(module)
        self._device = checked_device(device)
        self._precision = precision
        self._module = module.eval()
        for weight in module.parameters():  # a TorchScript module has no requires_grad_ of its own
            weight.requires_grad_(False)
        self._module.to(self._device)
        self._dtype = type_of(module)
        self._memory: torch.memory_format = torch.channels_last
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            fingerprint=self._content,
            description=description or f"module {type(module).__name__}",
            scores=scores,
            normalization=normalization,
            calling=calling,
        )

    def require_unchanged(self) -> None:
        if fingerprint_module(self._module) != self._content:
            raise TeacherError(
                f"{self.description}: the module was changed since it was made a teacher, by "
                "training or by loading other weights; load it again, and give every teacher a "
                "module of its own"
            )

    def attempts(self) -> Iterator[Calling]:
        for calling in super().attempts():
            for memory in (torch.channels_last, torch.contiguous_format):
                # Modules that flatten with view() after a convolution fail on channels last.
                self._memory = memory
                self._module.to(memory_format=memory)  # type: ignore[call-overload]
                yield calling

    def _scores(self, images: Tensor) -> object:
        with self._autocast():
            return in_batches(self._called, self._prepared(images), shape=self.input_shape)

    def _prepared(self, images: Tensor) -> Tensor:
        """Return images as the module takes them, which is put into eval mode."""
        self._module.eval()  # other code that holds the module may have switched it to train mode
        images = images.to(self._device)
        if images.is_floating_point():
            images = images.to(self._dtype)
        if images.ndim == 4 and self.calling.has_channels_first:
            images = images.contiguous(memory_format=self._memory)
        elif self._memory is torch.channels_last:
            images = images.contiguous()  # otherwise they are what a permuted view makes of them
        return images

    def _autocast(self) -> torch.autocast:
        is_cast = self._precision == "bfloat16" and self._dtype is torch.float32
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_cast)

    def _called(self, images: Tensor) -> object:
        return self.calling.scores(self._module(images))

    def with_gradients(self) -> nn.Module:
        """Return a module from images in [0, 1] to logits, for the owner's own attacks only.

        Gradients flow through it to the images. Nothing here is sealed or privatised, so no
        transcription may call this method.
        """
        return _WithGradients(self, self._module, self._normalization)


class _WithGradients(nn.Module):
    """A teacher as a module, whose logits have gradients with respect to the images."""

    def __init__(
        self, teacher: ModuleTeacher, module: nn.Module, normalization: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        self.module = module
        self._teacher = teacher
        self._normalization = normalization

    def forward(self, images: Tensor) -> Tensor:
        device = images.device
        if self._normalization is not None:
            mean, deviation = (part.to(images.device) for part in self._normalization)
            images = (images - mean) / deviation
        handed = self._teacher._prepared(self._teacher.calling.images(images))
        # All at once, and not in batches, so that whoever watches a layer sees all images.
        with self._teacher._autocast():
            scores = self._teacher._called(handed)
        assert isinstance(scores, Tensor)  # the probe found scores
        logits = scores.float().to(device)
        return logits.clamp_min(1e-12).log() if self._teacher.scores == "probabilities" else logits


def checked_device(device: str) -> torch.device:
    """Return ``device`` as a torch device, if this machine has it.

    >>> checked_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise TeacherError(f"device {device!r} cannot be used: {reason}") from None
    return found
