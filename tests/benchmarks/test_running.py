"""Suites are run row by row, kept, and gone on with; tables say what each ε is about."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from dpsd.benchmarks import running
from dpsd.benchmarks.baselines.pate import Pate
from dpsd.benchmarks.figures import draw
from dpsd.benchmarks.kept import Measured, read_results, settings_of
from dpsd.benchmarks.methods import Outcome, Task, Unit
from dpsd.benchmarks.racing import Race
from dpsd.benchmarks.rows import Quoted, Row
from dpsd.benchmarks.running import kept_by_others, measure_all
from dpsd.benchmarks.tables import (
    FIELD,
    Summary,
    cells,
    comma_separated,
    markdown,
    summarise,
)
from dpsd.errors import RunError
from dpsd.privacy.targets import Adjacency, Budget

TARGET = Budget(epsilon=1.0, adjacency=Adjacency.RESPONSE)


@dataclass(frozen=True, kw_only=True)
class Noted:
    """Writes down that it was measured, and by which process."""

    folder: Path
    accuracy: float = 0.5
    name: str = "noted"
    unit: Unit = Unit.ANSWER
    given: str = "a folder"

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        """Leave a file behind."""
        self.folder.joinpath(f"{self.accuracy}-{seed}-{os.getpid()}").touch()
        accuracy = self.accuracy + seed / 100
        return Outcome(accuracy=accuracy, seconds=2.0, epsilon={"response": 1.0})


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def rows(notes: Path) -> list[Row]:
    task = Task(data="digits", teachers=notes)
    quoted = Quoted(name="quoted", unit=Unit.RECORD, given="the data")
    return [
        Row(key="one", task=task, method=Noted(folder=notes), target=TARGET),
        Row(key="other", task=task, method=Noted(folder=notes, accuracy=0.7), target=TARGET),
        Row(key="quoted", task=task, method=quoted, target=TARGET, published=0.7, source="paper"),
    ]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not ask which process measures: each process of its own takes seconds."""
    monkeypatch.setattr(running, "in_a_process", lambda measure, *given: measure(*given))


def test_every_row_is_measured_once_in_a_process_of_its_own(
    rows: list[Row], notes: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    rows = [rows[0], rows[2]]  # what is only quoted is not measured
    measured = measure_all(rows, seeds=2, results=results)
    assert [(one.row, one.seed) for one in measured] == [("one", 0), ("one", 1)]
    made = sorted(path.name for path in notes.iterdir())
    assert len(made) == 2
    assert len({name.split("-")[2] for name in made} | {str(os.getpid())}) == 3
    assert all(one.peak_memory > 50e6 for one in measured)
    # Again: nothing is measured twice, and the same comes back.
    assert measure_all(rows, seeds=2, results=results) == measured
    assert sorted(path.name for path in notes.iterdir()) == made


def test_a_row_without_features_is_known_from_before_there_were_any(rows: list[Row]) -> None:
    row = replace(rows[0], task=replace(rows[0].task, data="digits", model="cnn"), target=None)
    plain = replace(row, method=Pate(shards=30, queries=50))
    assert settings_of(plain) == "6cb83be52043a0ad"
    on_glyphs = replace(row, method=Pate(shards=30, queries=50, features="glyphs"))
    assert settings_of(on_glyphs) != settings_of(plain)


@pytest.mark.thorough
def test_a_row_that_changed_is_measured_anew(rows: list[Row], notes: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(run_of(rows[0], 0.5).to_line())
    changed = replace(rows[0], method=Noted(folder=notes, accuracy=0.9))
    assert settings_of(changed) != settings_of(rows[0])
    (found,) = measure_all([changed], seeds=1, results=results)
    assert found.outcome.accuracy == 0.9
    elsewhere = replace(rows[0], task=replace(rows[0].task, teachers=tmp_path))
    assert settings_of(elsewhere) == settings_of(rows[0])


@pytest.mark.usefixtures("in_this_process")
def test_what_another_version_kept_is_shown_until_it_is_measured_again(
    rows: list[Row], tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    other, unknown = replace(run_of(rows[0], 0.1), made_by="other"), run_of(rows[1], 0.2)
    earlier = json.loads(unknown.to_line())
    del earlier["made_by"]  # as lines were before
    results.write_text(other.to_line() + json.dumps(earlier) + "\n")
    told = "kept by another version: one; kept by an unknown version: other"
    assert kept_by_others(rows, seeds=1, results=results) == told
    shown = measure_all(rows, seeds=1, results=results)
    assert shown == [other, unknown]
    text = markdown("Title", summarise(rows, shown), command="dpsd bench suite")
    assert f"Rows {told}. With `--again` they are measured anew." in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(summarise(rows, shown)))))
    assert [line["measured_by"] for line in lines] == ["another version", "an unknown version", ""]

    anew = measure_all(rows, seeds=1, results=results, again=True)
    assert [one.outcome.accuracy for one in anew] == [0.5, 0.7]
    assert not kept_by_others(rows, seeds=1, results=results)
    assert "--again" not in markdown("Title", summarise(rows, anew), command="dpsd bench suite")
    # Once is enough, and what this version measured stays when another comes back.
    assert measure_all(rows, seeds=1, results=results, again=True) == anew
    with results.open("a") as lines_of:
        lines_of.write(other.to_line())
    assert measure_all(rows, seeds=1, results=results) == anew


@pytest.mark.usefixtures("in_this_process")
def test_half_a_line_is_passed_over_and_does_not_spoil_the_next(
    rows: list[Row], tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    first = [run_of(rows[0], 0.5)]
    results.write_text(first[0].to_line())
    with results.open("a") as lines:
        lines.write('{"row": "oth')
    assert read_results(results) == first
    assert len(measure_all(rows[:2], seeds=1, results=results)) == 2
    assert len(read_results(results)) == 2


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"row": 1}\n')
    with pytest.raises(RunError, match="cannot be read"):
        read_results(tmp_path / "results.jsonl")


def run_of(row: Row, accuracy: float | None, seed: int = 0) -> Measured:
    return Measured(
        row=row.key,
        settings=settings_of(row),
        seed=seed,
        outcome=Outcome(accuracy=accuracy, seconds=10.0, epsilon={"response": 1.0}),
        peak_memory=10**9,
        hardware="a machine",
        day="2026-01-02",
    )


def as_shown(summary: Summary) -> dict[str, str]:
    """The cells of a row by their headings."""
    return dict(zip((column.name for column in FIELD), cells(summary), strict=True))


def test_tables_keep_measured_and_published_apart(rows: list[Row]) -> None:
    measured = [run_of(rows[0], 0.5), run_of(rows[0], 0.6, seed=1), run_of(rows[1], 0.25)]
    summaries = summarise(rows, measured)
    table = [as_shown(summary) for summary in summaries]
    assert [row["accuracy (%)"] for row in table] == ["55.00", "25.00", "-"]
    assert [row["± (seeds)"] for row in table] == ["7.07 (2)", "- (1)", "-"]
    assert [row["published (%)"] for row in table] == ["-", "-", "70.00 (paper)"]
    assert [row["ε is about"] for row in table] == ["an answer", "an answer", "a training record"]
    text = markdown("Title", summaries, command="dpsd bench suite")
    assert text.startswith("# Title\n")
    assert "δ = 1e-05" in text
    assert "Hardware: a machine. 2026-01-02" in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(summaries))))
    assert [line["accuracy"] for line in lines] == ["0.5", "0.6", "0.25", ""]
    assert [line["published"] for line in lines] == ["", "", "", "0.7"]


def test_what_is_not_private_has_no_epsilon(rows: list[Row], notes: Path) -> None:
    method = Noted(folder=notes, unit=Unit.NOTHING)
    (summary,) = summarise([replace(rows[0], method=method, target=None)], [])
    row = as_shown(summary)
    assert (row["ε"], row["ε is about"]) == ("-", "nothing: not private")


@pytest.mark.parametrize(("kind", "accuracy"), [("dots", 0.5), ("panels", 0.5), ("panels", None)])
def test_figures_are_drawn(
    rows: list[Row], tmp_path: Path, kind: str, accuracy: float | None
) -> None:
    rows = [replace(row, panel="size", value=number) for number, row in enumerate(rows)]
    summaries = summarise(rows, [run_of(row, accuracy) for row in rows[:2]])
    draw(kind, "Title", summaries, tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 200


def test_names_of_many_changed_settings_leave_room_for_the_figure(
    rows: list[Row], tmp_path: Path
) -> None:
    long = [replace(row, panel=", ".join(f"setting_{n}=value" for n in range(12))) for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as Matplotlib warns where no room is left
        summaries = summarise(long, [run_of(row, 0.5) for row in long])
        draw("dots", "Title", summaries, tmp_path / "figure.png")


CURVE = [(2.0, 0.3), (5.0, 0.8), (9.0, 0.7)]


@dataclass(frozen=True)
class Curved(Noted):
    """A method whose student is as good as :data:`CURVE` says, when it says."""

    def measure(self, task: Task, *, target: Budget | None, seed: int) -> Outcome:
        return Outcome(accuracy=0.7, seconds=9.0, details={"curve": CURVE})


@pytest.mark.parametrize(("reach", "reached"), [(0.25, (2.0, 0.3)), (0.5, (5.0, 0.8)), (0.9, None)])
def test_a_race_ends_where_the_accuracy_is_reached(
    rows: list[Row], notes: Path, reach: float, reached: tuple[float, float] | None
) -> None:
    race = Race(Curved(folder=notes), reach=reach)
    outcome = race.measure(rows[0].task, target=rows[0].target, seed=0)
    assert (outcome.seconds, outcome.accuracy) == (reached or CURVE[-1])
    assert (race.unit, race.given) == (race.method.unit, race.method.given)


def test_races_are_drawn_over_time(rows: list[Row], tmp_path: Path) -> None:
    outcome = Outcome(accuracy=0.8, seconds=5.0, details={"curve": CURVE})
    runs = [replace(run_of(row, 0.8), outcome=outcome) for row in rows[:1]]
    draw("curves", "Title", summarise(rows, runs), tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 200
