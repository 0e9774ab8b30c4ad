"""Diffusion as a source of queries: images like those of other sources, steered by the student.

The denoiser learns from public images alone, and the student that steers it from releases alone, so
none of it costs privacy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import torch
from platformdirs import user_data_path
from safetensors import SafetensorError
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.denoising import DenoiserTraining, Steering, draw_images, fit_denoiser
from dpsd.errors import WriteError
from dpsd.images.pixels import to_unit_range
from dpsd.models.denoiser import Denoiser, build_denoiser
from dpsd.storage.files import load_tensors, save_tensors, writing
from dpsd.streams import stream, stream_seed
from dpsd.synthesis.mixture import Mixture
from dpsd.synthesis.names import DIFFUSION
from dpsd.synthesis.sources import Source, Started, is_blank, unseen

#: The version of the denoiser's architecture and training, which its hash includes.
_VERSION = 1

#: The most bytes of the images that a denoiser is trained on.
_MOST_BYTES = 1 << 28

#: The passes of the denoiser over an image.
_STEPS = 12

#: What a steered step adds to an image in [0, 1], as a root mean square over its pixels.
_STRENGTH = 0.1

#: Classes of a smaller share than this part of an equal one are steered to no more often.
_RAREST = 0.1


class Diffusion(Source):
    """Images drawn by a denoiser that was trained on the images of other public sources.

    The denoiser is trained when it is first needed, which takes minutes, and is kept in the user's
    data folder under its :attr:`fingerprint`. Images are steered by classifier guidance (Dhariwal
    and Nichol, NeurIPS 2021) on the predicted clean images: half of them towards what the student
    doubts (the entropy of its prediction), and half towards classes that are rare among the
    releases. Until a student guides the source, it makes images of the other sources instead, as
    all that the denoiser could add then is its errors.

    Args:
        basis: the sources that the denoiser is trained on, at least one.
        seed: the seed of the training.
        execution: the device and precision of the denoiser and the student.
        training: the settings of the training.
    """

    name = DIFFUSION

    def __init__(
        self,
        basis: Mixture,
        *,
        seed: int,
        execution: Execution,
        training: DenoiserTraining | None = None,
    ) -> None:
        super().__init__(basis.sources[0].shape)
        training = training or DenoiserTraining()
        most = max(1, _MOST_BYTES // torch.Size(self.shape).numel())
        self._training = replace(training, images=min(training.images, most))
        self._basis, self._seed, self._execution = basis, seed, execution
        self._denoiser: Denoiser | None = None
        self._student: nn.Module | None = None
        self._wanted = torch.ones(1)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of what determines the denoiser: its images, the seed and the settings."""
        stated = {
            "version": _VERSION,
            "shape": list(self.shape),
            "seed": self._seed,
            "training": asdict(self._training),
        }
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        digest.update(self._images().numpy().data)
        return f"sha256:{digest.hexdigest()}"

    def facts(self) -> dict[str, str]:
        return {"denoiser": self.fingerprint}

    def prepare(self, started: Started) -> str | None:
        """Read the denoiser from the user's data folder, or train it and keep it there."""
        if self._denoiser is not None:
            return None
        denoiser = build_denoiser(self.shape, seed=stream_seed(self._seed, 0, "denoiser"))
        path, warning = kept_at(self.fingerprint), None
        if not _restored(denoiser, path):
            self._execution.place(denoiser)
            with started(self._training.steps) as advance:
                fit_denoiser(
                    denoiser,
                    self._images(),
                    training=self._training,
                    execution=self._execution,
                    random=stream(self._seed, 0, "denoising"),
                    advance=lambda: advance(1),
                )
            warning = _keep(denoiser, path)
        self._denoiser = self._execution.place(denoiser).eval()
        return warning

    def guided_by(self, student: nn.Module, shares: Sequence[float]) -> None:
        self._student = student
        floor = _RAREST / len(shares)
        self._wanted = 1 / torch.tensor(shares).clamp(min=floor)

    def _images(self) -> Tensor:
        """The images that the denoiser is trained on, uint8 ``(N, C, H, W)``."""
        random = stream(self._seed, 0, "denoiser images")
        return self._basis.sample(self._training.images, generator=random)[0]

    def _chunk(self, count: int, generator: torch.Generator) -> Tensor:
        if self._student is None:
            return to_unit_range(self._basis.sample(count, generator=generator)[0])
        self.prepare(unseen)
        assert self._denoiser is not None  # as it is prepared
        images = draw_images(
            self._denoiser,
            count,
            shape=self.shape,
            steps=_STEPS,
            execution=self._execution,
            random=generator,
            steering=self._steering(self._student, count, generator),
        )
        # A few are blank, and an image of the other sources shows more.
        blank = is_blank(images)
        instead, _ = self._basis.sample(int(blank.sum()), generator=generator)
        images[blank] = to_unit_range(instead)
        return images

    def _steering(self, student: nn.Module, count: int, generator: torch.Generator) -> Steering:
        device = self._execution.device
        doubts = (torch.rand((count,), generator=generator) < 0.5).to(device)
        rare = torch.multinomial(self._wanted, count, replacement=True, generator=generator)
        rare = rare.to(device)

        def steered(images: Tensor) -> Tensor:
            student.eval()  # its BatchNorm must not drift towards these images
            images = images.detach().requires_grad_()
            log_likely = self._execution.logits(student, images).log_softmax(-1)
            doubt = -(log_likely.exp() * log_likely).sum(-1)
            of_class = log_likely.gather(-1, rare[:, None]).squeeze(-1)
            merit = torch.where(doubts, doubt, of_class)
            (gradient,) = torch.autograd.grad(merit.sum(), images)
            size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
            return _STRENGTH * gradient / size

        return steered


def kept_at(fingerprint: str) -> Path:
    """Return the file in the user's data folder where a denoiser of that hash is kept.

    >>> kept_at("sha256:0a1b").name
    '0a1b.safetensors'
    """
    folder: Path = user_data_path("dpsd", appauthor=False) / "denoisers"
    return folder / f"{fingerprint.rpartition(':')[2]}.safetensors"


def _restored(denoiser: Denoiser, path: Path) -> bool:
    """Read a denoiser's weights from a file, and return whether it is there and undamaged."""
    try:
        denoiser.load_state_dict(load_tensors(path))
    except (OSError, SafetensorError, RuntimeError):
        return False  # it is trained anew, and replaces what cannot be read
    return True


def _keep(denoiser: Denoiser, path: Path) -> str | None:
    """Write a denoiser's weights to a file, and return a warning if that is not possible."""
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, denoiser.state_dict())
    except WriteError as error:
        return f"the denoiser of the source {DIFFUSION!r} is not kept for other runs: {error}"
    return None
