"""Records held out of training, from ``train-teacher`` to ``evaluate`` and ``bench``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from safetensors.torch import load_file

from dpsd.datasets import load_dataset
from dpsd.teachers.sharding import Shards

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]
SHARE = 0.2
MANY = ("--shards", 6, "--views", 0, "--device", "cpu")
SHAPE = ("--size", 8, "--channels", 1, "--classes", 10)


@pytest.fixture(scope="module")
def taught(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of digits, of which a fifth was held out."""
    out = tmp_path_factory.mktemp("taught") / "teacher"
    # In the precision of the run below, as a processor with bfloat16 rounds one image otherwise.
    flags: tuple[object, ...] = ("--model", "lenet5", "--epochs", 1, "--device", "cpu")
    flags += ("--precision", "float32", "--out", out)
    result = invoke("train-teacher", "--data", "digits", "--validation-share", SHARE, *flags)
    assert result.exit_code == 0, result.stderr
    assert "images of the training split are held out for validation" in result.stdout
    assert "test accuracy" in result.stdout
    assert "validation accuracy" in result.stdout
    return out


def test_evaluate_measures_on_exactly_what_was_held_out(
    invoke: Invoke, assert_error: AssertError, taught: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = invoke(
        *("transcribe", taught, "--epsilon", 9, "--adjacency", "response", "--out", run),
        *("--rounds", 1, "--queries", 60, "--epochs", 1, "--generator-steps", 0),
        *("--precision", "float32", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.stderr
    assert f"dpsd evaluate {run} --data digits --split validation\n" in result.stdout
    record = json.loads((taught / "teacher.json").read_text())
    held = load_dataset("digits", "validation", validation_share=SHARE)
    assert record["validation_share"] == SHARE
    evaluate = ("evaluate", run, "--data", "digits")
    found = json.loads(invoke(*evaluate, "--split", "validation", "--json").stdout)
    assert (found["split"], found["validation_share"]) == ("validation", SHARE)
    assert found["images"] == len(held)
    assert [row["images"] for row in found["classes"]] == held.labels.bincount().tolist()
    assert found["teacher_accuracy"] == record["validation_accuracy"]
    shown = invoke(*evaluate, "--split", "validation").stdout
    part = f"digits, {SHARE} of the training split, held out for validation"
    assert f"{part} ({len(held)} images)" in shown
    for share in ("student_accuracy", "student_balanced_accuracy", "agreement"):
        error = found["standard_errors"][share]
        assert 0 < error < 0.1
        assert re.search(rf"{found[share]:.2%} +{100 * error:.2f} points", shown)
    testing = json.loads(invoke(*evaluate, "--json").stdout)
    assert (testing["split"], testing["validation_share"]) == ("test", 0.0)
    assert testing["teacher_accuracy"] == record["accuracy"]

    assert_error(
        invoke(*evaluate, "--split", "validation", "--validation-share", 0.3),
        2,
        "--validation-share is 0.3, but the teacher's record says that 0.2 was held out",
    )
    assert_error(
        invoke(*evaluate, "--split", "validation", "--group-by", "re:(.)"), 2, "one by one"
    )
    assert_error(invoke(*evaluate, "--validation-share", SHARE), 2, "give --split validation too")
    # A teacher without a record of these data: its owner has to say what was held out.
    own = tmp_path / "own.npz"
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    np.savez(
        own,
        train_images=train.images[:, 0].numpy(),
        train_labels=train.labels.numpy(),
        test_images=test.images[:, 0].numpy(),
        test_labels=test.labels.numpy(),
    )
    asked = ("evaluate", run, "--data", own, "--split", "validation")
    assert_error(invoke(*asked), 2, "the teacher's record is about 'digits'): give their share")
    given = invoke(*asked, "--validation-share", SHARE, "--json")
    assert json.loads(given.stdout)["teacher_accuracy"] == record["validation_accuracy"]


def test_records_that_a_teacher_was_trained_on_do_not_validate(
    invoke: Invoke, assert_error: AssertError, finished_run: Path
) -> None:
    evaluate = ("evaluate", finished_run, "--data", "digits", "--split", "validation")
    assert_error(invoke(*evaluate[:-1], "val"), 2, "Did you mean 'validation'?")
    for flags in ((), ("--validation-share", 0.1)):
        assert_error(invoke(*evaluate, *flags), 2, "was trained on all training records of 'digits")


def save_data(path: Path, images: np.ndarray, labels: np.ndarray, **others: Any) -> None:
    """Write a data set whose test split is its first records, and other arrays besides."""
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images[:9],
        test_labels=labels[:9],
        **others,
    )


def test_a_teachers_own_data_are_known_by_any_path(
    invoke: Invoke, assert_error: AssertError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither do they validate, nor does a run publish them."""
    images = load_dataset("digits", "train")
    pixels, labels = images.images[:120, 0].numpy(), images.labels[:120].numpy()
    for name in ("small", "project"):
        (tmp_path / name).mkdir()
    data = tmp_path / "small" / "own.npz"
    save_data(data, pixels, labels)
    monkeypatch.chdir(tmp_path / "project")
    flags = ("--epochs", 1, "--model", "lenet5", "--device", "cpu", "--out", "teacher")
    result = invoke("train-teacher", "--data", "../small/own.npz", *flags)
    assert result.exit_code == 0, result.stderr
    record = json.loads(Path("teacher/teacher.json").read_text())
    assert (record["data"], record["data_place"]) == ("../small/own.npz", str(data.resolve()))

    monkeypatch.chdir(tmp_path)
    asking = ("transcribe", "project/teacher", "--epsilon", 9, "--adjacency", "response")
    small = ("--rounds", 1, "--queries", 40, "--generator-steps", 0, "--device", "cpu")
    for given in (("--probe", "small/own.npz"), ("--public", data)):
        refused = invoke(*asking, *given, *small, "--out", "run")
        assert_error(refused, 2, "holds what the teacher was trained on (../small/own.npz)")
    Path("run.toml").write_text('sources = ["noise", "folder:project/../small"]\n')
    refused = invoke(*asking, "--config", "run.toml", *small, "--out", "run")
    assert_error(refused, 2, "sources is folder:project/../small, which holds what")
    assert not Path("run").exists()

    result = invoke(*asking, *small, "--out", "run")
    assert result.exit_code == 0, result.stderr
    evaluate = ("evaluate", "run", "--data", data, "--split", "validation")
    for share in ((), ("--validation-share", 0.2)):
        assert_error(invoke(*evaluate, *share), 2, "was trained on all training records of")


def test_a_held_out_record_reaches_no_teacher(invoke: Invoke, tmp_path: Path) -> None:
    """Neither by its content, nor as a duplicate of a record for training."""
    train = load_dataset("digits", "train")
    images, labels = train.images[:120, 0].numpy(), train.labels[:120].numpy()

    def saved(name: str, world: np.ndarray) -> Path:
        path = tmp_path / f"{name}.npz"
        save_data(path, world, labels)
        return path

    numbers = np.broadcast_to(np.arange(120, dtype=np.uint8)[:, None, None], images.shape)
    parts = [
        load_dataset(str(saved("rows", numbers)), part, validation_share=SHARE).images[:, 0, 0, 0]
        for part in ("train", "validation")
    ]
    kept, held = (int(part[5]) for part in parts)
    worlds = {"before": images, "held": images.copy(), "kept": images.copy()}
    worlds["held"][held] = images[int(parts[0][0])]  # the same image as one for training
    worlds["kept"][kept] = 255 - images[kept]
    heads = {}
    for name, world in worlds.items():
        out = tmp_path / name
        flags = ("--out", out, "--validation-share", SHARE, "--drop-duplicates")
        result = invoke("train-teacher", "--data", saved(name, world), *MANY, *SHAPE, *flags)
        assert result.exit_code == 0, result.stderr
        assert "duplicates" not in result.stdout
        heads[name] = load_file(out / "teacher.safetensors")["head.weight"]
    assert heads["held"].equal(heads["before"])
    differing = (heads["kept"] != heads["before"]).flatten(1).any(1)
    assert int(differing.sum()) == 1


def test_persons_are_held_out_of_one_teachers_training(
    invoke: Invoke, assert_error: AssertError, tmp_path: Path
) -> None:
    images = load_dataset("digits", "train")
    data, out = tmp_path / "own.npz", tmp_path / "teacher"
    pixels, labels = images.images[:120, 0].numpy(), images.labels[:120].numpy()
    save_data(data, pixels, labels, whose=np.arange(120) // 5)
    rule = "array:whose"
    flags = ("--epochs", 1, "--model", "lenet5", "--device", "cpu", "--out", out)
    alone = invoke("train-teacher", "--data", data, *flags, "--group-by", rule)
    assert_error(alone, 2, "give --shards or --validation-share too")
    result = invoke(
        *("train-teacher", "--data", data, *flags, "--group-by", rule),
        *("--validation-share", SHARE),
    )
    assert result.exit_code == 0, result.stderr
    held = load_dataset(str(data), "validation", validation_share=SHARE, group_by=rule)
    persons = len(set(held.persons or ()))
    assert f"{5 * persons} images of {persons} persons of the training split" in result.stdout
    record = json.loads((out / "teacher.json").read_text())
    assert (record["group_by"], record["validation_share"]) == (rule, SHARE)


def test_a_published_validation_split_is_measured_on(invoke: Invoke, tmp_path: Path) -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    data, out = tmp_path / "own.npz", tmp_path / "teacher"
    np.savez(
        data,
        train_images=train.images[:200, 0].numpy(),
        train_labels=train.labels[:200].numpy(),
        val_images=train.images[200:, 0].numpy(),
        val_labels=train.labels[200:].numpy(),
        test_images=test.images[:, 0].numpy(),
        test_labels=test.labels.numpy(),
    )
    flags = ("--validation-share", SHARE, *MANY, *SHAPE, "--out", out)
    result = invoke("train-teacher", "--data", data, *flags)
    assert result.exit_code == 0, result.stderr
    assert "has a validation split of its own, of 885 images; nothing is held out" in result.stdout
    assert "on 885 images of the validation split" in result.stdout
    assert len(Shards.load(out).shard) == 200
    assert json.loads((out / "teacher.json").read_text())["validation_share"] == 0
