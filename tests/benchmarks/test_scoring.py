"""Synthetic records are scored by a classifier that never sees a real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dpsd.benchmarks.methods import Outcome, Task
from dpsd.benchmarks.scoring import RealRecords, classifier_of
from dpsd.datasets import LabelledImages


class Unread(Task):
    """A task whose training records nobody may read."""

    @property
    def train(self) -> LabelledImages:
        raise AssertionError("the training records were read")


@pytest.fixture
def unread(task: Task) -> Task:
    return Unread(data=task.data, teachers=task.teachers)


def test_the_classifier_learns_what_it_is_given_and_reads_no_record(
    task: Task, unread: Task
) -> None:
    images, labels = task.train.images[:600], task.train.labels[:600]
    assert unread.accuracy(classifier_of(images, labels, unread, seed=0)) > 0.7
    # Wrong labels are learned as they are.
    wrong = (labels + 1) % task.train.num_classes
    assert unread.accuracy(classifier_of(images, wrong, unread, seed=0)) < 0.1


def test_real_records_are_scored_in_the_same_way(
    task: Task, measured: Callable[..., Outcome]
) -> None:
    outcome = measured(RealRecords(), task)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.75
    assert not outcome.epsilon
