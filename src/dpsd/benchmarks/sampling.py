"""The synthetic records of a transcription, as ``dpsd sample`` makes them.

>>> method = SyntheticTranscribing(name="dpsd", protect="labels", adjacency="response")
>>> method.unit.value, method.given
('an answer', 'the teacher')
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dpsd.benchmarks.baselines.checks import require_positive, required_target
from dpsd.benchmarks.methods import Outcome, Task
from dpsd.benchmarks.scoring import IMAGES, classifier_of
from dpsd.benchmarks.transcribing import Transcribing
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.results.synthetic import synthesise
from dpsd.runs.directory import RunDirectory
from dpsd.runs.observing import Observer


@dataclass(frozen=True, kw_only=True)
class SyntheticTranscribing(Transcribing):
    """A teacher, or many, transcribed, and scored by the run's synthetic records.

    The generator makes images and the student labels them, which costs no privacy. Neither saw a
    record.

    Args:
        images: the synthetic images that the classifier is trained on, at least 1.
    """

    images: int = IMAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "images")

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Transcribe, sample, train a classifier on the sample and measure it.

        Returns:
            the classifier's accuracy; among the details, the student's own, and how many images the
            student took for each class.

        Raises:
            ConfigError: there is no target.
        """
        target = required_target(self.name, target)
        teacher = task.teacher(self.shards, self.features)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            start = time.perf_counter()
            run = self.run(task, teacher, target=target, seed=seed, out=out, observer=Observer())
            made = synthesise(RunDirectory(out), self.images, seed=seed)
            classifier = classifier_of(made.images, made.labels, task, seed=seed)
            seconds = time.perf_counter() - start
        spent = run.certificate.spent
        return Outcome(
            accuracy=task.accuracy(classifier),
            seconds=seconds,
            epsilon={kind.value: spent.under(kind) for kind in Adjacency},
            details={
                "student": task.accuracy(run.student),
                "queries": run.certificate.events["teacher"],
                "class_counts": made.class_counts().tolist(),
            },
        )
