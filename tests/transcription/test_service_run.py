"""Whole runs against a service: nothing is asked twice, and what was lost counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dpsd
from dpsd.runs.budgets import budget_of
from dpsd.teachers import ServiceTeacher

from ..teachers.stub import Stub, error, serving

RECIPE = dpsd.Recipe(
    rounds=3,
    queries=60,
    sources=("noise",),
    epochs=1.0,
    batch_size=32,
    generator_steps=1,
    generator_batch_size=8,
    device="cpu",
    precision="float32",
)


class Listens(dpsd.Observer):
    """Hears notices, and may break a run at the start of a phase."""

    def __init__(self, fails_in: tuple[str, int] | None = None) -> None:
        self.notices: list[str] = []
        self.asked_before: list[int] = []
        self.fails_in = fails_in
        self.count: Callable[[], int] = lambda: 0

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        if (name, round_index) == self.fails_in:
            raise KeyboardInterrupt
        return super().phase(name, total=total, round_index=round_index)

    def notice(self, message: str) -> None:
        self.notices.append(message)
        self.asked_before.append(self.count())


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as state:
        yield state


def load(stub: Stub, **options: Any) -> ServiceTeacher:
    options = {"request_images": 7, "requests_in_flight": 3} | options
    teacher = dpsd.load_teacher(stub.address, service=dpsd.ServiceOptions(**options))
    assert isinstance(teacher, ServiceTeacher)
    return teacher


def transcribe(teacher: dpsd.Teacher, out: Path, **more: Any) -> dpsd.Run:
    chosen: dict[str, Any] = {
        "mechanism": dpsd.RandomizedResponse(noise=dpsd.ReproducibleNoise(seed=5)),
        "student": "lenet5",
        "budget_file": out.with_name("budgets.jsonl"),
        "observer": Listens(),
    }
    return dpsd.transcribe(
        teacher,
        budget=dpsd.Budget(epsilon=9.0, delta=1e-6, adjacency="round"),
        out=out,
        recipe=RECIPE,
        **chosen | more,
    )


def asked_in_rounds(stub: Stub) -> int:
    """How many images of runs were answered: noise of forecasts is the same every time."""
    assert max(stub.seen.values()) == 1
    return len(stub.seen)


def without_noise(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count only what is asked after a forecast."""
    forecast = ServiceTeacher.forecast

    def counted(teacher: ServiceTeacher, answers: int) -> str | None:
        kept = stub.seen.copy()
        said = forecast(teacher, answers)
        stub.seen = kept
        return said

    monkeypatch.setattr(ServiceTeacher, "forecast", counted)


def test_nothing_is_asked_twice_over_an_interruption(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_noise(stub, monkeypatch)
    teacher = load(stub)
    stub.forget()
    stub.most = 5  # every request is too large at first
    busy = error(429, Retry_After="0")
    stub.instead = lambda number, rows: busy if number == 7 else None
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path / "run", observer=Listens(("student", 2)))
    assert asked_in_rounds(stub) == 120
    kept = stub.seen.copy()
    again = load(stub)
    stub.seen = kept
    run = dpsd.resume(tmp_path / "run", again, observer=Listens())
    assert asked_in_rounds(stub) == 180 == run.certificate.events["teacher"]
    assert run.certificate.events["round"] == 3
    assert run.directory.certify() == run.certificate


def test_a_round_that_fails_counts_as_spent(stub: Stub, tmp_path: Path) -> None:
    teacher = load(stub)
    stub.instead = lambda number, rows: error(500) if sum(stub.sizes) > 100 else None
    stub.forget()
    with pytest.raises(dpsd.AnswerError, match="answered with an error instead of scores"):
        transcribe(teacher, tmp_path / "run")
    stub.instead = lambda number, rows: None
    accounts = budget_of(teacher, tmp_path / "budgets.jsonl")
    assert accounts is not None
    (account,) = accounts.accounts
    assert account.teacher == f"service:{stub.address}/versions/3"
    (spent,) = account.runs()
    assert spent.spending.exposure.teacher == 120
    with pytest.raises(dpsd.BudgetError, match="answers were paid for and lost"):
        dpsd.resume(tmp_path / "run", load(stub))
    cap = dpsd.Budget(epsilon=99.0, delta=1e-6, adjacency="round")
    run = dpsd.resume(tmp_path / "run", load(stub), cap=cap)
    assert run.certificate.events["teacher"] == 240


def test_a_run_needs_a_budget_file_before_anything_is_asked(stub: Stub, tmp_path: Path) -> None:
    teacher = load(stub)
    stub.forget()
    with pytest.raises(dpsd.ConfigError, match=r"^service http.* say with budget_file") as caught:
        transcribe(teacher, tmp_path / "run", budget_file=None)
    assert caught.value.exit_code == 2
    assert not stub.requests
    assert not (tmp_path / "run").exists()
    other = dpsd.load_teacher(lambda images: images.flatten(1)[:, :3], input_shape=(1, 8, 8))
    with pytest.raises(dpsd.ConfigError, match="budget_file"):
        transcribe(
            dpsd.load_teacher([other, teacher]),
            tmp_path / "run",
            budget_file=None,
            mechanism=dpsd.NoisyVotes(),
            student=None,
        )


def test_runs_are_added_up_and_capped_by_address(stub: Stub, tmp_path: Path) -> None:
    cap = dpsd.Budget(epsilon=9.0, delta=1e-6, adjacency="round")
    transcribe(load(stub), tmp_path / "first", cap=cap)
    with pytest.raises(dpsd.BudgetError):
        transcribe(load(stub), tmp_path / "second", cap=cap)
    stub.versions = ("4",)
    transcribe(load(stub), tmp_path / "third", cap=cap)


def test_an_estimate_comes_before_the_first_reservation(stub: Stub, tmp_path: Path) -> None:
    teacher = load(stub)
    listener = Listens()
    ledger = tmp_path / "run" / "ledger.jsonl"
    listener.count = lambda: ledger.read_text().count('"entry": "reserve"')
    transcribe(teacher, tmp_path / "run", observer=listener)
    (said,) = listener.notices
    assert "180 images in about 26 requests, 3 at a time, will take about " in said
    assert listener.asked_before == [0]
    assert listener.count() == 3


def test_an_estimate_beyond_the_limit_ends_a_run_before_it_spends(
    stub: Stub, tmp_path: Path
) -> None:
    teacher = load(stub, service_seconds=1e-4)
    with pytest.raises(dpsd.ConfigError, match="service_seconds allows"):
        transcribe(teacher, tmp_path / "run")
    assert not (tmp_path / "budgets.jsonl").exists()  # nothing was reserved
    assert transcribe(load(stub), tmp_path / "run").certificate.events["teacher"] == 180


def test_a_run_stores_how_its_service_was_called(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", "s3cret-t0ken")
    run = transcribe(load(stub, request_seconds=9.0), tmp_path / "run")
    settings = run.directory.config().teacher
    assert settings.teacher == f"{stub.address}/versions/3"
    assert settings.service() == dpsd.ServiceOptions(
        request_images=7, requests_in_flight=3, request_seconds=9.0
    )
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"s3cret-t0ken" not in path.read_bytes()
