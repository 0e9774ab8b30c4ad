"""`dpsd attack`: which records it is given, what it says, and that it says so once."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from rich.console import Console
from torch import Tensor

from dpsd.attacks.attacking import Attacking
from dpsd.attacks.copies import searching
from dpsd.cli import progress
from dpsd.datasets import load_dataset

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]
QUICK = ("--data", "digits", "--kind", "copies", "--quick")


def test_findings_are_shown_with_their_controls_and_kept(invoke: Invoke, run_copy: Path) -> None:
    result = invoke("attack", run_copy, *QUICK)
    assert result.exit_code == 0, result.stderr
    for words in (
        "No near-copies among 400 samples at threshold",
        "this is not a privacy measure; see membership.",
        "Near-copies of training records: more is worse",
        "the teacher",
        "passed: A generator was planted that returns",
        "copies-pixels.png; it shows private records",
        "no number or picture here is privatised",
    ):
        assert words in result.stdout

    stated = json.loads(run_copy.joinpath("attacks", "copies.json").read_text())
    assert (stated["privatised"], stated["is_valid"]) == (False, True)
    again = invoke("attack", run_copy, *QUICK, "--json")
    assert "copies was attacked before; --again repeats it" in again.stderr
    assert json.loads(again.stdout) == [stated]

    repeated = invoke("attack", run_copy, *QUICK, "--json", "--again")
    assert "attacked before" not in repeated.stderr
    (found,) = json.loads(repeated.stdout)
    assert found | {"seconds": 0} == stated | {"seconds": 0}
    assert invoke("certify", run_copy).exit_code == 0


def test_an_attack_that_misses_its_plant_fails(
    invoke: Invoke, run_copy: Path, assert_error: AssertError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(images: Tensor) -> Tensor:
        return torch.zeros(len(images), 3)

    monkeypatch.setattr(searching, "pixels", blind)
    monkeypatch.setattr(searching, "scattering_features", lambda *_: blind)
    result = invoke("attack", run_copy, *QUICK)
    assert_error(result, 1, "copies: the attack is invalid, as it failed its own controls")
    assert "Attack invalid: it failed its own controls" in result.stdout
    assert "No near-copies" not in result.stdout
    assert "FAILED: A generator was planted" in result.stdout


def test_members_are_the_records_that_the_teacher_was_trained_on(
    invoke: Invoke, run_copy: Path, assert_error: AssertError, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def look(attacking: Attacking, kind: str) -> None:
        given.append((len(attacking.target.members), len(attacking.target.others)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacking, "earlier", look)
    assert invoke("attack", run_copy, *QUICK).exit_code == 130
    assert_error(
        invoke("attack", run_copy, *QUICK, "--validation-share", 0.2),
        2,
        "--validation-share is 0.2, but the teacher's record says that 0 was held out",
    )
    assert_error(
        invoke("attack", run_copy, *QUICK, "--group-by", "re:(.)"), 2, "one by one: leave it out"
    )
    # Data that the teacher's record is not about: their owner has to say what was held out.
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    own = run_copy.parent / "own.npz"
    np.savez(
        own,
        train_images=train.images[:, 0].numpy(),
        train_labels=train.labels.numpy(),
        test_images=test.images[:, 0].numpy(),
        test_labels=test.labels.numpy(),
    )
    command = ("attack", run_copy, "--data", own, "--kind", "copies")
    assert_error(invoke(*command), 2, "0 if none was, with --validation-share")
    held = load_dataset(str(own), "validation", validation_share=0.2)
    assert invoke(*command, "--validation-share", 0.2).exit_code == 130
    assert given == [(1_085, 712), (1_085 - len(held), 712)]


def test_further_models_are_opened_under_their_names(
    invoke: Invoke,
    run_copy: Path,
    teacher: Path,
    assert_error: AssertError,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    def look(attacking: Attacking, kind: str) -> None:
        given.append(list(attacking.also))
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacking, "earlier", look)
    command = ("attack", run_copy, "--data", "digits", "--quick")
    also = ("--also", f"trained={teacher}", "--also", run_copy)
    assert invoke(*command, "--kind", "inversion,copies", *also).exit_code == 130
    assert given == [["trained", run_copy.name]]
    assert_error(
        invoke(*command, "--kind", "copies", *also),
        2,
        "--also is for inversion, which attacks models one by one: add it to --kind",
    )


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(progress, "STATUS", terminal)
    seen = terminal.file
    with progress.AttackProgress() as shown:
        for done in range(3):
            shown.step("copies: comparing", done, 2)
        shown.step("copies: training", 1, 2)
        shown._bars.refresh()
    assert isinstance(seen, io.StringIO)
    assert all(word in seen.getvalue() for word in ("copies: training", "50%", "left"))


def test_unfinished_runs_and_impossible_records_are_refused(
    invoke: Invoke, run_copy: Path, assert_error: AssertError
) -> None:
    assert_error(
        invoke("attack", run_copy, "--data", "digits", "--teacher", "nowhere"),
        2,
        "or the place of the teacher's record with --teacher",
    )
    lines = (run_copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run_copy / "ledger.jsonl").write_text("".join(lines[:-1]))
    assert_error(invoke("attack", run_copy, *QUICK), 5, "is not finished: resume it before")
