"""How far above the truth every stated ε is, over its whole range, and that it is nowhere below.

    python benchmarks/privacy.py

Every mechanism under every adjacency is calibrated to targets from ε = 1e-4 to 50 at δ from 1e-12
to 0.1 over up to 1e8 answers; what is stated for the result is held against arithmetic that has
nothing in common with it (``tests/privacy/exact_losses.py``). Then mechanisms of two strengths and
of two kinds are added up. A table of the smallest and largest ratios of stated to true ε is
printed; the exit code is 1 if one is below 1. Beyond a million answers, where calibration takes
seconds, the noise is the one that a Gaussian limit of the losses would ask for.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dp_accounting
from rich.console import Console
from rich.progress import track

from dpsd.errors import BudgetError
from dpsd.privacy.accounting import Spending, pld_epsilon, spent_together
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from dpsd.privacy.targets import Adjacency, Budget, Exposure
from explaining import explained

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "privacy"))
import exact_losses as exact

EPSILONS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 50.0)
DELTAS = (1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.1)
#: Rounds, and queries in each.
RUNS = ((1, 1), (8, 125), (24, 40_000), (10, 1_000_000), (10, 10_000_000))
MECHANISMS: dict[str, Mechanism] = {
    "randomised response": RandomizedResponse(),
    "randomised response, 10 candidates": RandomizedResponse(candidates=10),
    "Gaussian": Gaussian(),
    "noisy votes": NoisyVotes(teachers=100),
    "confident votes": ConfidentVotes(teachers=100),
    "summed gradients": SummedGradients(teachers=100),
}
#: What sums of positive terms in double precision may be off by, relatively, in the comparison.
ROUNDING = 1e-6


def cases() -> Iterator[tuple[str, Mechanism, Budget, Exposure]]:
    """Every mechanism, adjacency, target and size of a run."""
    for name, mechanism in MECHANISMS.items():
        for adjacency in Adjacency:
            for rounds, queries in RUNS:
                asked = Exposure.of_rounds([queries] * rounds)
                for epsilon in EPSILONS:
                    for delta in DELTAS:
                        yield (
                            name,
                            mechanism,
                            Budget(epsilon=epsilon, delta=delta, adjacency=adjacency),
                            asked,
                        )


def with_noise_for(mechanism: Mechanism, target: Budget, asked: Exposure) -> Mechanism:
    """The mechanism with the noise that a target asks for, by calibration where that is quick."""
    count = asked.under(target.adjacency)
    if isinstance(mechanism, RandomizedResponse) and count > 1_000_000:
        # μ with ε = μ²/2 + μ z; between k classes two in k answers tell something.
        tail = math.sqrt(2 * math.log(1 / target.delta))
        mu = math.sqrt(tail**2 + 2 * target.epsilon) - tail
        classes = mechanism.candidates if isinstance(mechanism.candidates, int) else 2
        strength = mu / math.sqrt(count * 2 / classes)
        return mechanism.with_strength(max(strength, mechanism.strengths[0]))
    return calibrate(mechanism, target, asked)


def true_epsilon(
    event: dp_accounting.DpEvent, epsilon: float | None, count: int, delta: float
) -> float:
    """ε of so many events by independent arithmetic."""
    if isinstance(event, dp_accounting.GaussianDpEvent):
        gaussian = exact.delta_of_gaussian(event.noise_multiplier, count=count)
        return float(exact.epsilon_at(gaussian, delta))
    assert epsilon is not None
    buckets = event.num_buckets
    if count <= (300 if buckets == 2 else 24):
        losses = exact.responses(epsilon, count=count, buckets=buckets)
        return float(exact.epsilon_at(exact.delta_of_losses(losses), delta))
    return float(exact.epsilon_of_many(epsilon, count=count, buckets=buckets, delta=delta))


def mixtures() -> Iterator[tuple[str, list[Spending], float, float]]:
    """Two strengths, and two kinds: their name, the runs, δ, and the true ε."""

    def run(event: dp_accounting.DpEvent, answers: int) -> Spending:
        return Spending(event=event, mean_event=event, exposure=Exposure.of_rounds([answers]))

    for one, other in (((1e-3, 300), (0.01, 100)), ((0.1, 40), (0.8, 20)), ((2.0, 5), (1e-4, 200))):
        events = [RandomizedResponse(epsilon=epsilon).event() for epsilon, _ in (one, other)]
        losses = [exact.responses(epsilon, count=count) for epsilon, count in (one, other)]
        both = exact.together(losses[0], exact.delta_of_losses(losses[1]))
        runs = [run(event, count) for event, (_, count) in zip(events, (one, other), strict=True)]
        for delta in DELTAS:
            yield "two strengths of randomised response", runs, delta, exact.epsilon_at(both, delta)
        for noise in (0.5, 5.0, 500.0):
            gaussian = dp_accounting.GaussianDpEvent(noise)
            mixed = exact.together(losses[0], exact.delta_of_gaussian(noise))
            for delta in DELTAS[::2]:
                yield (
                    "randomised response and a Gaussian",
                    [runs[0], run(gaussian, 1)],
                    delta,
                    exact.epsilon_at(mixed, delta),
                )


def main() -> int:
    """Compare, print, and say by the exit code whether every ε held."""
    console = Console(stderr=True)
    warnings.simplefilter("ignore")  # a δ of 0.1 deserves its warning, once
    began = time.monotonic()
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    refused: dict[tuple[str, str], int] = defaultdict(int)
    nothing: dict[tuple[str, str], int] = defaultdict(int)
    known: dict[tuple[object, ...], tuple[float, float]] = {}
    for name, mechanism, target, asked in track(list(cases()), "grid", console=console):
        key = name, target.adjacency.value
        try:
            made = with_noise_for(mechanism, target, asked)
        except BudgetError:
            refused[key] += 1
            continue
        is_mean = target.adjacency is Adjacency.TEACHER
        event, count = made.mean_event() if is_mean else made.event(), asked.under(target.adjacency)
        case = (event, count, target.delta)
        if case not in known:
            epsilon = made.epsilon if isinstance(made, RandomizedResponse) else None
            known[case] = (
                pld_epsilon(event, count=count, delta=target.delta),
                true_epsilon(event, epsilon, count, target.delta),
            )
        stated, true = known[case]
        if true > 0:
            ratios[key].append(stated / true)
        elif stated == 0:
            nothing[key] += 1
    for name, runs, delta, true in track(list(mixtures()), "mixtures", console=console):
        stated = spent_together(runs, delta=delta).teacher
        if true > 0:
            ratios[name, "teacher"].append(stated / true)
        elif stated == 0:
            nothing[name, "teacher"] += 1
    print("| mechanism | adjacency | cases | δ alone covers it | refused | smallest | largest |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for key, found in ratios.items():
        print(
            f"| {key[0]} | `{key[1]}` | {len(found)} | {nothing[key]} | {refused[key]} | "
            f"{min(found):.9f} | {max(found):.6f} |"
        )
    smallest = min(min(found) for found in ratios.values())
    largest = max(max(found) for found in ratios.values())
    print(
        f"\nsmallest ratio {smallest:.9f}, largest {largest:.6f}, {time.monotonic() - began:.0f} s"
    )
    return int(smallest < 1 - ROUNDING)


if __name__ == "__main__":
    explained(__doc__).parse_args()
    sys.exit(main())
