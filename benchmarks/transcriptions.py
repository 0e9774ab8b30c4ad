"""One transcription of ``dpsd bench``'s tables at a time, with any setting changed.

    python benchmarks/transcriptions.py --list
    python benchmarks/transcriptions.py label-sensitive/mnist/1/dpsd-one-round --set queries=100000
    python benchmarks/transcriptions.py data-sensitive/mnist/10/dpsd-many --shards 1000 --seed 1

Needs the data (``DPSD_DATA``, or ``dpsd data fetch``). Teachers are trained once and kept under
``runs/teachers``. Test accuracy is measured after every round, for the figure only: the
transcription never sees it. Noise is the operating system's, as in real use.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.running import hardware
from dpsd.benchmarks.suites.field import FIELD
from dpsd.benchmarks.suites.registry import SUITES
from dpsd.benchmarks.transcribing import Transcribing

TEACHERS = Path("runs") / "teachers"
TABLES = ("data-sensitive", "label-sensitive")

#: Many teachers at ε = 10, one thing otherwise than in the table.
MANY = "data-sensitive/mnist/10/dpsd-many"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Twice as many are tested, and half of them are answered at most.
    "consensus": ({"queries": 24_000}, {"mechanism": {"threshold": 0.5, "answered": 0.5}}),
    "two-rounds": ({"rounds": 2, "queries": 6_000}, {}),
    "selection": ({"rounds": 2, "queries": 6_000, "selection": 4.0}, {}),
    "cnn-student": ({}, {"student": "cnn"}),
}


def transcriptions(data: str) -> Iterator[tuple[str, tuple[Row, Transcribing]]]:
    """Of the tables about a data set: each one's name, row and method."""
    task = Task(data=data, teachers=TEACHERS)
    for table in TABLES:
        for row in SUITES[table].rows(task, 1.0):
            if isinstance(row.method, Transcribing):
                name = f"{table}/{row.key}"
                yield name, (row, row.method)
                if name == MANY:
                    for what, (recipe, more) in VARIANTS.items():
                        varied = {**row.method.recipe, "sources": ("noise",), **recipe}
                        method = replace(row.method, recipe=varied, **more)
                        yield f"{name}-{what}", (row, method)


def main() -> None:
    """Run the transcriptions named on the command line and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of --list")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, help="teachers, where there are many")
    parser.add_argument("--student", help="another student than the table's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=JSON",
        help="override a field of the recipe, for trying things",
    )
    arguments = parser.parse_args()
    if arguments.list:
        for data in FIELD:
            print("\n".join(dict(transcriptions(data))))
        return
    overrides = {
        name: json.loads(value)
        for name, _, value in (item.partition("=") for item in arguments.set)
    }
    for name in arguments.names:
        data = name.split("/")[1] if "/" in name else ""
        known = dict(transcriptions(data)) if data else {}
        if name not in known:
            sys.exit(f"no transcription {name!r}; --list names them")
        row, method = known[name]
        method = replace(
            method,
            recipe={**method.recipe, **overrides},
            student=arguments.student or method.student,
            shards=method.shards and (arguments.shards or method.shards),
        )
        outcome = method.measure(row.task, target=row.target, seed=arguments.seed)
        found = {
            "name": name,
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
