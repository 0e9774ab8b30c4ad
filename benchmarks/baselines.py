"""The baselines of RESULTS.md on real data, each by name; what they are is in the package.

    python benchmarks/baselines.py DataFreeLearning
    python benchmarks/baselines.py PrivateSGD --epsilon 1
    python benchmarks/baselines.py Pate --epsilon 10 --set queries=4000

:mod:`dpsd.benchmarks.baselines` says of each what it is given and whom its ε protects.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

from dpsd.benchmarks.baselines.data_free import DataFreeLearning
from dpsd.benchmarks.baselines.distillation import Distillation
from dpsd.benchmarks.baselines.label_privacy import PriorLabels, RandomizedLabels
from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
from dpsd.benchmarks.methods import Method, Task
from dpsd.privacy.accounting import Budget

METHODS: dict[str, type[Method]] = {
    method.__name__: method
    for method in (
        Distillation,
        DataFreeLearning,
        PrivateSGD,
        Pate,
        RandomizedLabels,
        PriorLabels,
    )
}


def main() -> None:
    """Measure one baseline and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=METHODS)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epsilon", type=float, help="at delta 1e-5, of private ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=JSON", help="a setting of the method"
    )
    arguments = parser.parse_args()
    settings = {
        name: json.loads(value)
        for name, _, value in (item.partition("=") for item in arguments.set)
    }
    method = METHODS[arguments.name](**settings)
    target = Budget(epsilon=arguments.epsilon, delta=1e-5) if arguments.epsilon else None
    task = Task(data=arguments.data, teachers=Path("runs") / "teachers")
    outcome = method.measure(task, target=target, seed=arguments.seed)
    row = {
        **vars(arguments),
        "protects": method.unit.value,
        "given": method.given,
        **asdict(outcome),
        "seconds": round(outcome.seconds, 1),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
