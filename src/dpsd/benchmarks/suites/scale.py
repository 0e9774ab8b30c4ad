"""Seconds and memory, as one size grows."""

from __future__ import annotations

from typing import Any

from dpsd.benchmarks.methods import Task
from dpsd.benchmarks.rows import Row
from dpsd.benchmarks.scaling import Untrained
from dpsd.benchmarks.suites.suite import Suite, row_of


def scale(task: Task, share: float) -> list[Row]:
    """Seconds and memory as one size grows; untrained teachers are as slow as trained ones."""

    def row(panel: str, value: float | str, **sizes: Any) -> Row:
        method = Untrained(name=f"{panel} {value}", **{"queries": round(8_000 * share), **sizes})
        return row_of(task, 1.0, f"{panel}/{value}", method, panel=panel, value=value)

    rows = [
        row("queries", round(count * share), queries=round(count * share))
        for count in (8_000, 32_000, 128_000, 512_000)
    ]
    rows += [row("classes", count, num_classes=count) for count in (10, 100, 1_000)]
    rows += [
        row("pixels a side", side, input_shape=(3, side, side), queries=round(1_000 * share))
        for side in (32, 64, 128, 224)
    ]
    rows += [row("student", name, student=name) for name in ("lenet5", "cnn", "resnet8")]
    longer = round(128_000 * share)  # than processes take to start
    rows += [row("processes", count, devices=count, queries=longer) for count in (1, 2)]
    return rows


SUITE = Suite(title="Time and memory", data=("digits",), figure="panels", rows=scale)
