"""Every setting is a flag and a key of the TOML file, and both say the same."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from dpsd.cli.options import PANELS
from dpsd.cli.transcribe import command
from dpsd.config.federation import FederationConfig
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError

Invoke = Callable[..., Result]
#: A value for each kind of flag that is not the default.
CHANGED = (
    *("--protect", "data", "--epsilon", "2.5", "--adjacency", "teacher"),
    *("--top-k", "4", "--no-harden", "--no-adaptive", "--sources", "noise,crops"),
    *("--input-shape", "3,32,32", "--mean", "0.4,0.5,0.6", "--deviation", "0.1,0.2,0.3"),
    *("--queries", "123", "--seed", "5", "--student", "resnet8", "--scores", "logits"),
)


def test_every_field_has_a_flag_with_its_default_and_description() -> None:
    built = command()
    context = click.Context(built)
    options: dict[str | None, Any] = {option.name: option for option in built.params}
    assert TranscriptionConfig.fields().keys() <= options.keys()
    for name, field in TranscriptionConfig.fields().items():
        if name != "teacher":
            assert options[name].help == field.description
            assert f"--{name.replace('_', '-')}" in options[name].opts
    assert options["rounds"].get_default(context) == TranscriptionConfig.fields()["rounds"].default


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--top-k", "3"), "--top-k is 3, but it shapes gradients, and --protect 'labels'"),
        (("--scaling", "clip"), "--scaling is 'clip'"),
        (("--protect", "data", "--candidates", "3"), "--candidates is 3, but it is about classes"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    invoke: Invoke, flags: tuple[str, ...], said: str
) -> None:
    refused = invoke("transcribe", "some/teacher", "--epsilon", "1", *flags, "--print-config")
    assert refused.exit_code == 2
    assert said in " ".join(refused.stderr.split())
    assert "leave it out" in refused.stderr


@pytest.mark.parametrize(
    ("members", "settings", "said"),
    [
        (1, {"consensus": 0.5}, "there is only one"),
        (40, {"candidates": "all"}, "answers of 40 are summed"),
        (40, {"consensus_noise": 1.0}, "only runs with consensus"),
        (40, {"protect": "data", "bound": 2.0}, "answers of 40 are summed"),
    ],
)
def test_settings_for_another_number_of_teachers_are_refused(
    members: int, settings: dict[str, object], said: str
) -> None:
    config = TranscriptionConfig(teacher="some/teacher", epsilon=1.0, **settings)
    with pytest.raises(ConfigError, match=said):
        config.privacy.require_effect(members=members)
    TranscriptionConfig(teacher="some/teacher", epsilon=1.0).privacy.require_effect(members=members)


def test_panels_name_real_fields_once() -> None:
    names = [name for panel in PANELS.values() for name in panel]
    assert len(names) == len(set(names))
    assert set(names) <= TranscriptionConfig.fields().keys() | FederationConfig.fields().keys()


def test_printed_configuration_reads_back_the_same(invoke: Invoke, tmp_path: Path) -> None:
    printed = invoke("transcribe", "some/teacher", *CHANGED, "--print-config")
    assert printed.exit_code == 0, printed.stderr
    path = tmp_path / "settings.toml"
    path.write_text(printed.stdout)
    again = invoke("transcribe", "--config", path, "--print-config")
    assert again.stdout == printed.stdout
    config = TranscriptionConfig(
        **{"teacher": "some/teacher", "epsilon": 2.5, "protect": "data", "queries": 123},
        **{"adjacency": "teacher", "top_k": 4, "harden": False},
        **{"adaptive": False, "sources": ("noise", "crops"), "input_shape": (3, 32, 32)},
        **{"mean": (0.4, 0.5, 0.6), "deviation": (0.1, 0.2, 0.3), "seed": 5},
        **{"student": "resnet8", "scores": "logits"},
    )
    for line in ('sources = [\n    "noise",\n    "crops",\n]', "top_k = 4", "queries = 123"):
        assert line in printed.stdout
    assert config.privacy.top_k == 4


def test_what_the_images_decide_is_printed_only_if_it_was_chosen(invoke: Invoke) -> None:
    printed = invoke("transcribe", "teacher", "--epsilon", 1, "--batch-size", 64, "--print-config")
    assert "\nbatch_size = 64\n" in printed.stdout
    assert "generator_batch_size" not in printed.stdout


def test_flags_override_the_file_and_defaults_do_not(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('teacher = "there"\nepsilon = 3.0\nrounds = 5\nqueries = 70\n')
    result = invoke("transcribe", "--config", path, "--rounds", 8, "--print-config")
    assert "rounds = 8" in result.stdout  # given, though it is the default
    assert "queries = 70" in result.stdout
    assert 'teacher = "there"' in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["teacher", "--out", "run"], "--epsilon is required"),
        (["teacher", "--epsilon", "-1", "--out", "run"], "--epsilon must be positive"),
        (["teacher", "--epsilon", "1", "--rounds", "0", "--out", "run"], "--rounds must be"),
        (["teacher", "--epsilon", "1", "--delta", "1", "--out", "run"], "--delta must be"),
        (["teacher", "--epsilon", "1"], "--out"),
        (["--epsilon", "1", "--out", "run"], "TEACHER is required"),
        (["teacher", "--epsilon", "1", "--input-shape", "1,8"], "--input-shape has too few values"),
        (["--config", "absent.toml", "--out", "run"], "no such file"),
        (["teacher", "--epsilon", "1", "--epsilno", "2", "--out", "run"], "--epsilno"),
        (["teacher", "--epsilon", "one", "--out", "run"], "one"),
        (["teacher", "--epsilon", "1", "--mean", "0.5", "--out", "run"], "--mean and --deviation"),
    ],
)
def test_wrong_settings_are_one_line(
    invoke: Invoke,
    assert_error: Callable[[Result, int, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(invoke("transcribe", *arguments), 2, words)
    assert not list(tmp_path.iterdir())


def test_unknown_key_in_the_file(
    invoke: Invoke, assert_error: Callable[[Result, int, str], None], tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('teacher = "there"\nepsilon = 3.0\nepochz = 5\n')
    said = f"{path}: epochz is not a setting: did you mean epochs?"
    assert_error(invoke("transcribe", "--config", path), 2, said)


def test_what_has_no_default_is_left_for_the_user_to_fill_in(
    invoke: Invoke, tmp_path: Path
) -> None:
    printed = invoke("transcribe", "--print-config")
    assert printed.exit_code == 0, printed.stderr
    settings = tomllib.loads(printed.stdout)
    # What nobody chose depends on an epsilon that nobody knows yet.
    assert not settings.keys() & {"teacher", "epsilon", "rounds", "queries", "first_epochs"}
    chosen = invoke("transcribe", "there", "--rounds", 3, "--print-config").stdout
    assert tomllib.loads(chosen)["teacher"] == "there"
    assert tomllib.loads(chosen)["rounds"] == 3
    # Filled in, it gives the run that the same flags give.
    path = tmp_path / "settings.toml"
    lines = printed.stdout.replace('# teacher = "PATH"', 'teacher = "there"')
    path.write_text(lines.replace("# epsilon = 1.0", "epsilon = 2.0"), encoding="utf-8")
    again = invoke("transcribe", "--config", path, "--print-config").stdout
    assert again == invoke("transcribe", "there", "--epsilon", 2, "--print-config").stdout


@pytest.mark.parametrize("flag", ["--weights", "--teacher-weights"])
@pytest.mark.parametrize("command", [("transcribe", "--epsilon", 1, "--out", "run"), ("budget",)])
def test_weights_go_by_either_name_and_help_shows_one(
    invoke: Invoke,
    assert_error: Callable[[Result, int, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    flag: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    result = invoke(name, "torch.nn:Identity", "--input-shape", "1,8,8", flag, "w.pt", *rest)
    assert_error(result, 4, "there is no weights file w.pt")
    shown = invoke(name, "--help").stdout
    assert "--teacher-weights" in shown
    assert " --weights" not in shown


@pytest.mark.parametrize(
    ("flags", "rounds", "queries"),
    [
        (("--epsilon", 1), 1, 1_200_000),
        (("--epsilon", 55), 5, 64_000),
        (("--epsilon", 100), 8, 40_000),
        (("--epsilon", 1, "--adjacency", "response"), 24, 30_000),
        (("--epsilon", 3, "--adjacency", "response"), 8, 40_000),
        (("--epsilon", 1, "--adjacency", "teacher"), 8, 40_000),
        (("--epsilon", 1, "--rounds", 3), 3, 40_000),
        (("--epsilon", 1, "--queries", 500), 8, 500),
    ],
)
def test_rounds_that_nobody_chose_suit_the_budget(
    invoke: Invoke, flags: tuple[object, ...], rounds: int, queries: int
) -> None:
    printed = invoke("transcribe", "teacher", *flags, "--print-config").stdout.splitlines()
    assert f"rounds = {rounds}" in printed
    assert f"queries = {queries}" in printed


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("prior_temperature = -1.0", "prior_temperature must be above 0, not -1.0"),
        ("top_k = 3", "top_k is 3, but it shapes gradients, and --protect 'labels'"),
        ("mean = [0.5]", "mean and --deviation belong together"),
    ],
)
def test_a_mistake_in_the_file_is_told_by_its_key_and_one_on_the_command_line_by_its_flag(
    invoke: Invoke,
    assert_error: Callable[[Result, int, str], None],
    tmp_path: Path,
    line: str,
    key: str,
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'teacher = "there"\nepsilon = 3.0\n{line}\n')
    written = invoke("transcribe", "--config", path, "--out", tmp_path / "run")
    assert_error(written, 2, f"error: {key}")
    overridden = invoke("transcribe", "--config", path, "--epsilon", -1, "--out", tmp_path / "run")
    if line.startswith("prior"):
        assert_error(
            overridden, 2, f"error: --epsilon must be positive and finite, not -1.0; {key}"
        )
    else:
        assert_error(overridden, 2, "error: --epsilon must be positive")


def test_what_a_teacher_needs_is_told_by_the_flag_that_gives_it(
    invoke: Invoke, assert_error: Callable[[Result, int, str], None], odd_teachers: Path
) -> None:
    running = ("--epsilon", 1, "--out", "run")
    result = invoke("transcribe", "odd_teachers:factory", *running)
    assert_error(result, 4, "give --input-shape, the channels, height and width")
    Path("own.safetensors").write_bytes(b"")
    result = invoke(
        *("transcribe", "odd_teachers:factory", "--input-shape", "1,8,8"),
        *("--teacher-weights", "own.safetensors", *running),
    )
    assert_error(result, 4, "--teacher-weights 'own.safetensors' needs a module to fill")
    result = invoke("budget", "odd_teachers:factory", "--weights", "own.safetensors")
    assert_error(result, 4, "--teacher-weights 'own.safetensors' needs a module to fill")
