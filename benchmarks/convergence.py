"""The measurement beside docs/convergence.md: the true gradient's norm against steps, by ε.

    python benchmarks/convergence.py

Plain SGD with a step of ``a/√T`` on fresh randomised responses to queries of structured noise. The
true gradient averages over the channel exactly and over 4,000 queries. For each ε and T, what
Theorem 2 bounds: its squared norm, averaged over the steps. Writes docs/images/convergence.png.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn

from dpsd.datasets import load_dataset
from dpsd.distillation.objectives import marginal_loss
from dpsd.models import build_classifier
from dpsd.privacy.mechanisms import RandomizedResponse
from dpsd.synthesis.drawn import StructuredNoise
from dpsd.training.classifier import train_teacher
from explaining import explained

mpl.use("agg")

EPSILONS = (0.5, 1.0, 2.0, 4.0)
STEPS = (50, 100, 200, 400, 800, 1600)
BATCH, RATE = 64, 20.0
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "convergence.png"


def channel(epsilon: float, classes: int) -> Tensor:
    """``log P(r | c)``, rows by release."""
    mechanism = RandomizedResponse(epsilon=epsilon, candidates="all")
    flat = torch.full((classes, classes), 1 / classes)
    return mechanism.log_likelihood(torch.arange(classes), flat)


def true_gradient(head: nn.Module, features: Tensor, labels: Tensor, log_channel: Tensor) -> float:
    """The squared norm of ∇L, the channel averaged out exactly."""
    logits = head(features).log_softmax(-1)
    seen = torch.logsumexp(logits.unsqueeze(1) + log_channel, dim=-1)  # log P_s(r | x), (N, K)
    loss = -(log_channel.exp()[:, labels].T * seen).sum(-1).mean()
    gradients = torch.autograd.grad(loss, list(head.parameters()))
    return float(sum(part.square().sum() for part in gradients))


def average_gradient(epsilon: float, steps: int, features: Tensor, labels: Tensor) -> float:
    """(1/T) Σ ‖∇L(θ_t)‖² of one training."""
    torch.manual_seed(0)
    classes = int(labels.max()) + 1
    head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    log_channel = channel(epsilon, classes)
    rate, total = RATE / math.sqrt(steps), 0.0
    held_out, asked = slice(0, 4_000), 4_000
    for _ in range(steps):
        total += true_gradient(head, features[held_out], labels[held_out], log_channel)
        rows = asked + torch.randint(len(features) - asked, (BATCH,))
        released = torch.multinomial(log_channel.exp()[:, labels[rows]].T, 1).squeeze(-1)
        loss = marginal_loss(head(features[rows]), log_channel[released])
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                parameter.sub_(rate * gradient)
    return total / steps


def main() -> None:
    """Measure, print, draw."""
    from matplotlib import pyplot as plt

    teacher = train_teacher(
        load_dataset("digits", "train"), model="cnn", seed=0, precision="float32"
    )
    noise = StructuredNoise((1, 8, 8)).sample(24_000, generator=torch.Generator().manual_seed(0))
    images = noise.float() / 255
    model = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0).eval()
    assert isinstance(model, nn.Sequential)
    body = model[:-1]
    with torch.inference_mode():
        labels = teacher(images).argmax(-1)
        features = body(images)
        features = (features - features.mean(0)) / features.std(0)
        features = features / math.sqrt(features.shape[1])
    features, labels = features.clone(), labels.clone()
    found = {
        epsilon: [average_gradient(epsilon, steps, features, labels) for steps in STEPS]
        for epsilon in EPSILONS
    }
    slopes = {
        epsilon: (math.log(values[-1]) - math.log(values[0])) / math.log(STEPS[-1] / STEPS[0])
        for epsilon, values in found.items()
    }
    print(json.dumps({"steps": STEPS, "average_squared_gradient": found, "slopes": slopes}))
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for epsilon, values in found.items():
        axes.loglog(STEPS, values, marker="o", label=f"ε = {epsilon:g} an answer (`response`)")
    first = max(values[0] for values in found.values())
    axes.loglog(
        STEPS,
        [first * math.sqrt(STEPS[0] / t) for t in STEPS],
        "k--",
        label="slope −1/2 (Theorem 2)",
    )
    axes.set_xlabel("steps T")
    axes.set_ylabel("mean of ‖∇L‖² over the steps")
    axes.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    explained(__doc__).parse_args()
    main()
