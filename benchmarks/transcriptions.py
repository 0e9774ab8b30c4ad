"""Accuracy of transcriptions on real data: the figures of RESULTS.md, each by name.

    python benchmarks/transcriptions.py --list
    python benchmarks/transcriptions.py mnist-labels-response --seed 0
    python benchmarks/transcriptions.py --all

Needs MNIST and Fashion-MNIST (``DPSD_DATA``, or ``dpsd data fetch``). A teacher is trained once and
kept under ``runs/teachers``. Test accuracy is measured after every round, for the table only: the
transcription never sees it. Noise is the operating system's, as in real use.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import dpsd
from dpsd.benchmarks.teachers import trained_teacher
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.execution import Execution
from dpsd.models import build_classifier
from dpsd.transcription import Transcription

TEACHERS = Path("runs") / "teachers"


@dataclass(frozen=True)
class Case:
    """One row: data, protection, privacy target, and what differs from the defaults."""

    data: str
    protect: str
    epsilon: float
    adjacency: str
    recipe: dict[str, Any] = field(default_factory=dict)
    mechanism: dict[str, Any] = field(default_factory=dict)
    shards: int | None = None
    student: str | None = None
    teacher: str = "cnn"


#: Under `response` rounds cost nothing, so there are many; under `round` they cost, so there are
#: few, of many queries: at ε = 1 a single one, in which queries are free.
MANY_ROUNDS = {
    "rounds": 24,
    "queries": 30_000,
    "first_queries": 60_000,
    "first_epochs": 4.0,
    "sources": ["noise"],
}

CASES: dict[str, Case] = {
    "mnist-labels-1-response": Case("mnist", "labels", 1.0, "response", MANY_ROUNDS),
    "mnist-labels-1-round": Case(
        "mnist",
        "labels",
        1.0,
        "round",
        {"rounds": 1, "queries": 1_200_000, "first_epochs": 2.5, "sources": ["noise"]},
    ),
    "mnist-data-10-round": Case(
        "mnist",
        "data",
        10.0,
        "round",
        {"rounds": 6, "queries": 80_000, "epochs": 2.0, "sources": ["noise"]},
    ),
    "mnist-data-1-round": Case(
        "mnist",
        "data",
        1.0,
        "round",
        {"rounds": 1, "queries": 1_800_000, "first_epochs": 2.0, "sources": ["noise"]},
    ),
    "fashion-labels-1-response": Case(
        "fashion-mnist",
        "labels",
        1.0,
        "response",
        {
            "rounds": 14,
            "queries": 60_000,
            "first_queries": 150_000,
            "first_epochs": 4.0,
            "replay": 0.5,
            "generator_share": 0.3,
            "sources": ["silhouettes"],
        },
    ),
}

#: Natural images: a small residual teacher and student, crops of public photographs.
CASES["cifar-data-10-round"] = Case(
    "cifar10-jpeg",
    "data",
    10.0,
    "round",
    {
        "rounds": 3,
        "queries": 60_000,
        "first_epochs": 4.0,
        "sources": ["crops", "silhouettes"],
        "augment": "shift-flip",
    },
    student="resnet8",
    teacher="resnet8",
)

#: Record-level: many teachers, each on a shard of its own; `--shards` tries other numbers.
for _name, _data, _sources in (
    ("mnist", "mnist", ["noise"]),
    ("fashion", "fashion-mnist", ["silhouettes"]),
):
    for _epsilon, _shards in ((1.0, 3_000), (10.0, 500)):
        CASES[f"{_name}-record-{_epsilon:g}"] = Case(
            _data, "labels", _epsilon, "teacher", {"sources": _sources}, shards=_shards
        )

#: The same at ε = 10, one thing otherwise.
_AT_10 = CASES["mnist-record-10"]
CASES["ablation-consensus"] = replace(
    _AT_10,
    # Twice as many are tested, and half of them are answered at most.
    recipe={**_AT_10.recipe, "queries": 24_000},
    mechanism={"threshold": 0.5, "answered": 0.5},
)
for _name, _selection in (("two-rounds", 1.0), ("selection", 4.0)):
    CASES[f"ablation-{_name}"] = replace(
        _AT_10,
        recipe={**_AT_10.recipe, "rounds": 2, "queries": 6_000, "selection": _selection},
    )
CASES["ablation-cnn-student"] = replace(_AT_10, student="cnn")

#: Short runs in which one part is taken out or exchanged at a time.
SHORT = {
    "rounds": 4,
    "queries": 15_000,
    "first_queries": 40_000,
    "first_epochs": 4.0,
    "generator_steps": 60,
    "sources": ["noise"],
}
LABEL_ABLATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as-it-is": ({}, {}),
    "no-generator": ({"generator_share": 0.0, "generator_steps": 0}, {}),
    "no-public-source": ({}, {}),
    "no-exploration": ({"exploration": 0.0}, {}),
    "no-balance": ({"balance": False}, {}),
    "dkd": ({"objective": "dkd"}, {}),
    "top-3": ({}, {"candidates": 3}),
    "all-candidates": ({}, {"candidates": "all"}),
}
for _name, (_recipe, _mechanism) in LABEL_ABLATIONS.items():
    CASES[f"ablation-{_name}"] = Case(
        "mnist", "labels", 1.0, "response", {**SHORT, **_recipe}, _mechanism
    )
for _scaling in ("normalize", "clip"):
    for _epsilon in (1.0, 3.0, 10.0):
        CASES[f"ablation-{_scaling}-{_epsilon:g}"] = Case(
            "mnist", "data", _epsilon, "response", SHORT, {"scaling": _scaling}
        )


def main() -> None:
    """Run the cases named on the command line and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="run every case")
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
    names = list(CASES) if arguments.all else arguments.names
    overrides = {
        name: json.loads(value)
        for name, _, value in (item.partition("=") for item in arguments.set)
    }
    for name in names:
        if name not in CASES:
            sys.exit(f"no case {name!r}; there are: {', '.join(CASES)}")
        case = CASES[name]
        if arguments.shards and case.shards:
            case = replace(case, shards=arguments.shards)
        case = replace(case, student=arguments.student or case.student)
        print(json.dumps(run(name, case, seed=arguments.seed, overrides=overrides)), flush=True)


def run(name: str, case: Case, *, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Transcribe one case and measure it."""
    test = load_dataset(case.data, "test")
    teacher_path = trained_teacher(case.data, TEACHERS, model=case.teacher, shards=case.shards)
    teacher = dpsd.load_teacher(teacher_path, precision=Execution.of().precision)
    makers = {
        ("labels", False): dpsd.RandomizedResponse,
        ("data", False): dpsd.Gaussian,
        ("labels", True): dpsd.ConfidentVotes if case.mechanism else dpsd.NoisyVotes,
        ("data", True): dpsd.SummedGradients,
    }
    mechanism = makers[case.protect, teacher.members > 1](**case.mechanism)
    recipe = dpsd.Recipe.suited_to(teacher, **{**case.recipe, "seed": seed, **overrides})
    if name == "ablation-no-public-source":
        Transcription._draw = _draw_from_the_generator_alone  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        watcher = AccuracyByRound(Path(folder) / "run", test, recipe)
        start = time.perf_counter()
        result = dpsd.transcribe(
            teacher,
            mechanism=mechanism,
            budget=dpsd.Budget(epsilon=case.epsilon, delta=1e-5, adjacency=case.adjacency),
            out=Path(folder) / "run",
            student=case.student,
            budget_file=Path(folder) / "budget.jsonl",
            recipe=recipe,
            observer=watcher,
        )
        seconds = time.perf_counter() - start - watcher.seconds
    spent = result.certificate.spent
    return {
        "case": name,
        "seed": seed,
        "student": watcher.student,
        "overrides": overrides,
        "teachers": teacher.members,
        "teacher": json.loads((teacher_path / "teacher.json").read_text())["accuracy"],
        "accuracy": watcher.accuracy[-1],
        "by_round": [round(100 * value, 2) for value in watcher.accuracy],
        "agreement": watcher.agreement,
        "epsilon": {kind: spent.under(kind) for kind in dpsd.Adjacency},
        "queries": result.certificate.events["teacher"],
        "seconds": round(seconds, 1),
        "seconds_by_part": watcher.by_part,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{recipe.device}, torch {torch.__version__}",
        "date": date.today().isoformat(),
    }


_draw = Transcription._draw


def _draw_from_the_generator_alone(
    self: Transcription,
    count: int,
    *,
    generator_share: float,
    random: torch.Generator,
    spool: Spool,
) -> torch.Tensor:
    """What a run would ask without any public source: the cold start that collapses."""
    return _draw(self, count, generator_share=1.0, random=random, spool=spool)


class AccuracyByRound(dpsd.Observer):
    """Measures the student on the test split after every round, from its checkpoint."""

    def __init__(self, directory: Path, test: LabelledImages, recipe: dpsd.Recipe) -> None:
        self.directory = directory
        self.test = test
        self.execution = Execution.of(recipe.device, recipe.precision)
        self.accuracy: list[float] = []
        self.agreement: list[str] = []
        self.by_part: dict[str, float] = {}
        self.student = ""
        self.seconds = 0.0

    def round_finished(self, metrics: dict[str, Any]) -> None:
        """Load the checkpoint, measure, and keep the clock of doing so apart."""
        start = time.perf_counter()
        facts = json.loads((self.directory / "student.json").read_text())
        self.student = facts["student"]
        student = build_classifier(
            self.student, input_shape=self.test.input_shape, num_classes=self.test.num_classes
        )
        tensors = load_file(self.directory / "checkpoint.safetensors")
        own = {
            k.removeprefix("student."): v for k, v in tensors.items() if k.startswith("student.")
        }
        student.load_state_dict(own)
        logits = self.execution.predict(self.execution.place(student), self.test.images)
        right = logits.argmax(-1).cpu() == self.test.labels
        self.accuracy.append(float(right.float().mean()))
        found = metrics["agreement"]
        if found:
            self.agreement.append(f"{found['mean']:.3f}±{found['standard_error']:.3f}")
        for part, seconds in metrics["seconds"].items():
            self.by_part[part] = round(self.by_part.get(part, 0.0) + seconds, 1)
        print(
            f"round {metrics['round']}: accuracy {self.accuracy[-1]:.2%}, {metrics['seconds']}",
            file=sys.stderr,
            flush=True,
        )
        self.seconds += time.perf_counter() - start


if __name__ == "__main__":
    main()
