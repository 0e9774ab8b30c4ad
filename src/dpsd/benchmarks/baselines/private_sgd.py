"""DP-SGD: a private training on the original data, where a transcription has a teacher alone.

>>> PrivateSGD().unit.value
'a training record, added or removed'
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import dp_accounting
import torch
from dp_accounting.pld import PLDAccountant
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dpsd.benchmarks.baselines.checks import require_positive, required_target
from dpsd.benchmarks.baselines.tempered import tempered_network
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.benchmarks.teachers import pretraining
from dpsd.datasets import LabelledImages
from dpsd.devices.execution import Execution, forward_batch
from dpsd.errors import ConfigError
from dpsd.extras import how_to_install
from dpsd.images.augmentation import augment_images, default_augmentation
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.models.scattering import Scattering
from dpsd.privacy.targets import Budget
from dpsd.training.pretraining import find_backbone

#: Records that are differentiated at once; more no longer fit a processor's cache.
_GRADIENTS_AT_ONCE = 256

#: In which an image's features are normalised together, where that many fit.
_GROUPS = {"scattering": 9, "scattering-maps": 27}

#: How often wavelet maps that are not pooled further halve the image.
_OCTAVES = 2


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Poisson sampling of records, and what it takes to meet an ε with it.

    Args:
        rate: the chance of each record to be in a batch, in (0, 1].
        epochs: expected passes over the records, at least 1.
    """

    rate: float
    epochs: int

    @property
    def steps_an_epoch(self) -> int:
        """The number of steps in an expected pass."""
        return max(1, round(1 / self.rate))

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return self.steps_an_epoch * self.epochs

    def noise_multiplier(self, target: Budget) -> float:
        """Return the noise that meets a target after all steps, under add-or-remove, by Opacus."""
        found = required_opacus().accountants.utils.get_noise_multiplier(
            target_epsilon=target.epsilon,
            target_delta=target.delta,
            sample_rate=self.rate,
            steps=self.steps,
            accountant="prv",
            epsilon_tolerance=min(0.01, target.epsilon / 100),
        )
        return float(found)

    def add_or_remove(self, noise_multiplier: float, *, steps: int, delta: float) -> float:
        """Return ε of so many steps if a record is added or removed, by Opacus."""
        accountant = required_opacus().accountants.PRVAccountant()
        accountant.history = [(noise_multiplier, self.rate, steps)]
        return float(accountant.get_epsilon(delta))

    def replace_one(self, noise_multiplier: float, *, steps: int, delta: float) -> float:
        """Return ε of so many steps if a record is replaced, by ``dp_accounting``."""
        step = dp_accounting.PoissonSampledDpEvent(
            self.rate, dp_accounting.GaussianDpEvent(noise_multiplier)
        )
        accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
        return float(accountant.compose(step, steps).get_epsilon(delta))


@dataclass(frozen=True, kw_only=True)
class PrivateSGD:
    """DP-SGD on the original training data, with Opacus and its PRV accountant.

    Poisson sampling, large batches, momentum, and an exponential average of the iterates, which is
    post-processing. The target is met under add-or-remove of a training record, as the field and
    Opacus have it. That flatters it beside replace-one, which is meant elsewhere here and under
    which the same noise costs up to twice the ε; both are reported.

    Args:
        network: ``"scattering"`` is a linear layer on fixed wavelet features, normalised image by
            image: the better one by far wherever there is little time or a small ε;
            ``"scattering-maps"`` is one on the wavelets' maps before pooling and square roots, a
            value for every four by four pixels, which are held in memory for all records (3 GB for
            50,000 photographs of 32x32 pixels, and twice that at first); ``"tempered"`` is a small
            convolutional network with tempered sigmoids, :func:`tempered_network`.
        features: what the linear layer of ``"scattering"`` is on, such as ``glyphs``; wavelets if
            not given.
        epochs: expected passes over the data, at least 1.
        batch_size: expected records a step, at least 64 (a step without any must not happen).
        learning_rate: for SGD on the mean of clipped gradients, > 0.
        momentum: in [0, 1).
        max_grad_norm: the bound that each record's gradient is clipped to, > 0.
        averaging: decay of the average of the iterates, in [0, 1); 0 takes the last one.
        augmentations: moved copies of a record whose gradients are averaged *before* clipping, so
            that they cost no privacy; 1 takes the record as it is. For ``"tempered"`` alone.
        stop_at: a test accuracy in (0, 1] at which to stop early, for timing how long it takes.
            Choosing the moment by the test split is no part of a private training.

    Source: Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1; Papernot
    et al., "Tempered Sigmoid Activations for Deep Learning with Differential Privacy", AAAI 2021;
    Tramèr & Boneh, "Differentially Private Learning Needs Better Features", ICLR 2021; De
    et al., "Unlocking High-Accuracy Differentially Private Image Classification through Scale",
    2022 (averaging, augmentation multiplicity).
    """

    network: Literal["scattering", "scattering-maps", "tempered"] = "scattering"
    features: str | None = None
    epochs: int = 20
    batch_size: int = 4096
    learning_rate: float = 16.0
    momentum: float = 0.9
    max_grad_norm: float = 0.1
    averaging: float = 0.98
    augmentations: int = 1
    stop_at: float | None = None

    name: str = field(default="DP-SGD", init=False)
    unit: Unit = field(default=Unit.RECORD_ADDED, init=False)
    given: str = field(default="the training data", init=False)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "learning_rate", "max_grad_norm", "augmentations")
        if self.network not in (networks := (*_GROUPS, "tempered")):
            raise ConfigError(f"network must be one of {', '.join(networks)}, not {self.network!r}")
        if self.features is not None and self.network != "scattering":
            raise ConfigError("features need network='scattering', which is linear on them")
        if self.augmentations > 1 and self.network != "tempered":
            raise ConfigError("augmentations needs network='tempered': fixed features are kept")
        if self.batch_size < 64:
            raise ConfigError(f"batch_size must be at least 64, not {self.batch_size}")
        for name in ("momentum", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.stop_at is not None and not 0 < self.stop_at <= 1:
            raise ConfigError(f"stop_at must be in (0, 1], not {self.stop_at}")
        if self.network == "scattering-maps":
            object.__setattr__(self, "name", "DP-SGD, on wavelet maps")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Make a student and measure it, after every epoch too.

        Returns:
            ε of the steps that were made, under ``add-or-remove`` by Opacus and ``replace-one`` by
            ``dp_accounting``; ``curve`` among the details holds seconds and accuracy by epoch.

        Raises:
            ConfigError: no target or one without δ, or Opacus is not installed.
        """
        target = required_target(self.name, target, needs_delta=True)
        data = task.train
        sampling = self.sampling(len(data))
        rate, steps_an_epoch, steps = sampling.rate, sampling.steps_an_epoch, sampling.steps
        curve: list[tuple[float, float]] = []
        seconds, start = 0.0, time.perf_counter()
        with warnings.catch_warnings():
            # Opacus warns of the hooks that it sets itself, and of what its accountant tries first.
            warnings.simplefilter("ignore")
            noise_multiplier = sampling.noise_multiplier(target)
            models = self.models(data, noise_multiplier=noise_multiplier, rate=rate, seed=seed)
            for model in itertools.islice(models, steps_an_epoch - 1, steps, steps_an_epoch):
                seconds += time.perf_counter() - start
                curve.append((round(seconds, 1), task.accuracy(model)))
                if self.stop_at is not None and curve[-1][1] >= self.stop_at:
                    break
                start = time.perf_counter()
            made = len(curve) * steps_an_epoch
            epsilon = sampling.add_or_remove(noise_multiplier, steps=made, delta=target.delta)
        return Outcome(
            accuracy=curve[-1][1],
            seconds=seconds,
            epsilon={
                "add-or-remove": epsilon,
                "replace-one": sampling.replace_one(
                    noise_multiplier, steps=made, delta=target.delta
                ),
            },
            details={
                "delta": target.delta,
                "noise_multiplier": noise_multiplier,
                "sample_rate": rate,
                "steps": made,
                "curve": curve,
            },
        )

    def trained(self, data: LabelledImages, *, target: Budget, seed: int) -> nn.Module:
        """Return the averaged model after all steps, in eval mode.

        Args:
            data: the training records.
            target: ε and δ under add-or-remove of a record; δ is above 0.
            seed: decides initial weights, batches and noise, which is therefore not secret.

        Raises:
            ConfigError: a target without δ, or Opacus is not installed.
        """
        target = required_target(self.name, target, needs_delta=True)
        sampling = self.sampling(len(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            models = self.models(
                data,
                noise_multiplier=sampling.noise_multiplier(target),
                rate=sampling.rate,
                seed=seed,
            )
            *_, model = itertools.islice(models, sampling.steps)
        return model.eval()

    def sampling(self, records: int) -> Sampling:
        """Return how so many records are sampled."""
        rate = min(1.0, self.batch_size / records)
        return Sampling(rate=rate, epochs=self.epochs)

    def models(
        self, data: LabelledImages, *, noise_multiplier: float, rate: float, seed: int
    ) -> Iterator[nn.Module]:
        """The averaged model after every step, without end; the same module each time.

        It is a sequence of what is fixed and what is trained.
        """
        device = Execution.of().device
        body, head = self.network_for(data, seed=seed)
        body, head = body.to(device), head.to(device)
        # Features that nobody trains are the same in every step.
        inputs = data.images if self.network == "tempered" else _features(body, data.images)
        averaged = AveragedModel(head, multi_avg_fn=_warm_average(self.averaging))
        model = nn.Sequential(body, averaged.module)
        private, optimizer, loss = self._clipping(
            head.train(), noise_multiplier=noise_multiplier, expected=rate * len(data), seed=seed
        )
        random = torch.Generator().manual_seed(seed)
        copies = self.augmentations
        while True:
            chosen = (torch.rand(len(data), generator=random) < rate).nonzero().squeeze(-1)
            parts = torch.split(chosen, max(1, _GRADIENTS_AT_ONCE // copies))
            for number, rows in enumerate(parts, start=1):
                batch, labels = inputs[rows], data.labels[rows].to(device)
                if copies > 1:
                    batch = batch.repeat_interleave(copies, dim=0)
                    labels = labels.repeat_interleave(copies)
                    augment = default_augmentation(data.input_shape)
                    batch = augment_images(batch, augment, generator=random)
                logits = private(_ready(batch, device))
                loss(logits, labels).backward()
                if copies > 1:
                    _average_copies(private, len(rows))
                # Only the last part of a batch is followed by noise and a step.
                optimizer.signal_skip_step(do_skip=number < len(parts))
                optimizer.step()
                optimizer.zero_grad()
            averaged.update_parameters(head)
            yield model

    def _clipping(
        self, head: nn.Module, *, noise_multiplier: float, expected: float, seed: int
    ) -> tuple[nn.Module, Any, Any]:
        """What is trained, its optimizer and its loss, by which each record's gradient is clipped.

        Without copies to average, only the norm of a record's gradient is computed. That saves more
        time the more features there are.
        """
        opacus = required_opacus()
        sgd = torch.optim.SGD(head.parameters(), lr=self.learning_rate, momentum=self.momentum)
        noise: dict[str, Any] = {
            "noise_multiplier": noise_multiplier,
            "max_grad_norm": self.max_grad_norm,
            "expected_batch_size": max(1, round(expected)),
            "generator": torch.Generator(Execution.of().device).manual_seed(seed),
        }
        loss = nn.CrossEntropyLoss()
        if self.network == "tempered":
            module = opacus.GradSampleModule(head)
            return module, opacus.optimizers.DPOptimizer(sgd, **noise), loss
        module = opacus.grad_sample.GradSampleModuleFastGradientClipping(
            head, max_grad_norm=self.max_grad_norm
        )
        optimizer = opacus.optimizers.DPOptimizerFastGradientClipping(sgd, **noise)
        by_norm = opacus.utils.fast_gradient_clipping_utils.DPLossFastGradientClipping
        return module, optimizer, by_norm(module, optimizer, loss)

    def network_for(self, data: LabelledImages, *, seed: int) -> tuple[nn.Module, nn.Module]:
        """What is fixed and what is trained."""
        backbone = None
        if self.features is not None:
            backbone = find_backbone(
                self.features, input_shape=data.input_shape, started=pretraining
            )
        model = build_classifier(
            tempered_network if self.network == "tempered" else "scattering",
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            seed=seed,
            features=None if backbone is None else backbone.module,
        )
        if self.network == "tempered":
            return nn.Identity(), model
        *body, _, head = model.eval().children()
        assert isinstance(head, nn.Linear)
        if self.network == "scattering-maps":
            body = [Scattering(_OCTAVES), nn.Flatten()]
            count = nn.Sequential(*body)(torch.zeros(1, *data.input_shape)).shape[-1]
            head = nn.Linear(count, data.num_classes)
        # Each image is normalised by itself: statistics of the data would need noise of their own.
        groups = math.gcd(_GROUPS[self.network], head.in_features)
        body.append(nn.GroupNorm(groups, head.in_features, eps=1e-4, affine=False))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*body), head


def _warm_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential average with a short memory at first (De et al., 2022, appendix)."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        known = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + known) / (10 + known)))

    return update


def _ready(inputs: Tensor, device: torch.device) -> Tensor:
    """Features as they are, or images in [0, 1]."""
    inputs = to_unit_range(inputs.to(device))
    if inputs.ndim == 4:
        # Twice as fast; but the *weights* must not lie so, or Opacus confuses their gradients.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs


@torch.inference_mode()
def _features(body: nn.Module, images: Tensor) -> Tensor:
    device = Execution.of().device
    size = forward_batch(images.shape[1:], device)
    return torch.cat([body(_ready(part, device)) for part in torch.split(images, size)])


def _average_copies(private: nn.Module, records: int) -> None:
    """Make each record's gradient the mean over its moved copies, which lie side by side."""
    parameter: Any  # to which Opacus adds an attribute
    for parameter in private.parameters():
        parameter.grad_sample = parameter.grad_sample.unflatten(0, (records, -1)).mean(1)


def required_opacus() -> Any:
    """Return the library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import opacus
        import opacus.accountants.utils
        import opacus.grad_sample
        import opacus.optimizers
        import opacus.utils.fast_gradient_clipping_utils
    except ImportError:
        raise ConfigError(f"DP-SGD needs Opacus: {how_to_install('benchmarks')}") from None
    return opacus
