"""A small run, what its owner measured of it, and pages that show it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import dpsd
from dpsd.datasets import LabelledImages
from dpsd.reporting.report import Report
from dpsd.reporting.sections import Subject
from dpsd.results.evaluation import evaluate
from dpsd.runs.findings import Control, Findings, Picture, Table

#: What would be markup, or the end of a script, if it were not escaped.
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> dpsd.RunDirectory:
    """A finished run, with a class that is called by hostile words. Not to be changed."""

    def left_or_right(images: Any) -> Any:
        return 20 * images[:, 0, :, :6].reshape(len(images), 8, 2, 3).mean((1, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dpsd.transcribe(
            dpsd.load_teacher(
                left_or_right,
                input_shape=(1, 8, 8),
                scores="logits",
                class_names=("left", HOSTILE),
            ),
            mechanism=dpsd.RandomizedResponse(),
            budget=dpsd.Budget(epsilon=8.0, adjacency="response"),
            recipe=dpsd.Recipe(
                rounds=3, queries=400, generator_steps=1, exploration=0.5, device="cpu"
            ),
            out=tmp_path_factory.mktemp("runs") / "sides",
        ).directory


@pytest.fixture(scope="session")
def evaluation(run: dpsd.RunDirectory) -> dict[str, Any]:
    """What ``dpsd evaluate --json`` says of the run's student."""
    images = torch.zeros((40, 1, 8, 8), dtype=torch.uint8)
    images[:20, :, :, :3] = 255
    images[20:, :, :, 3:6] = 255
    labels = torch.arange(40) // 20
    names = ("left", HOSTILE)
    data = LabelledImages(images=images, labels=labels, class_names=names, name="s", split="test")
    return evaluate(run, data).to_dict()


@pytest.fixture(scope="session")
def findings(run: dpsd.RunDirectory) -> list[Findings]:
    """An attack that missed its control, and a valid one with a picture and a table."""
    valid = Findings(
        kind="copies",
        run=run.identity,
        student=str(run.ledger.ending()["student"]),
        data="digits",
        seed=0,
        seconds=2.0,
        verdict="No near-copies among 100 samples; this is not a privacy measure.",
        controls=(Control(name="returned", found=True, sentence="A generator returned records."),),
        scores={"nearest": 1},
        tables=(Table(title="Copies", columns=("of", "found %"), rows=(("samples", 0.125),)),),
        pictures=(
            Picture(
                name="pairs", caption="Closest pairs.", finding="None is alike.", shows_records=True
            ),
        ),
    )
    missed = Control(name="memorised", found=False, sentence="The student knew every record.")
    invalid = replace(
        valid, kind="membership", verdict="AUC 0.5.", controls=(missed,), tables=(), pictures=()
    )
    return [invalid, valid]


@pytest.fixture(scope="session")
def report(
    run: dpsd.RunDirectory, evaluation: dict[str, Any], findings: list[Findings]
) -> Callable[..., Report]:
    """Make a report of the run, or of the same run several times; ``private`` adds all there is."""

    def make(*, runs: int = 1, private: bool = True) -> Report:
        shown: dict[str, Any] = {"evaluations": [evaluation], "findings": findings}
        certificate = run.certify()
        return Report(
            subjects=[
                Subject(
                    run=run,
                    certificate=certificate,
                    name=f"run {number}",
                    number=number,
                    **(shown if private else {}),
                )
                for number in range(1, runs + 1)
            ]
        )

    return make


@pytest.fixture
def noise_picture() -> Callable[[Path, int], None]:
    """Write a picture of so many pixels a side, which hardly compresses."""

    def write(path: Path, side: int) -> None:
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((side, side), 90).save(path)

    return write
