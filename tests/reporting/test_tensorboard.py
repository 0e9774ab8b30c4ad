"""TensorBoard gets what a run knows, while it goes on and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dpsd
from dpsd.reporting.tensorboard import TensorBoardObserver
from dpsd.runs.observing import Observer


class Heard(Observer):
    """Remembers what it was told at the end."""

    rounds = 0

    def run_finished(self, metrics: list[dict[str, Any]], certificate: dpsd.Certificate) -> None:
        self.rounds = len(metrics)


def test_the_end_of_a_run_is_written_with_what_it_spent(
    run: dpsd.RunDirectory, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="no TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    known = {"mean": 0.75, "standard_error": 0.01}
    metrics = run.metrics()
    metrics[-1] |= {"final_probe": {"images": 9, "agreement": known}, "left_out": {"sources": {}}}
    heard = Heard()
    with TensorBoardObserver(heard, tmp_path) as observer:
        observer.run_finished(metrics, run.certify())
    assert heard.rounds == len(metrics)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    written = {name: events.Scalars(name)[-1] for name in events.Tags()["scalars"]}
    assert {name: round(one.value, 3) for name, one in written.items()} == {
        "final_probe/images": 9.0,
        "final_probe/agreement/mean": 0.75,
        "final_probe/agreement/standard_error": 0.01,
        **{
            f"epsilon/{kind.value}": pytest.approx(epsilon, rel=1e-5)
            for kind, epsilon in zip(
                dpsd.Adjacency, (8, 24, run.certify().spent.teacher), strict=True
            )
        },
    }
    assert {one.step for one in written.values()} == {len(metrics)}
