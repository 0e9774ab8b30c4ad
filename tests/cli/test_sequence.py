"""The commands one after another, as a user meets them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file

import dpsd
from dpsd.datasets import load_dataset
from dpsd.runs.directory import RunDirectory

Invoke = Callable[..., Result]


def test_a_run_leaves_everything_behind(finished_run: Path) -> None:
    for name in (
        *("config.toml", "ledger.jsonl", "student.safetensors", "student.json"),
        *("generator.safetensors", "metrics.jsonl", "certificate.json", "report.html"),
        *("images/round-0001.png", "images/round-0002.png", "images/generator.png"),
    ):
        assert (finished_run / name).stat().st_size > 0
    assert list((finished_run / "tensorboard").iterdir())
    assert not list(finished_run.rglob("*.part"))


def test_a_run_shows_how_students_do_on_sources_left_out(
    invoke: Invoke, odd_run: Callable[..., Sequence[object]]
) -> None:
    result = invoke(*odd_run("run", "--leave-one-out-steps", 2))
    assert result.exit_code == 0, result.stderr
    assert "agree with the teacher on" in result.stdout
    rows = result.stdout.partition("source left out")[2].splitlines()[1:4]
    assert [row.split()[0] for row in rows] == ["noise", "strokes", "silhouettes"]
    refused = invoke(*odd_run("other", "--leave-one-out-steps", 2, "--sources", "noise,strokes"))
    assert refused.exit_code == 2
    assert "name more, as in --sources noise,strokes,silhouettes, or give" in refused.stderr


def test_a_run_opens_by_its_name(finished_run: Path) -> None:
    opened = RunDirectory.open(str(finished_run))
    assert opened.certify() == RunDirectory.open(finished_run).certify()


def test_report_is_one_page_that_says_what_was_spent(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    for expected in ("<code>response</code>", "two worlds differ in", "not promise", "<svg"):
        assert expected in page
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "NOT PRIVATE" not in page


def test_many_teachers_protect_a_record(invoke: Invoke, tmp_path: Path) -> None:
    path, out = tmp_path / "many", tmp_path / "run"
    result = invoke("train-teacher", "--data", "digits", "--shards", "15", "--out", path)
    assert result.exit_code == 0, result.stderr
    assert "15 teachers of 72 to 73 records" in result.stdout
    result = invoke("train-teacher", "--data", "digits", "--shards", "600", "--out", path / "b")
    assert result.exit_code == 3
    assert "shards is 600, but 1085 records make 2 to 542 shards" in result.stderr
    flags = ("--rounds", "2", "--queries", "100", "--student-steps", "5", "--generator-steps", "2")
    result = invoke(
        *("transcribe", path, "--epsilon", "4", "--adjacency", "teacher", "--out", out, *flags)
    )
    assert result.exit_code == 0, result.stderr
    assert "ε = 4 at δ = 1e-05 (adjacency `teacher`: record-level" in result.stdout
    page = invoke("certify", out).stdout
    assert "one whole teacher of the ensemble" in " ".join(page.split())
    assert "nothing ties the hashes to the weights" in " ".join(page.split())
    result = invoke("evaluate", out, "--data", "digits")
    assert result.exit_code == 0, result.stderr
    refused = invoke(
        *(
            "transcribe",
            path,
            "--epsilon",
            "4",
            "--out",
            tmp_path / "no",
            "--objective",
            "marginal",
        ),
        *("--adjacency", "nobody"),
    )
    assert refused.exit_code == 2


def test_evaluate_compares_with_the_teacher(invoke: Invoke, finished_run: Path) -> None:
    result = invoke("evaluate", finished_run, "--data", "digits")
    assert result.exit_code == 0, result.stderr
    for expected in ("teacher accuracy", "student accuracy", "agrees", "not privatised"):
        assert expected in result.stdout
    measured = json.loads(invoke("evaluate", finished_run, "--data", "digits", "--json").stdout)
    assert measured["teacher_accuracy"] > 0.5
    assert 0 <= measured["agreement"] <= 1
    assert [row["name"] for row in measured["classes"]] == list("0123456789")
    assert sum(row["images"] for row in measured["classes"]) == measured["images"] == 712
    right = sum(row["student_accuracy"] * row["images"] for row in measured["classes"])
    assert right / 712 == pytest.approx(measured["student_accuracy"])


def test_a_run_finds_its_teacher_from_another_folder(
    invoke: Invoke, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(teacher.parent)
    result = invoke(
        *("transcribe", teacher.name, "--out", tmp_path / "run", "--epsilon", 4),
        *("--rounds", 1, "--queries", 100, "--generator-steps", 0, "--device", "cpu", "--quiet"),
    )
    assert result.exit_code == 0, result.stderr
    assert RunDirectory.open(tmp_path / "run").config().teacher.teacher == str(teacher)
    monkeypatch.chdir(tmp_path)
    result = invoke("evaluate", "run", "--data", "digits")
    assert result.exit_code == 0, result.stderr
    assert "teacher accuracy" in result.stdout
    # Reports are shown around: where the owner keeps the teacher is nobody's business.
    assert str(teacher) not in Path("run/report.html").read_text(encoding="utf-8")


def test_evaluate_without_a_teacher_measures_the_student(
    invoke: Invoke, finished_run: Path, teacher: Path, tmp_path: Path
) -> None:
    moved = teacher.rename(tmp_path / "moved")
    try:
        result = invoke("evaluate", finished_run, "--data", "digits", "--json")
        found = invoke("evaluate", finished_run, "--data", "digits", "--json", "--teacher", moved)
    finally:
        moved.rename(teacher)
    assert result.exit_code == 0
    assert "warning: the run's teacher cannot be loaded" in result.stderr
    measured = json.loads(result.stdout)
    assert measured["teacher_accuracy"] is None
    assert measured["agreement"] is None
    assert json.loads(found.stdout)["teacher_accuracy"] > 0.5


def test_evaluate_refuses_data_of_another_shape(
    invoke: Invoke,
    finished_run: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    shape = {"images": (4, 28, 28), "labels": (4, 1)}
    arrays: dict[str, Any] = {
        f"{split}_{kind}": np.zeros(shape[kind], np.uint8)
        for split in ("train", "val", "test")
        for kind in shape
    }
    np.savez(tmp_path / "other.npz", **arrays)
    result = invoke("evaluate", finished_run, "--data", tmp_path / "other.npz")
    assert_error(result, 2, "images of shape (1, 28, 28); the run's is (1, 8, 8)")


def test_sample_writes_images_with_the_students_labels(
    invoke: Invoke, finished_run: Path, tmp_path: Path
) -> None:
    for count, out in ((300, "many"), (10, "few")):
        result = invoke("sample", finished_run, "--count", count, "--out", tmp_path / out)
        assert result.exit_code == 0, result.stderr
    many, few = (np.load(tmp_path / out / "synthetic.npz") for out in ("many", "few"))
    assert many["images"].shape == (300, 1, 8, 8)
    assert (many["images"].dtype, many["labels"].dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(many["images"][:10], few["images"])
    student = RunDirectory.open(finished_run).student()
    pixels = torch.from_numpy(many["images"]).float() / 255
    np.testing.assert_array_equal(student(pixels).argmax(-1).numpy(), many["labels"])
    assert Image.open(tmp_path / "many" / "contact-sheet.png").width > 100
    assert invoke("sample", finished_run, "--out", tmp_path / "few").exit_code == 2
    again = ("sample", finished_run, "--count", 5, "--out", tmp_path / "few", "--force")
    assert invoke(*again).exit_code == 0


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_exported_student_answers_as_the_student(
    invoke: Invoke, finished_run: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "exported" / f"student.{suffix}"
    result = invoke("export", finished_run, "--to", path)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    images = load_dataset("digits", "test").images[:33]
    exported = dpsd.load_teacher(path, input_shape=(1, 8, 8), num_classes=10)
    expected = RunDirectory.open(finished_run).student()(images.float() / 255).argmax(-1)
    torch.testing.assert_close(exported.predict_classes(images), expected)


def test_exported_weights_come_with_a_description(
    invoke: Invoke, finished_run: Path, tmp_path: Path
) -> None:
    result = invoke("export", finished_run, "--to", tmp_path / "small.safetensors")
    assert result.exit_code == 0, result.stderr
    weights = load_file(tmp_path / "small.safetensors")
    assert weights.keys() == RunDirectory.open(finished_run).student().state_dict().keys()
    described = json.loads((tmp_path / "small.json").read_text())
    assert described["student"] == "cnn"
    assert described["input_shape"] == [1, 8, 8]
    assert invoke("export", finished_run, "--to", tmp_path / "small.safetensors").exit_code == 2


def test_a_folder_for_the_hub_has_the_accuracy_that_is_given(
    invoke: Invoke,
    finished_run: Path,
    tmp_path: Path,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    measured = tmp_path / "measured.json"
    measured.write_text(invoke("evaluate", finished_run, "--data", "digits", "--json").stdout)
    export = ("export", finished_run, "--to", f"hf:{tmp_path / 'hub'}")
    result = invoke(*export, "--evaluation", measured)
    assert result.exit_code == 0, result.stderr
    assert f"wrote {tmp_path / 'hub' / 'README.md'}" in result.stdout.replace("\n", "")
    accuracy = json.loads(measured.read_text())["student_accuracy"]
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert f"| digits | test | 712 | {accuracy:.2%} |" in card
    assert_error(invoke(*export), 2, "already exists")
    measured.write_text(measured.read_text().replace("sha256:", "sha256:0", 1))
    assert_error(invoke(*export, "--force", "--evaluation", measured), 2, "--evaluation: ")
    inside = invoke("export", finished_run, "--to", f"hf:{finished_run}")
    assert_error(inside, 2, "is a run, whose files must not be replaced")


def test_names_of_classes_reach_what_is_made_from_a_run(
    invoke: Invoke, teacher: Path, tmp_path: Path
) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    run = tmp_path / "run"
    result = invoke(
        *("transcribe", teacher, "--out", run, "--epsilon", 4, "--quiet", "--device", "cpu"),
        *("--rounds", 1, "--queries", 100, "--generator-steps", 0),
        *("--class-names", f"@{tmp_path / 'names.txt'}"),
    )
    assert result.exit_code == 0, result.stderr
    (tmp_path / "names.txt").unlink()
    measured = json.loads(invoke("evaluate", run, "--data", "digits", "--json").stdout)
    assert [row["name"] for row in measured["classes"]] == names
    assert "0 “zero”, 1 “one”" in invoke("certify", run).stdout
    sampled = invoke("sample", run, "--count", 5, "--out", tmp_path / "made").stdout
    assert "zero: " in sampled


def test_export_refuses_an_unknown_format(
    invoke: Invoke, finished_run: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    assert_error(invoke("export", finished_run, "--to", "student.pkl"), 2, ".onnx, .pt2")


def test_certify_repeats_what_was_certified(invoke: Invoke, finished_run: Path) -> None:
    result = invoke("certify", finished_run)
    assert result.exit_code == 0, result.stderr
    assert "What this does not promise" in result.stdout
    stored = (finished_run / "certificate.json").read_text()
    assert json.loads(invoke("certify", finished_run, "--format", "json").stdout) == json.loads(
        stored
    )
    assert "| `teacher` |" in invoke("certify", finished_run, "--format", "markdown").stdout


def test_certify_notices_a_changed_certificate_and_another_student(
    invoke: Invoke, run_copy: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    path = run_copy / "certificate.json"
    stored = path.read_text()
    line = next(i for i, one in enumerate(stored.splitlines(), 1) if one.startswith('    "round"'))
    lower = json.loads(stored)
    lower["spent"]["round"] -= 1e-4
    path.write_text(json.dumps(lower, indent=2) + "\n")
    assert_error(invoke("certify", run_copy), 1, f'line {line}: says "round"')
    path.write_text(stored)
    (run_copy / "student.safetensors").write_bytes(b"another")
    assert_error(invoke("certify", run_copy), 5, "is not the student that the run's ledger names")


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        (1, {"event": {"name": "gaussian", "noise_multiplier": 900.0}}, "different events"),
        (1, {"answers": -119}, "answers is below 1"),
        (1, {"teacher": "sha256:00"}, "names a teacher that is not the run's"),
        (0, {"members": 1000}, "says that members is 1000"),
        (0, {"disjoint_data": True}, "says that disjoint_data is True"),
        (0, {"target": {"epsilon": 0.1, "delta": 1e-5, "adjacency": "response"}}, "target"),
    ],
)
def test_a_ledger_that_was_written_anew_contradicts_the_rest(
    invoke: Invoke,
    run_copy: Path,
    entry: int,
    change: dict[str, object],
    words: str,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    """The chain is closed again after the change, and the certificate is gone."""
    ledger = run_copy / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    lines[entry] |= change
    previous, written = "0" * 64, []
    for line in lines:
        written.append(json.dumps(line | {"previous": previous}).encode())
        previous = hashlib.sha256(written[-1]).hexdigest()
    ledger.write_bytes(b"\n".join(written) + b"\n")
    (run_copy / "certificate.json").unlink()
    assert_error(invoke("certify", run_copy), 5, words)


@pytest.mark.parametrize("name", ["ledger.jsonl", "releases/round-0001.safetensors", "images"])
def test_a_link_in_a_run_is_refused(
    invoke: Invoke,
    run_copy: Path,
    tmp_path: Path,
    name: str,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    outside = (run_copy / name).rename(tmp_path / "outside")
    (run_copy / name).symlink_to(outside)
    for command in (("certify", run_copy), ("transcribe", "--resume", run_copy)):
        assert_error(invoke(*command), 5, "is a symbolic link")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_a_pipe_in_a_run_is_refused(
    invoke: Invoke, run_copy: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    (run_copy / "certificate.json").unlink()
    os.mkfifo(run_copy / "certificate.json")
    assert_error(invoke("certify", run_copy), 5, "is a special file")


def test_certify_notices_a_round_that_was_changed_or_lost(
    invoke: Invoke, run_copy: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    path = run_copy / "releases" / "round-0002.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_error(invoke("certify", run_copy), 5, "line 5")
    path.unlink()
    assert_error(invoke("certify", run_copy), 5, "is not what was committed")
    path.write_bytes(content)
    ledger = run_copy / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]))
    assert_error(invoke("certify", run_copy), 1, 'ledger says "student": ""')
    ledger.write_bytes(b"".join(lines[:2] + lines[4:]))
    assert_error(invoke("certify", run_copy), 5, "line 3: does not follow line 2")


def test_training_does_not_replace_a_teacher_unasked(
    invoke: Invoke, teacher: Path, assert_error: Callable[[Result, int, str], None]
) -> None:
    result = invoke("train-teacher", "--data", "digits", "--out", teacher)
    assert_error(result, 2, "already holds a teacher")


def test_lists(invoke: Invoke) -> None:
    listed = invoke("models").stdout
    assert all(name in listed for name in ("resnet18", "networks", "wavelets"))
    assert "dpsd data fetch mnist" in invoke("data", "list").stdout
    assert invoke("--version").stdout.strip() == f"dpsd {dpsd.__version__}"
