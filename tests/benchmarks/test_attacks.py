"""The benchmark of attacks: every way of protecting is attacked, and nothing is made twice."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dpsd.attacks.membership.recipes import Method
from dpsd.datasets import load_dataset
from dpsd.runs.findings import Table

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attacks.py"
QUICK = ("--quick", "--epsilons", "10", "--out")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_of_attacks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(SCRIPT.parent))  # as Python does for a script
        patched.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def test_every_way_says_whom_its_epsilon_protects_and_what_decides_it(
    script: ModuleType, tmp_path: Path
) -> None:
    sizes = script.Sizes(
        data="digits", records=300, canaries=80, pairs=3, queries=200, shards=15, epochs=2,
        reconstructions=5, seed=0, is_quick=True,
    )  # fmt: skip
    found = list(script.ways(sizes, load_dataset("digits", "train"), tmp_path, [10.0, 1.0]))
    assert {one.name: one.claim for one in found} == {
        "student, labels, ε = 10": "10, an answer (`response`)",
        "student, labels, ε = 1": "1, an answer (`response`)",
        "student, data, ε = 10": "10, an answer (`response`)",
        "student, data, ε = 1": "1, an answer (`response`)",
        "student, ensemble of 15, ε = 10": "10, a training record (`teacher`)",
        "student, ensemble of 15, ε = 1": "1, a training record (`teacher`)",
        "DP-SGD, ε = 10": "10, a training record, added or removed",
        "DP-SGD, ε = 1": "1, a training record, added or removed",
    }
    assert all(isinstance(one, Method) for one in found)
    stated = [one.stated() for one in found]
    assert all(one not in stated[:place] for place, one in enumerate(stated))


def test_help_shows_the_docstring_and_every_default(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert str(script.__doc__).strip() in said
    for words in (
        "membership: who was in the training data; inversion: what the classes look like",
        "as `dpsd data list` names it (default: digits)",
        "(default: 10.0 1.0)",
        "(default: a 20th of the records)",
        "(default: 0)",
        "(default: attacked)",
    ):
        assert words in said
    assert "None" not in said


def test_tables_are_markdown_with_intervals(script: ModuleType) -> None:
    table = Table(
        title="Rates", columns=("model", "AUC", "AUC from", "AUC to"), rows=(("a", 0.5, 0.4, 0.6),)
    )
    assert script.markdown(table).splitlines() == [
        "Rates.", "", "| model | AUC |", "| --- | --- |", "| a | 0.500 (0.400 to 0.600) |",
    ]  # fmt: skip


@pytest.mark.thorough
def test_membership_is_attacked_once_and_goes_on(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opacus")
    script.main(["membership", *QUICK, str(tmp_path)])
    first = capsys.readouterr().out
    for row in ("| teacher | no privacy |", "| student, data, ε = 10 |", "| DP-SGD, ε = 10 |"):
        assert row in first
    assert "All 6 controls held" in first

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a shadow was made again")

    monkeypatch.setattr("dpsd.attacks.membership.shadows.transcribed", refuse)
    monkeypatch.setattr("ways_of_protecting.transcribed", refuse)
    script.main(["membership", *QUICK, str(tmp_path)])
    assert capsys.readouterr().out == first


@pytest.mark.thorough
def test_every_model_is_inverted_with_one_prior(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("opacus")
    script.main(["inversion", *QUICK, str(tmp_path)])
    said = capsys.readouterr().out
    for name in ("teacher", "student, labels, ε = 10", "student, distilled", "DP-SGD, ε = 10"):
        # In success and in nearness, by each of four attacks.
        rows = [line for line in said.splitlines() if line.startswith(f"| {name} | ")]
        assert [row.count(" to ") for row in rows] == [4, 4]
    assert said.count("| the prior, unguided | ") == 2
    assert len(list(tmp_path.glob("*/inversion-prior-*"))) == 1
