"""`dpsd attack`: which records it is given, what it says, and that it says so once."""

from __future__ import annotations

import io
import json
import shutil
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
from dpsd.cli import console as cli_console
from dpsd.cli import findings, progress
from dpsd.datasets import load_dataset
from dpsd.errors import ConfigError, RunError, Setting
from dpsd.runs.findings import Table

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]
QUICK = ("--data", "digits", "--kind", "copies", "--quick")


def test_findings_are_shown_with_their_controls_and_kept(invoke: Invoke, run_copy: Path) -> None:
    result = invoke("attack", run_copy, *QUICK)
    assert result.exit_code == 0, result.stderr
    for words in (
        "No near-copies among 400 samples at threshold",
        "this is not a privacy measure; see membership.",
        "Near-copies of training records; more is worse",
        "the teacher",
        "quick; valid: all 3 controls passed",
        "a decision needs one of full size",
        "passed: a generator that returns training images;",
        "copies-pixels.png; it shows private records",
        "no number or picture here is privatised",
    ):
        assert words in result.stdout

    stated = json.loads(run_copy.joinpath("attacks", "copies.json").read_text())
    assert (stated["privatised"], stated["is_valid"]) == (False, True)
    again = invoke("attack", run_copy, *QUICK, "--json")
    assert "copies: the run was attacked before; --again repeats the attack" in again.stderr
    assert json.loads(again.stdout) == [stated]

    repeated = invoke("attack", run_copy, *QUICK, "--json", "--again")
    assert "attacked before" not in repeated.stderr
    (found,) = json.loads(repeated.stdout)
    assert found | {"seconds": 0} == stated | {"seconds": 0}
    certified = invoke("certify", run_copy)
    assert certified.exit_code == 0
    assert f"{run_copy / 'attacks'} is for the owner of the data alone" in certified.stderr


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
    # The same models, with the same seed, would fail again.
    anew = "--seed 1 trains and draws anew, while --again alone would find the same"
    assert "or, without --quick, more effort, or another draw: " + anew in result.stderr
    same = invoke("attack", run_copy, *QUICK)
    assert same.exit_code == 1
    assert f"copies: the run was attacked before; {anew}" in same.stderr


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
    other = run_copy.parent / "other"
    shutil.copytree(run_copy, other)
    also = ("--also", f"trained={teacher}", "--also", other)
    assert invoke(*command, "--kind", "inversion,copies", *also).exit_code == 130
    assert given == [["trained", "other"]]
    assert_error(
        invoke(*command, "--kind", "inversion", "--also", f"same={run_copy}"),
        2,
        "is the run itself, whose student is attacked anyway",
    )
    assert_error(
        invoke(*command, "--kind", "copies", *also),
        2,
        "--also is for inversion, which attacks models one by one: add it to --kind",
    )


def test_the_attackers_public_images_are_handed_on_and_repeated(
    invoke: Invoke, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def interrupted(attacking: Attacking, kind: str, **_: object) -> None:
        given.append((attacking.public, attacking._settings(kind).public, attacking.asked[kind]))
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacking, "play", interrupted)
    command = ("attack", run_copy, "--data", "digits", "--quick")
    result = invoke(*command, "--public", "classes:0,1", "--kind", "inversion,copies")
    assert result.exit_code == 130
    assert given == [("classes:0,1", "classes:0,1", ("--public", "classes:0,1"))]
    assert "a generator of public images (classes:0,1)" in result.stderr
    assert "--kind inversion,copies --quick --public classes:0,1\n" in result.stderr
    assert invoke(*command, "--kind", "inversion").exit_code == 130
    assert given[1] == (None, "letters", ())


@pytest.mark.parametrize(
    ("public", "words"),
    [
        ("digits", "--public is 'digits', the private data set itself"),
        ("classes:0,twelve", "--public is 'classes:0,twelve'; it must name some, and not all"),
        ("lettres", "unknown set of public images 'lettres': did you mean 'letters'?"),
    ],
)
def test_public_images_that_the_attacker_cannot_have_are_refused_at_once(
    public: str,
    words: str,
    invoke: Invoke,
    run_copy: Path,
    assert_error: AssertError,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an attack was begun")

    monkeypatch.setattr(Attacking, "play", refuse)
    command = ("attack", run_copy, "--data", "digits", "--quick", "--public", public)
    assert_error(invoke(*command), 2, words)
    assert_error(invoke(*command, "--kind", "copies"), 2, "--public is for inversion, whose")


def test_an_interrupt_says_how_to_go_on(
    invoke: Invoke, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacking, "play", interrupted)
    result = invoke("attack", run_copy, *QUICK, "--seed", 2, "--device", "cpu")
    assert result.exit_code == 130
    assert "400 of the generator's images are compared" in result.stderr
    assert "interrupted; what is finished is kept" in result.stderr
    again = f"dpsd attack {run_copy} --data digits --kind copies --seed 2 --quick --device cpu"
    assert f"continue with: {again}" in result.stderr


def test_an_interrupt_names_the_kinds_that_are_left(
    invoke: Invoke, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def played(attacking: Attacking, kind: str, **_: object) -> None:
        if kind == "inversion":
            raise RunError("there is no evaluator")
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacking, "play", played)
    other = run_copy.parent / "other"
    shutil.copytree(run_copy, other)
    result = invoke("attack", run_copy, "--data", "digits", "--also", other, "--again")
    assert result.exit_code == 130
    # What is for inversion alone would be refused with the others.
    again = f"dpsd attack {run_copy} --data digits --kind membership,copies --again"
    assert result.stderr.splitlines()[-1] == f"continue with: {again}"
    last = invoke("attack", run_copy, "--data", "digits", "--kind", "inversion,copies")
    assert "--data digits --kind copies\n" in last.stderr


def test_data_that_do_not_fit_are_refused_before_anything_is_asked(
    invoke: Invoke, run_copy: Path, assert_error: AssertError
) -> None:
    own = run_copy.parent / "large.npz"
    images, labels = np.zeros((20, 9, 9), np.uint8), np.arange(20) % 10
    np.savez(own, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    result = invoke("attack", run_copy, "--data", own, "--kind", "copies")
    assert_error(result, 2, "has images of shape (1, 9, 9); the run's is (1, 8, 8)")
    result = invoke("evaluate", run_copy, "--data", own, "--split", "validation")
    assert_error(result, 2, "has images of shape (1, 9, 9); the run's is (1, 8, 8)")


def test_what_is_left_out_is_said_once(
    invoke: Invoke, run_copy: Path, assert_error: AssertError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(attacking: Attacking, kind: str, **_: object) -> None:
        raise ConfigError(Setting("quick"), f" does not suit {kind}")

    monkeypatch.setattr(Attacking, "play", refused)
    alone = invoke("attack", run_copy, *QUICK)
    assert_error(alone, 2, "--quick does not suit copies")
    assert "warning" not in alone.stderr
    both = invoke("attack", run_copy, "--data", "digits", "--kind", "membership,copies")
    assert_error(both, 2, "left out, as said above: membership, copies")
    assert "warning: membership is left out: --quick does not suit membership" in both.stderr
    assert "Measured on" not in alone.stdout + both.stdout


def test_a_line_tells_of_each_part_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console, seconds = Console(file=io.StringIO(), width=80), iter([0.0, 0.0, 30.0, 35.0, 120.0])
    monkeypatch.setattr(progress, "STATUS", console)
    stream = console.file
    with progress.AttackProgress(clock=lambda: next(seconds)) as shown:
        for done in (0, 1, 2, 4):
            shown.step("shadows", done, 4)
    assert isinstance(stream, io.StringIO)
    assert stream.getvalue().splitlines() == [
        "shadows: 1 of 4, about 90 s left",
        "shadows: done in 2 min",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_into_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=width)
    for module in (findings, cli_console):
        monkeypatch.setattr(module, "RESULTS", console)
    columns = ("images of", "attack", *(f"quite a long heading of number {n} %" for n in range(9)))
    numbers = tuple(n / 100 for n in range(9))
    row: tuple[str | float, ...] = ("teacher", "prior-free", *numbers)
    findings._show_table(Table(title="", columns=columns, rows=(row, row)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in console.file.getvalue()
    words = console.file.getvalue().split()
    assert all(words.count(f"{number:.1%}") == 2 for number in numbers)


def test_headings_are_broken_before_a_table_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of short cells that just fits, without a gap after its last column."""
    columns = ("samples", *(f"near copy number {n}" for n in range(8)))
    widths = [len("generator"), *[len("number")] * 8]
    for spare, times in ((0, 1), (-1, 2)):
        console = Console(file=io.StringIO(), width=sum(widths) + 2 * 8 + spare)
        for module in (findings, cli_console):
            monkeypatch.setattr(module, "RESULTS", console)
        findings._show_table(Table(title="", columns=columns, rows=(("generator", *range(8)),)))
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue().count("generator") == times


@pytest.mark.parametrize("is_name", [True, False])
def test_no_word_of_a_long_cell_is_lost(is_name: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=60)
    for module in (findings, cli_console):
        monkeypatch.setattr(module, "RESULTS", console)
    long = " ".join(f"word{place}" for place in range(40))
    row: tuple[str | float, ...] = (long, "b", 0.25) if is_name else ("a", 0.25, long)
    findings._show_table(Table(title="", columns=("one", "two", "three"), rows=(row,)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 60
    assert set(long.split()) | {"0.25"} <= set(shown.split())


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
        "(there is no nowhere: give the place to which it was moved)",
    )
    lines = (run_copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run_copy / "ledger.jsonl").write_text("".join(lines[:-1]))
    result = invoke("attack", run_copy, *QUICK)
    assert_error(result, 5, f"finish it with dpsd transcribe --resume {run_copy}")
    assert "warning" not in result.stderr
