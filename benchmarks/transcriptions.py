"""Accuracy of transcriptions on real data: figures of RESULTS.md that stand in no suite's table.

    python benchmarks/transcriptions.py --list
    python benchmarks/transcriptions.py mnist-record-10 --shards 1000 --seed 0

`dpsd bench` measures the tables; here one transcription is tried at a time, with any setting
changed. Needs the data (``DPSD_DATA``, or ``dpsd data fetch``). Teachers are trained once and kept
under ``runs/teachers``. Test accuracy is measured after every round, for the figure only: the
transcription never sees it. Noise is the operating system's, as in real use.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import dpsd
from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.running import hardware
from dpsd.benchmarks.suites import DELTA, many_rounds
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.accounting import Adjacency

TEACHERS = Path("runs") / "teachers"
MNIST = Task(data="mnist", teachers=TEACHERS)
FASHION = Task(data="fashion-mnist", teachers=TEACHERS)
CIFAR = Task(data="cifar10-jpeg", teachers=TEACHERS)


@dataclass(frozen=True)
class Case:
    """One figure: a task, an ε, and how the teacher is transcribed."""

    task: Task
    epsilon: float
    method: Transcribing


def case(
    task: Task, epsilon: float, protect: str, adjacency: str, recipe: dict[str, Any], **more: Any
) -> Case:
    """A case, whose method is named by its data."""
    method = Transcribing(
        name=task.data, protect=protect, adjacency=Adjacency(adjacency), recipe=recipe, **more
    )
    return Case(task, epsilon, method)


#: Under `round`, rounds cost: there is a single one, in which queries are free.
ONE_ROUND = {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5, "sources": ["noise"]}

CASES: dict[str, Case] = {
    "mnist-labels-1-response": case(MNIST, 1.0, "labels", "response", many_rounds(MNIST, 1.0)),
    "fashion-labels-1-response": case(
        FASHION, 1.0, "labels", "response", many_rounds(FASHION, 1.0)
    ),
    "mnist-labels-1-round": case(MNIST, 1.0, "labels", "round", ONE_ROUND),
    "mnist-data-10-round": case(
        MNIST,
        10.0,
        "data",
        "round",
        {"rounds": 1, "queries": 480_000, "first_epochs": 5.0, "sources": ["noise"]},
    ),
    # Natural images: a small residual teacher and student, crops of public photographs.
    "cifar-data-10-round": case(
        CIFAR,
        10.0,
        "data",
        "round",
        {
            "rounds": 1,
            "queries": 300_000,
            "first_epochs": 4.0,
            "generator_steps": 0,
            "sources": ["crops", "silhouettes"],
            "augment": "shift-flip",
        },
    ),
}

#: Record-level: many teachers, each on a shard of its own; `--shards` tries other numbers.
for _name, _task, _source in (("mnist", MNIST, "noise"), ("fashion", FASHION, "silhouettes")):
    for _epsilon, _shards in ((1.0, 3_000), (10.0, 500)):
        CASES[f"{_name}-record-{_epsilon:g}"] = case(
            _task, _epsilon, "labels", "teacher", {"sources": [_source]}, shards=_shards
        )

#: The same at ε = 10, one thing otherwise.
_AT_10 = {"sources": ["noise"]}
for _name, _recipe, _more in (
    # Twice as many are tested, and half of them are answered at most.
    ("consensus", {"queries": 24_000}, {"mechanism": {"threshold": 0.5, "answered": 0.5}}),
    ("two-rounds", {"rounds": 2, "queries": 6_000}, {}),
    ("selection", {"rounds": 2, "queries": 6_000, "selection": 4.0}, {}),
    ("cnn-student", {}, {"student": "cnn"}),
):
    CASES[f"record-{_name}"] = case(
        MNIST, 10.0, "labels", "teacher", {**_AT_10, **_recipe}, shards=500, **_more
    )


def main() -> None:
    """Run the cases named on the command line and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of --list")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, help="teachers of the record-level cases")
    parser.add_argument("--student", help="another student than the case's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=JSON",
        help="override a field of the recipe, for trying things",
    )
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(CASES))
        return
    overrides = {
        name: json.loads(value)
        for name, _, value in (item.partition("=") for item in arguments.set)
    }
    for name in arguments.names:
        if name not in CASES:
            sys.exit(f"no case {name!r}; there are: {', '.join(CASES)}")
        chosen = CASES[name]
        method = replace(
            chosen.method,
            recipe={**chosen.method.recipe, **overrides},
            student=arguments.student or chosen.method.student,
            shards=chosen.method.shards and (arguments.shards or chosen.method.shards),
        )
        target = dpsd.Budget(epsilon=chosen.epsilon, delta=DELTA, adjacency=chosen.method.adjacency)
        outcome = method.measure(chosen.task, target=target, seed=arguments.seed)
        found = {
            "case": name,
            "seed": arguments.seed,
            "overrides": overrides,
            **asdict(outcome),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "hardware": hardware(),
            "date": date.today().isoformat(),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
