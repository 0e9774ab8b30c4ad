"""Where, in which precision and by how many processes models run.

>>> execution = Execution.of("cpu", "float32")
>>> model = execution.place(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)))
>>> execution.predict(model, torch.zeros((3, 1, 2, 2), dtype=torch.uint8)).shape
torch.Size([3, 2])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from dpsd.devices.layout import is_kept_contiguous
from dpsd.devices.names import Precision as Precision
from dpsd.devices.processes import ALONE, Processes
from dpsd.errors import ConfigError, Setting
from dpsd.images.pixels import to_unit_range

ModuleT = TypeVar("ModuleT", bound=nn.Module)

#: Images per forward pass without gradients; large enough to fill a device, small in memory.
INFERENCE_BATCH = 2048
_INFERENCE_PIXELS = INFERENCE_BATCH * 32 * 32
#: Pixels whose feature maps stay in a CPU core's cache: up to three times as fast as the above.
_CACHED_PIXELS = 128 * 32 * 32


@dataclass(frozen=True)
class Execution:
    """A device, a precision, and the memory layout that convolutions like best.

    Args:
        device: the one this process computes on.
        precision: in which forward passes run.
        processes: that train together; each has a device of its own.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"]
    processes: Processes = ALONE

    @classmethod
    def of(
        cls,
        device: str = "auto",
        precision: Precision = "auto",
        *,
        devices: int = 1,
    ) -> Execution:
        """Resolve ``auto``: an accelerator where there is one, bfloat16 where it is native.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: ``auto``, ``float32`` or ``bfloat16``.
            devices: if there are several, this process takes its own.

        Raises:
            ConfigError: a device that does not exist here, or one where several are asked for.
        """
        if devices > 1:
            device = _own_device(device, devices)
        if device == "auto":
            found = torch.accelerator.current_accelerator(check_available=True)
            chosen = found or torch.device("cpu")
        else:
            try:
                chosen = torch.device(device)
                torch.zeros(1, device=chosen)
            except (RuntimeError, AssertionError, NotImplementedError) as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(
                    Setting("device"), f" {device!r} cannot be used here: {reason}"
                ) from None
        if precision == "auto":
            precision = "bfloat16" if _has_bfloat16(chosen) else "float32"
        return cls(chosen, precision)

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def place(self, module: ModuleT) -> ModuleT:
        """Move a module to the device, channels last unless it is kept contiguous."""
        placed: ModuleT = module.to(self.device)
        if is_kept_contiguous(module):
            return placed
        return placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def images(self, pixels: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` as float32 in [0, 1] on the device; uint8 are scaled there."""
        pixels = to_unit_range(pixels.to(self.device, non_blocking=True))
        return pixels.contiguous(memory_format=torch.channels_last)

    def logits(self, module: nn.Module, images: Tensor) -> Tensor:
        """One forward pass; float32 logits whatever the precision."""
        with self.autocast():
            logits: Tensor = module(images)
        return logits.float()

    def predict(self, module: nn.Module, pixels: Tensor) -> Tensor:
        """Logits ``(N, K)`` on the device, in batches, without gradients, in eval mode."""
        was_training = module.training
        module.eval()
        try:
            with torch.inference_mode():
                batches = [
                    self.logits(module, self.images(batch))
                    for batch in torch.split(pixels, forward_batch(pixels.shape[1:], self.device))
                ]
        finally:
            module.train(was_training)
        return torch.cat(batches)


def inference_batch(shape: Sequence[int]) -> int:
    """How many images of a shape ``(C, H, W)`` to make, ask about or keep at once.

    >>> inference_batch((1, 28, 28)), inference_batch((3, 224, 224))
    (2048, 41)
    """
    return _as_many_as(_INFERENCE_PIXELS, shape)


def forward_batch(shape: Sequence[int], device: torch.device) -> int:
    """How many of those a model on ``device`` is fastest with in one forward pass.

    >>> forward_batch((1, 28, 28), torch.device("cpu"))
    167
    """
    return _as_many_as(_CACHED_PIXELS if device.type == "cpu" else _INFERENCE_PIXELS, shape)


def _as_many_as(pixels: int, shape: Sequence[int]) -> int:
    return max(1, min(INFERENCE_BATCH, pixels // (shape[-1] * shape[-2])))


def _own_device(device: str, devices: int) -> str:
    """The one of several devices that is this process's.

    >>> _own_device("cpu", 2)
    'cpu'
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if found is None else found.type
    if device == "cpu":
        return device  # of which every process takes an equal part
    if device != "cuda":
        raise ConfigError(
            *(Setting("device"), f" {device!r} is a single one, and ", Setting("devices")),
            f" is {devices}: say cuda or cpu",
        )
    # So do torchrun and SLURM number the processes of a machine.
    own = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    return f"cuda:{own}"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # type: ignore[no-untyped-call, unused-ignore]
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False
