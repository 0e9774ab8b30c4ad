"""The Python API in one page: a teacher from another library, transcribed under label protection.

The teacher is a support vector machine of scikit-learn, which dpsd knows nothing about: a teacher
may be any function from images to class scores. Its student is a small convolutional network. Run
it with ``python examples/any_classifier.py``; it takes about a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC
from torch import Tensor

import dpsd
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.results.evaluation import evaluate

#: Rounds cost nothing under `response`; more of them, and more queries, make a better student.
RECIPE = dpsd.Recipe(rounds=8, queries=10_000, generator_steps=50)


class Announcer(dpsd.Observer):
    """Hears how a run goes: all of it is computed from releases, none of it from answers."""

    def round_finished(self, metrics: dict[str, object]) -> None:
        """Called after every round, with what ``metrics.jsonl`` says of it."""
        print(f"round {metrics['round']}: {metrics['queries']} queries")


def train(data: LabelledImages) -> Callable[[Tensor], NDArray[np.float32]]:
    """The model that must not leave: its support vectors *are* private records."""
    pixels = data.images.flatten(1).numpy() / 255
    machine = SVC(gamma=0.01, C=10).fit(pixels, data.labels.numpy())

    def scores(images: Tensor) -> NDArray[np.float32]:
        found = machine.decision_function(images.flatten(1).cpu().numpy())
        return np.asarray(found, dtype=np.float32)

    return scores


def main(out: Path, recipe: dpsd.Recipe = RECIPE) -> dpsd.Run:
    """Transcribe the machine into ``out``, and say what that bought."""
    private, rest = load_dataset("digits", "train"), load_dataset("digits", "test")
    teacher = dpsd.load_teacher(
        train(private),
        input_shape=private.input_shape,
        num_classes=private.num_classes,
        scores="logits",
        name="digits-svm, version 1",  # a function has no content to hash
    )
    run = dpsd.transcribe(
        teacher,
        student="cnn",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, delta=1e-5, adjacency="response"),
        # Another such run of this teacher would spend 4 in all, and is refused.
        cap=dpsd.Budget(epsilon=3.0, delta=1e-5, adjacency="response"),
        budget_file=out.with_name(f"{out.name}-budget.jsonl"),
        recipe=recipe,
        observer=Announcer(),
        out=out,
    )
    measured = evaluate(run.directory, rest, teacher=teacher)
    print(f"teacher {measured.teacher_accuracy:.1%}, student {measured.student_accuracy:.1%}")
    for adjacency in dpsd.Adjacency:
        print(f"ε = {run.certificate.spent.under(adjacency):.4g} under {adjacency.value}")
    print(f"The whole statement: dpsd certify {out}")
    return run


if __name__ == "__main__":
    main(Path("runs") / time.strftime("svm-%Y%m%d-%H%M%S"))
