"""Findings are kept beside a run, and say nothing if what was planted was missed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.runs.findings import QUICK, Control, Findings, Picture, Table, read_findings

FINDINGS = Findings(
    kind="membership",
    run="f00",
    student="abc",
    data="digits",
    seed=0,
    seconds=1.5,
    verdict="The AUC is 0.51 (0.48 to 0.54).",
    controls=(Control(name="told", found=True, sentence="Found."),),
    scores={"lira": 1},
    tables=(Table(title="Rates", columns=("score", "AUC"), rows=(("lira", 0.51), ("rmia", None))),),
    pictures=(Picture(name="roc", caption="ROC", finding="Both curves are near the diagonal."),),
    settings={"shadows": 16},
)


def test_findings_are_read_as_they_were_saved(tmp_path: Path) -> None:
    FINDINGS.save(tmp_path)
    replace(FINDINGS, kind="copies").save(tmp_path)

    assert read_findings(tmp_path) == [FINDINGS, replace(FINDINGS, kind="copies")]


def test_the_file_says_that_nothing_is_privatised(tmp_path: Path) -> None:
    assert json.loads(FINDINGS.save(tmp_path).read_text())["privatised"] is False


def test_an_attack_that_misses_its_plant_has_no_verdict() -> None:
    missed = replace(FINDINGS, controls=(Control(name="told", found=False, sentence="Missed."),))

    assert not missed.is_valid
    assert missed.verdict not in missed.sentence()
    assert "Attack invalid" in missed.sentence()
    assert "told" in missed.sentence()


def test_findings_without_a_control_are_refused() -> None:
    with pytest.raises(ValueError, match="no control"):
        replace(FINDINGS, controls=())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"version": 3}, "another version of dpsd"),
        ({"controls": None}, "controls: "),
        ({"controls": []}, "no control"),
        ({"controls": [{"name": "told", "found": 1, "sentence": ""}]}, "controls.0.found: "),
        ({"tables": [{"rows": []}]}, "tables.0.title: field required"),
        ({"tables": [{"title": "", "columns": ["a"], "rows": [[True]]}]}, "tables.0.rows.0.0: "),
        ({"tables": [{"title": "", "columns": ["a"], "rows": [[1, 2]]}]}, "has not 1 cells"),
        ({"seconds": "1.5"}, "seconds: "),
        ({"scores": {"lira": 1.5}}, "scores.lira: "),
        ({"is_valid": False}, "is_valid: "),
        ({"privatised": True}, "privatised: "),
        ({"comment": ""}, "comment: there is no such field"),
    ],
)
def test_files_of_another_version_and_damaged_files_are_refused(
    tmp_path: Path, damage: dict[str, object], said: str
) -> None:
    path = FINDINGS.save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))

    with pytest.raises(RunError, match=f"{path} .*{said}.*attack the run again"):
        read_findings(tmp_path)


def test_an_infinite_epsilon_survives_and_is_shown(tmp_path: Path) -> None:
    row = ("audit", math.inf)
    stated = replace(
        FINDINGS,
        tables=(Table(title="Bounds", columns=("of", "ε"), rows=(row,)),),
        details={"claimed": math.inf},
    )
    assert "Infinity" not in stated.save(tmp_path).read_text()
    assert read_findings(tmp_path) == [stated]
    assert stated.tables[0].texts() == (("audit", "∞"),)


def test_a_table_with_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has not 2 cells"):
        Table(title="Rates", columns=("score", "AUC"), rows=(("lira",),))


def test_quick_findings_say_so_wherever_they_are_shown(tmp_path: Path) -> None:
    quick = replace(FINDINGS, is_quick=True, verdict="Nothing.\n\nIn detail.")
    missed = replace(quick, controls=(Control(name="told", found=False, sentence="Missed."),))
    for one in (quick, missed):
        assert "quick" in one.validity
        assert QUICK in one.sentence()
        assert QUICK in one.paragraphs()
        assert "--quick" in one.asking
    assert quick.sentence() == f"Nothing. {QUICK}"
    assert QUICK not in FINDINGS.sentence()
    quick.save(tmp_path)
    assert read_findings(tmp_path) == [quick]


def test_findings_that_do_not_say_whether_they_are_quick_are_not_taken_for_full_size(
    tmp_path: Path,
) -> None:
    path = replace(FINDINGS, is_quick=True).save(tmp_path)
    stated = json.loads(path.read_text()) | {"version": 1}
    del stated["is_quick"]
    path.write_text(json.dumps(stated))
    with pytest.raises(RunError, match="another version of dpsd"):
        read_findings(tmp_path)


def test_findings_state_how_they_are_made_again() -> None:
    assert FINDINGS.asking == ("--data", "digits", "--kind", "membership")
    again = replace(FINDINGS, seed=3, asked=("--also", "other=runs/other")).asking
    assert again[4:] == ("--seed", "3", "--also", "other=runs/other")


def test_validity_counts_the_controls() -> None:
    both = (*FINDINGS.controls, Control(name="empty", found=False, sentence="Found."))
    assert FINDINGS.validity == "valid: its control passed"
    assert replace(FINDINGS, controls=both).validity == "invalid: 1 of 2 controls failed"


def test_an_interval_has_as_many_decimals_as_its_number() -> None:
    columns = ("score", "AUC", "AUC from", "AUC to")
    table = Table(title="Rates", columns=columns, rows=(("lira", 0.52, 0.4231, 0.6),))
    assert table.texts() == (("lira", "0.520 (0.423 to 0.600)"),)
