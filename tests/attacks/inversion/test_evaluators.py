"""Evaluators are trained once, say how good they are, and are refused if they are weak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.attacks.inversion.conftest import EXECUTION, World, quiet

from dpsd.attacks.inversion.evaluators import Evaluator, majority, train_evaluators, weakness
from dpsd.attacks.inversion.shelf import Shelf
from dpsd.datasets import LabelledImages
from dpsd.errors import DataError, RunError


def trained(
    members: LabelledImages, others: LabelledImages, folder: Path, *, steps: int = 40
) -> list[Evaluator]:
    return train_evaluators(
        members, others, steps=steps, seed=0, execution=EXECUTION, shelf=Shelf(folder),
        advance=quiet,
    )  # fmt: skip


def mislabelled(data: LabelledImages) -> LabelledImages:
    """Records whose labels are all wrong."""
    return replace(data, labels=(data.labels + 1) % data.num_classes)


def test_evaluators_are_three_unlike_networks_that_know_the_data(
    world: World, tmp_path: Path
) -> None:
    first = trained(world.members, world.others, tmp_path)
    assert [one.name for one in first] == ["cnn", "resnet8", "scattering"]
    assert all(one.accuracy > 0.9 and not one.refused for one in first)
    # A second call takes what was kept, with the same hashes.
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = trained(world.members, world.others, tmp_path)
    assert [one.content for one in again] == [one.content for one in first]
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_evaluators_that_learned_nothing_are_refused(world: World, tmp_path: Path) -> None:
    few = mislabelled(world.members.subset(torch.arange(60)))
    with pytest.raises(DataError, match=r"no evaluator can judge.*cnn.*nearer to chance"):
        trained(few, world.others, tmp_path, steps=10)


def test_an_evaluator_far_below_the_best_is_refused() -> None:
    assert "more than 10 points below" in weakness(0.85, best=0.97, num_classes=10)
    assert not weakness(0.88, best=0.97, num_classes=10)
    assert "nearer to chance" in weakness(0.7, best=0.7, num_classes=2)


def test_without_a_majority_there_is_no_class() -> None:
    votes = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 1, 2]])
    assert majority(votes).tolist() == [0, 1, -1]
    assert majority(votes[:2]).tolist() == [0, -1, -1]


def test_what_is_kept_is_found_by_all_that_it_depends_on(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    made: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        made.append(len(made))
        return {"value": torch.tensor([len(made)])}

    for facts in ({"seed": 0}, {"seed": 0}, {"seed": 1}, {"seed": 0, "records": "abc"}):
        shelf.kept("thing", facts, make)
    assert len(made) == 3
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(RunError, match="delete it"):
        shelf.kept("thing", {"seed": 0}, make)
