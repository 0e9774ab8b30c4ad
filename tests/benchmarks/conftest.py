"""A task on the digits that come with scikit-learn, whose teacher is trained once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dpsd.benchmarks.methods import Method, Outcome, Task
from dpsd.privacy.targets import Budget


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = Task(data="digits", teachers=tmp_path_factory.mktemp("teachers"))
    task.teacher_path()
    return task


@pytest.fixture(scope="session")
def measured() -> Callable[..., Outcome]:
    """Measure a method on a task with seed 0, to an ε where one is given."""

    def measure(method: Method, task: Task, *, epsilon: float | None = None) -> Outcome:
        target = None if epsilon is None else Budget(epsilon=epsilon, delta=1e-5)
        return method.measure(task, target=target, seed=0)

    return measure
