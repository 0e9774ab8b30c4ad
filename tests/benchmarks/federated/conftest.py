"""The digits, divided over three clients whose teachers are trained once for all tests."""

from __future__ import annotations

from typing import Any

import pytest

from dpsd.benchmarks.methods import Task
from dpsd.federated.parts import ClientTeachers


@pytest.fixture(scope="session")
def three() -> dict[str, Any]:
    """What makes a method one about three clients, who have unequal shares of the classes."""
    return {"clients": 3, "alpha": 0.7, "teacher_epochs": 5}


@pytest.fixture(scope="session")
def task(task: Task, three: dict[str, Any]) -> Task:
    """Train the clients' teachers here, as starting a process takes longer."""
    ClientTeachers(
        data=task.data,
        folder=task.teachers,
        model=task.model,
        clients=three["clients"],
        alpha=three["alpha"],
        epochs=three["teacher_epochs"],
    ).train()
    return task
