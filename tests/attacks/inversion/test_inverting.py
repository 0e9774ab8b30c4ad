"""A run is attacked with controls, and an attack goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.attacks.inversion.conftest import SHAPE, World
from torch import Tensor

import dpsd
from dpsd.attacks.inversion import Inversion, attack, inverting
from dpsd.attacks.inversion.attacker import as_reconstructions
from dpsd.attacks.inversion.pictures import _PAPER, _surest, draw_grid
from dpsd.attacks.inversion.planted import memorising
from dpsd.attacks.inversion.reconstructions import Reconstructions
from dpsd.attacks.target import Target
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError, UnknownNameError
from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Findings, read_findings

SMALL = Inversion(
    attacks=("label-only", "prior-free"), public_images=256, reconstructions=15, restarts=5,
    control_reconstructions=5, steps=30, rounds=6, points=6, width=8, latent_dim=16,
    prior_steps=40, conditional_steps=5, evaluator_steps=40,
)  # fmt: skip


def black_box(world: World) -> dpsd.Teacher:
    """A teacher that is a function."""

    def answers(images: Tensor) -> Tensor:
        scores: Tensor = world.trained(images)
        return scores.detach()

    return dpsd.load_teacher(answers, input_shape=SHAPE, num_classes=3)


def number(cell: object) -> float:
    assert isinstance(cell, float)
    return cell


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("runs")
    return dpsd.transcribe(
        black_box(world),
        student="cnn",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=1.0, delta=1e-5, adjacency=dpsd.Adjacency.RESPONSE),
        out=folder / "run",
        budget_file=folder / "budget.jsonl",
        recipe=dpsd.Recipe(rounds=1, queries=64, student_steps=1, generator_steps=0),
        observer=None,
    ).directory


def target_of(run: RunDirectory, world: World, members: LabelledImages | None = None) -> Target:
    return Target(
        run=run, members=members or world.members, others=world.others, teacher=black_box(world)
    )


class Stopping:
    """Interrupts an attack at the first step of a part."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.parts: list[str] = []

    def step(self, what: str, done: int, total: int) -> None:
        assert 0 < done <= total
        self.parts.append(what)
        if self.part and self.part in what:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def found(run: RunDirectory, world: World) -> tuple[Findings, Path]:
    """The findings of an attack that was stopped once, and their folder."""
    folder = run.path / "attacks"

    def attacked(progress: Stopping) -> Findings:
        return attack(
            target_of(run, world), settings=SMALL, folder=folder, progress=progress,
            also={"a memorising model": memorising(world.members, seed=0)},
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        attacked(Stopping("prior-free of student"))
    rest = Stopping("")
    findings = attacked(rest)
    # What was finished before is not done again.
    assert not [part for part in rest.parts if "the prior" in part or "teacher" in part]
    assert [part for part in rest.parts if "prior-free of student" in part]
    return findings, folder


def test_findings_are_valid_and_find_what_was_memorised(
    found: tuple[Findings, Path], run: RunDirectory
) -> None:
    findings, _ = found
    assert findings.is_valid, [one for one in findings.controls if not one.found]
    assert len(findings.controls) == 5
    findings.save(run.path)
    assert read_findings(run.path) == [findings]
    # What the prior knows is said in the file, and with a table, which shows it if this is invalid.
    words = "printed letters, without digits"
    assert findings.details["prior"] == words
    assert words in findings.verdict
    assert words in findings.tables[0].note
    # The teacher is a function, so only its labels are attacked.
    nearer = {(row[0], row[1]): row for row in findings.tables[1].rows}
    attacked = {name for name, _ in nearer}
    assert "teacher, label-only" in attacked
    assert "teacher, prior-free" not in attacked
    assert number(nearer["a memorising model, prior-free", "pixels"][3]) > 0.5
    assert (
        "prior-free reconstructions of a memorising model are nearer to a training"
        in findings.verdict
    )
    assert "not leakage of a record" in findings.verdict
    is_apart = {row[-1] for row in findings.tables[1].rows if number(row[3]) > 0.5}
    assert is_apart == {"above"}
    # One round of 64 answers at ε = 1 taught the student nothing, and nothing is near to records.
    assert all(
        number(nearer["student, prior-free", space][3]) < 0.5 for space in ("pixels", "wavelets")
    )


def test_the_picture_says_that_it_may_show_records(found: tuple[Findings, Path]) -> None:
    findings, folder = found
    (picture,) = findings.pictures
    assert picture.shows_records
    assert (folder / f"{picture.name}.svg").stat().st_size < 200_000
    assert (folder / f"{picture.name}.png").stat().st_size < 200_000


def test_nothing_is_kept_as_a_pickle(found: tuple[Findings, Path]) -> None:
    _, folder = found
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".svg", ".png"}


def test_a_finished_attack_is_read_again_with_the_same_numbers(
    found: tuple[Findings, Path], run: RunDirectory, world: World
) -> None:
    findings, folder = found
    again = attack(
        target_of(run, world), settings=SMALL, folder=folder,
        also={"a memorising model": memorising(world.members, seed=0)},
    )  # fmt: skip
    assert replace(again, seconds=0) == replace(findings, seconds=0)
    json.dumps(findings.settings, allow_nan=False)


def test_no_picture_is_made_of_people_and_others_say_that_they_show_records(
    found: tuple[Findings, Path], run: RunDirectory, world: World, tmp_path: Path
) -> None:
    people = replace(
        world.members, persons=tuple("ab"[row % 2] for row in range(len(world.members)))
    )
    _, folder = found
    for path in folder.glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shown = attack(target_of(run, world), settings=SMALL, folder=tmp_path)
    assert shown.pictures[0].shows_records
    assert {path.suffix for path in tmp_path.glob("inversion-grid.*")} == {".svg", ".png"}
    findings = attack(target_of(run, world, people), settings=SMALL, folder=tmp_path)
    assert findings.pictures == ()
    assert not list(tmp_path.glob("*.svg")) + list(tmp_path.glob("*.png"))


def test_a_picture_shows_held_out_records_of_published_data_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless reconstructions may show records anyway."""
    drawn = list[dict[str, Reconstructions]]()
    monkeypatch.setattr(inverting, "draw_grid", lambda rows, **_: drawn.append(rows))
    published, own = world.others, replace(world.others, name="folder:/home/me/friends")
    for data, is_leaking, are_private, shows in (
        (published, False, False, True),
        (own, False, False, False),
        (own, True, False, True),
        (own, False, True, True),
    ):
        attacker = SimpleNamespace(
            public=SimpleNamespace(classes=torch.arange(3), are_private=are_private),
            unguided=lambda _: as_reconstructions(published.images[:3], torch.arange(3)),
        )
        (picture,) = inverting._pictures({}, data, "abc", attacker, is_leaking, tmp_path)  # type: ignore[arg-type]
        assert picture.shows_records == shows
        assert ("real, held out" in drawn.pop()) == shows
        assert ("real record that was held out" in picture.caption) == shows


def test_the_cell_of_a_class_without_a_record_is_empty(world: World, tmp_path: Path) -> None:
    classes = torch.arange(3)
    rows = {
        "real": as_reconstructions(world.others.images[:2] * 0, torch.tensor([0, 2])),
        "prior": as_reconstructions(world.others.images[:3] * 0, classes),
    }
    draw_grid(rows, classes=classes, class_names="abc", folder=tmp_path, name="grid")
    assert (tmp_path / "grid.png").is_file()
    cells = [_surest(rows["real"], label).float().mean().item() for label in range(3)]
    assert cells == [0, _PAPER, 0]


def test_a_name_of_the_own_models_is_taken(
    run: RunDirectory, world: World, found: tuple[Findings, Path]
) -> None:
    with pytest.raises(ConfigError, match="'student'"):
        attack(
            target_of(run, world), settings=SMALL, folder=found[1], also={"student": world.trained}
        )


def test_held_out_records_that_are_all_training_records_are_refused(
    run: RunDirectory, world: World, tmp_path: Path
) -> None:
    target = Target(run=run, members=world.members, others=replace(world.members, split="test"))
    with pytest.raises(ConfigError, match="have 0 pairs of different records"):
        attack(target, settings=SMALL, folder=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inversion(attacks=("gmmi",)), "did you mean 'gmi'"),
        (lambda: Inversion(attacks=()), "attacks is empty"),
        (lambda: Inversion(steps=0), "steps is 0"),
        (lambda: Inversion(public_images=10), "at least 64"),
        (lambda: Inversion(control_reconstructions=7), "multiple of restarts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make: Callable[[], Inversion], message: str
) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        make()
