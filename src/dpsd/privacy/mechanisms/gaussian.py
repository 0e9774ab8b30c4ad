"""Data-sensitive protection of one teacher: Gaussian noise on normalised output gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import dp_accounting
import torch
from torch import Tensor

from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.privacy.mechanisms.base import Mechanism, is_flat
from dpsd.privacy.parameters import Scaling, check_scaling
from dpsd.privacy.randomness import NoiseSource, SystemNoise

#: A standard deviation of the noise is 2 to this power steps of its grid, or up to twice as many.
_GRID_BITS = 12


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Mechanism):
    """The base of mechanisms with Gaussian noise: its level, and how it is added."""

    noise_multiplier: float | None = None
    noise: NoiseSource = field(default_factory=SystemNoise)

    #: The largest step of the grid, for values that must themselves lie on the grid.
    _coarsest_step: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        if self.noise_multiplier is not None and not (0 < self.noise_multiplier < math.inf):
            raise ValueError(
                f"noise_multiplier must be positive and finite, not {self.noise_multiplier}"
            )

    @property
    def is_calibrated(self) -> bool:
        return self.noise_multiplier is not None

    def with_strength(self, strength: float) -> GaussianNoise:
        return replace(self, noise_multiplier=1 / strength)

    def with_level(self, parameters: Mapping[str, object]) -> GaussianNoise:
        return replace(self, noise_multiplier=float(str(parameters["noise_multiplier"])))

    @property
    def _noise_multiplier(self) -> float:
        if self.noise_multiplier is None:
            raise ValueError("noise_multiplier is not set: calibrate the mechanism to a budget")
        return self.noise_multiplier

    def _noisy(self, values: Tensor, deviation: float) -> Tensor:
        """Return ``values`` plus Gaussian noise of this standard deviation, float64, on a grid.

        The values are truncated to the grid towards zero, which makes no norm longer, and discrete
        Gaussian noise is added in whole steps, so nothing of a value is left between the points.
        """
        step = self._step(deviation)
        noise = self.noise.discrete_gaussian(tuple(values.shape), scale=deviation / step)
        return ((values / step).trunc() + noise.to(values.device)) * step

    def _step(self, deviation: float) -> float:
        """The grid's step for this standard deviation: a power of two, so that sums are exact."""
        return min(self._coarsest_step, 2.0 ** (math.floor(math.log2(deviation)) - _GRID_BITS))


@dataclass(frozen=True, kw_only=True)
class Gaussian(GaussianNoise):
    """Data-sensitive protection: Gaussian noise on normalised output gradients.

    The release is the gradient of the distillation loss at the student's output,
    ``g = prior - f(x)``, restricted to the prior's ``top_k`` coordinates, normalised to
    ``C g / ‖g‖`` (or clipped to ``C g min(1, 1/‖g‖)``), widened, plus ``N(0, σ² C² I)``. The
    coordinates are chosen from the prior, which is public, so only those need noise; choosing them
    from the answer would leak the choice.

    Two normalised gradients are at most ``2 C`` apart, but those of two *classes* are nearer under
    most priors: 1.49 C for ten classes and a flat prior. How much nearer follows from the prior, so
    if answers are hardened, a query's gradients are widened until two answers to it are up to
    ``2 C`` apart, which strengthens the signal at the same noise and ε. Clipping projects onto a
    ball, so clipped gradients are no further apart than their classes, ``√2 C``, and are widened by
    ``√2``. So are gradients that are left unscaled; if all coordinates are released, *all* classes
    are then ``2 C`` apart, which is as far as any such mechanism can bring them.

    Args:
        noise_multiplier: σ, > 0; ``None`` until calibrated to a budget.
        bound: C, > 0.
        top_k: the number of coordinates released; ``None`` releases all.
        scaling: whether to normalise gradients (as the paper does), clip them, or do neither.
        harden: whether to answer with the teacher's class instead of its probabilities. The channel
            from class to release is then exactly the one that ``log_likelihood`` describes.
        widen: whether to widen gradients as described above; the published mechanism does not.
        noise: the source of randomness.

    Source: DPSD (arXiv 2601.19090), data-sensitive protection; DPDFD (arXiv 2304.12528).
    """

    protects: ClassVar[str] = "data"

    bound: float = 1.0
    top_k: int | None = None
    scaling: Scaling = Scaling.NORMALIZE
    harden: bool = True
    widen: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.bound < math.inf):
            raise ValueError(f"bound must be positive and finite, not {self.bound}")
        if self.top_k is not None and self.top_k < 2:
            raise ValueError(f"top_k must be at least 2, not {self.top_k}")
        object.__setattr__(self, "scaling", Scaling(self.scaling))
        check_scaling(self.scaling, harden=self.harden)

    def parameters(self) -> dict[str, object]:
        return {
            "name": "gaussian",
            "noise_multiplier": self._noise_multiplier,
            "bound": self.bound,
            "sensitivity": 2 * self.bound,
            "top_k": self.top_k,
            "scaling": self.scaling.value,
            "harden": self.harden,
            "widen": self.widen,
        }

    def privatize(self, answers: RawAnswers, prior: Tensor) -> Tensor:
        """Release noisy gradients: float32 ``(N, top_k)`` or ``(teachers, N, top_k)``."""
        probabilities = open_for_mechanism(answers)
        if self.harden:
            labels = probabilities.argmax(-1, keepdim=True)
            probabilities = torch.zeros_like(probabilities).scatter_(-1, labels, 1.0)
        coordinates, likely, widening = self._coordinates(prior)
        shown = probabilities.double().gather(-1, coordinates.expand(*probabilities.shape[:-1], -1))
        gradient = likely - shown
        scale = widening * self._scale(gradient.square().sum(-1, keepdim=True))
        return self._noisy(gradient * scale, self._deviation).float()

    def face_value(self, release: Tensor, prior: Tensor) -> Tensor:
        """The prior minus the noisy gradient: the label that would have this gradient."""
        coordinates, _, widening = self._coordinates(prior)
        gradient = (release.double() / widening).float()
        return prior.float().scatter_add(-1, coordinates, -gradient)

    def log_likelihood(self, release: Tensor, prior: Tensor) -> Tensor:
        coordinates, likely, widening = self._coordinates(prior)
        seen = release.double()
        # If the answer is one-hot at c, the gradient is the prior minus e_c. Only inner products
        # with it are needed, so no (N, K, top_k) tensor is ever made.
        inside = torch.zeros_like(prior, dtype=torch.float64).scatter_(-1, coordinates, 1.0)
        at_class = torch.zeros(
            (*seen.shape[:-1], prior.shape[-1]), dtype=torch.float64, device=prior.device
        ).scatter_(-1, coordinates.expand(*seen.shape[:-1], -1), seen)
        squared = likely.square().sum(-1, keepdim=True) + inside * (1 - 2 * prior.double())
        scale = widening * self._scale(squared)
        projection = scale * ((seen * likely).sum(-1, keepdim=True) - at_class)
        distance = seen.square().sum(-1, keepdim=True) - 2 * projection + scale.square() * squared
        variance = self._deviation**2
        constant = 0.5 * seen.shape[-1] * math.log(2 * math.pi * variance)
        return (-distance / (2 * variance) - constant).to(prior.dtype)

    @property
    def estimates_agreement(self) -> bool:
        """Only if answers are hardened, as the channel of soft ones is not known exactly."""
        return self.harden

    def agreement(self, release: Tensor, prior: Tensor, predicted: Tensor) -> Tensor:
        """The affine function of the release whose mean is 1 at ``predicted`` and 0 elsewhere.

        With means ``μ_c = s_c (p - e_c)`` for a class inside the released coordinates and
        ``s_0 p`` outside, the function ``a·r + b`` with ``a_c = u - (1[c = predicted] - b) / s_c``
        has the right mean inside for any ``b`` when ``u = a·p``; the class outside, if there is
        one, then fixes ``b = -s_0 u``. The estimate is NaN where the predicted class is not
        released, and everywhere if answers are not hardened, as the means are then unknown.
        """
        coordinates, likely, widening = self._coordinates(prior)
        norm = likely.square().sum(-1, keepdim=True)
        scale = widening * self._scale(norm + 1 - 2 * likely)
        wanted = (coordinates == predicted.long().unsqueeze(-1)).double()
        at_wanted = (wanted * likely / scale).sum(-1, keepdim=True)
        spread = (likely / scale).sum(-1, keepdim=True)
        if coordinates.shape[-1] == prior.shape[-1]:
            inner, constant = torch.zeros_like(norm), at_wanted / spread
        else:
            outside = widening * self._scale(norm)
            inner = at_wanted / (likely.sum(-1, keepdim=True) - 1 - outside * spread)
            constant = -outside * inner
        direction = inner - (wanted - constant) / scale
        score = ((direction * release.double()).sum(-1, keepdim=True) + constant).squeeze(-1)
        known = is_flat(prior) & wanted.any(-1) & self.harden
        return score.where(known, torch.nan)

    def event(self) -> dp_accounting.DpEvent:
        """A Gaussian event, with noise relative to the sensitivity under replacement, ``2 C``."""
        return dp_accounting.GaussianDpEvent(noise_multiplier=self._noise_multiplier / 2)

    @property
    def _deviation(self) -> float:
        return self._noise_multiplier * self.bound

    def _coordinates(self, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The released coordinates ``(N, top_k)``, likeliest first; the prior there; the widening.

        The widening ``(N, 1)`` is the factor by which gradients may be lengthened until two answers
        are ``2 C`` apart. It is at least 1 for gradients that are at most C long, as no two of them
        are further apart.
        """
        ordered, order = prior.double().sort(dim=-1, descending=True, stable=True)
        kept = prior.shape[-1] if self.top_k is None else min(self.top_k, prior.shape[-1])
        likely = ordered[..., :kept]
        if not (self.harden and self.widen):
            apart = torch.full_like(likely[..., :1], 2.0)
        elif self.scaling is not Scaling.NORMALIZE:
            apart = torch.full_like(likely[..., :1], math.sqrt(2))
        else:
            apart = _farthest_apart(likely, others=kept < prior.shape[-1])
        # Truncated to the grid, two values may end up a step further apart in every coordinate.
        grid = self._step(self._deviation) / self.bound * math.sqrt(kept)
        # Unscaled gradients may be longer than C, so the grid's share is subtracted from them
        # however coarse the grid is, until nothing is left of them.
        least = 1e-9 if self.scaling is Scaling.NONE else 1.0
        return order[..., :kept], likely, ((2 - grid) / apart).clamp_min(least)

    def _scale(self, squared_norm: Tensor) -> Tensor:
        """The factor that brings a gradient of this squared norm within the bound."""
        if self.scaling is Scaling.NONE:
            return torch.full_like(squared_norm, self.bound)
        norm = squared_norm.clamp_min(1e-24).sqrt()
        if self.scaling is Scaling.CLIP:
            return self.bound / norm.clamp_min(1.0)
        # Below 1e-6, the direction is rounding error; such a gradient stays shorter than C.
        return self.bound / norm.clamp_min(1e-6)


def _farthest_apart(likely: Tensor, *, others: bool) -> Tensor:
    """The distance of the normalised gradients of the two classes furthest apart, ``(N, 1)``.

    Args:
        likely: the prior ``p`` at the released coordinates, likeliest first, ``(N, k)``.
        others: whether there are classes that are not released; their gradient is ``p`` itself.

    For a given ``p``, the cosine between ``p - e_c`` and ``p - e_d`` falls as ``p_c`` or ``p_d``
    rises (with ``‖p‖`` held fixed, its derivative in ``p_c`` has the sign of ``p_c - p_d - 1``), as
    does that between ``p`` and ``p - e_c``: the likeliest classes are furthest apart. Only positive
    numbers are summed, as a prior sure of one class would leave nothing but rounding errors of
    ``‖p‖² + 1 - 2 p_c``.
    """
    first, second = likely[..., :1], likely[..., 1:2]
    rest = likely[..., 2:].square().sum(-1, keepdim=True)
    to_first = ((1 - first).square() + second.square() + rest).sqrt()
    to_second = (first.square() + (1 - second).square() + rest).sqrt()
    inner = rest - first * (1 - first) - second * (1 - second)
    cosine = inner / (to_first * to_second).clamp_min(1e-24)
    if others:
        own = (first.square() + second.square() + rest).sqrt()
        inner = second.square() + rest - first * (1 - first)
        cosine = torch.minimum(cosine, inner / (to_first * own).clamp_min(1e-24))
    # Gradients no longer than rounding errors stay short (see `_scale`), so they are nearer still.
    return (2 - 2 * cosine.clamp(-1.0, 0.0)).sqrt()
