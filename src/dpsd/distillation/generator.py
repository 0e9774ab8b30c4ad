"""Training the generator, and sampling from it.

The generator never has contact with the teacher. It learns from the student, which was built from
releases alone, so it costs no privacy and can be released too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.objectives import GeneratorWeights, generator_loss
from dpsd.images.pixels import to_pixels


@dataclass(frozen=True, kw_only=True)
class GeneratorTraining:
    """The settings of a generator's training in a round.

    Args:
        steps: the number of training steps.
        batch_size: the number of images per step.
        learning_rate: the learning rate of Adam.
        weights: the weights of the three losses.
    """

    steps: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weights: GeneratorWeights = field(default_factory=GeneratorWeights)


def fit_generator(
    generator: nn.Module,
    student: nn.Module,
    *,
    training: GeneratorTraining,
    execution: Execution,
    random: torch.Generator,
    advance: Callable[[], None],
) -> float:
    """Fit the generator to the frozen student, and return the last loss.

    The student is used in eval mode (its BatchNorm must not drift towards synthetic images) and is
    not changed.
    """
    student.eval().requires_grad_(False)
    generator.train()
    optimizer = torch.optim.Adam(
        generator.parameters(), lr=training.learning_rate, betas=(0.5, 0.999), fused=True
    )
    loss = torch.zeros(())
    with PenultimateFeatures(student) as features:
        for _ in range(training.steps):
            noise = latent(generator, training.batch_size, random).to(execution.device)
            with execution.autocast():
                images = generator(noise).contiguous(memory_format=torch.channels_last)
            logits = execution.logits(student, images)
            loss = generator_loss(logits, features.last.float(), training.weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            advance()
    student.requires_grad_(True)
    return float(loss.detach())


def sample_images(
    generator: nn.Module,
    count: int,
    *,
    shape: Sequence[int],
    execution: Execution,
    random: torch.Generator,
) -> Tensor:
    """Generate ``count`` images of a shape, uint8 ``(count, C, H, W)`` on the CPU."""
    made = torch.empty((count, *shape), dtype=torch.uint8)
    batches = image_batches(generator, count, shape=shape, execution=execution, random=random)
    for part, batch in zip(torch.split(made, inference_batch(shape)), batches, strict=False):
        part.copy_(batch)
    return made


def image_batches(
    generator: nn.Module,
    count: int,
    *,
    shape: Sequence[int],
    execution: Execution,
    random: torch.Generator,
) -> Iterator[Tensor]:
    """Generate ``count`` images in batches, uint8 ``(n, C, H, W)`` on the CPU.

    The generator stays in train mode, so that its BatchNorm sees each batch as it did in training,
    which is what it was fitted to. Its running statistics are left alone, so that sampling does not
    change the generator.
    """
    size = inference_batch(shape)
    for start in range(0, count, size):
        wanted = min(size, count - start)
        generator.train()
        # Inference mode ends before each batch is yielded, so it does not affect the receiver.
        with torch.inference_mode(), _kept_buffers(generator):
            # A batch of one has no statistics, so two images are made and one is kept.
            noise = latent(generator, max(2, wanted), random).to(execution.device)
            with execution.autocast():
                images = generator(noise)[:wanted]
            made = to_pixels(images.float()).cpu()
        yield made


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def latent(generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
    """Draw standard normal noise for a generator, ``(count, latent_dim)``."""
    return torch.randn((count, int(generator.latent_dim)), generator=random)  # type: ignore[arg-type]


class PenultimateFeatures:
    """Captures the input of the last linear layer that a module calls in each forward pass.

    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with PenultimateFeatures(module) as features:
    ...     _ = module(torch.zeros(5, 1, 2, 2))
    >>> features.last.shape
    torch.Size([5, 3])
    """

    last: Tensor

    def __init__(self, module: nn.Module) -> None:
        # All are watched, as a module may have a linear layer last that it does not call.
        self._linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        self._module = module
        self._is_seen = False

    def __enter__(self) -> PenultimateFeatures:
        self._hooks = [layer.register_forward_hook(self._see) for layer in self._linear]
        self._hooks.append(self._module.register_forward_hook(self._end))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.last, self._is_seen = inputs[0], True

    def _end(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self._is_seen:
            # A model without a linear layer ends in a convolution or the like; its output serves.
            self.last = output
        self._is_seen = False
