"""Scans of one's own, from ``train-teacher`` to ``evaluate``: declared once, read alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from dpsd.datasets import load_dataset

Invoke = Callable[..., Result]
AssertError = Callable[[Result, int, str], None]
TRAIN = ("--model", "lenet5", "--epochs", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as scans of 12 bits in files of 16."""
    root = tmp_path_factory.mktemp("scans")
    for split in ("train", "test"):
        data = load_dataset("digits", split)
        for number in range(60):
            path = root / split / f"d{int(data.labels[number]) % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            deep = data.images[number, 0].numpy().astype(np.uint16) * 16
            Image.fromarray(np.kron(deep, np.ones((4, 4), np.uint16))).save(path)
    return root


@pytest.fixture(scope="module")
def taught(invoke: Invoke, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "teacher"
    flags = ("--value-range", "0,4080", "--out", out)
    result = invoke("train-teacher", "--data", f"folder:{scans}", *TRAIN, *flags)
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr
    return out


def test_evaluate_reads_images_as_the_teacher_was_trained_on_them(
    invoke: Invoke, scans: Path, taught: Path, tmp_path: Path
) -> None:
    record = json.loads((taught / "teacher.json").read_text())
    assert record["value_range"] == [0, 4080]
    out, data = tmp_path / "run", f"folder:{scans}"
    result = invoke(
        *("transcribe", taught, "--epsilon", 1, "--adjacency", "response", "--out", out),
        *("--sources", f"folder:{scans / 'test'}", "--value-range", "0,4080", "--rounds", 1),
        *("--queries", 40, "--generator-share", 0, "--generator-steps", 1, "--epochs", 1),
    )
    assert result.exit_code == 0, result.stderr
    assert "value_range = [" in (out / "config.toml").read_text()
    measured = json.loads(invoke("evaluate", out, "--data", data, "--json").stdout)
    assert measured["teacher_accuracy"] == record["accuracy"]
    dark = invoke("evaluate", out, "--data", data, "--value-range", "0,65535", "--json")
    # 16 times darker: the same teacher no longer sees what it was trained on.
    assert json.loads(dark.stdout)["teacher_accuracy"] != record["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train-teacher", "--data", "digits", "--value-range", "0,16", "--out", "t"),
            "--value-range is 0,16, but it is about loose images",
        ),
        (
            ("train-teacher", "--data", "folder:x", "--value-range", "9", "--out", "t"),
            "--value-range is '9'; give the values that are black and white",
        ),
        (
            ("transcribe", "t", "--epsilon", "1", "--value-range", "0,9", "--out", "r"),
            "--value-range is 0,9, but it is about image files, and none of --sources",
        ),
        (
            (
                *("transcribe", "t", "--epsilon", "1", "--sources", "folder:x"),
                *("--value-range", "9,0", "--out", "r"),
            ),
            "--value-range is '9,0'; give the values",
        ),
        (("data", "fetch", "cifar10"), "get it from https://www.cs.toronto.edu"),
        (("data", "fetch", "mnist", "--mirror", "file:///x"), "--mirror is 'file:///x'"),
    ],
)
def test_mistakes_are_told_as_they_were_written(
    invoke: Invoke, assert_error: AssertError, arguments: tuple[str, ...], message: str
) -> None:
    assert_error(invoke(*arguments), 2, message)


def test_a_class_without_images_is_told(
    invoke: Invoke, assert_error: AssertError, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 2 + 1
    np.savez(
        tmp_path / "own.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    result = invoke(
        *("train-teacher", "--data", tmp_path / "own.npz", "--out", tmp_path / "t"), *TRAIN
    )
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stderr.split())
    assert "warning: no training image of class '0' (of 3): do labels begin at 1?" in told
    assert ".py" not in told
    (tmp_path / "set/train/a").mkdir(parents=True)
    Image.fromarray(images[0]).save(tmp_path / "set/train/a/1.png")
    result = invoke(
        "train-teacher", "--data", f"folder:{tmp_path / 'set'}", "--out", tmp_path / "u"
    )
    assert_error(result, 3, "holds train, but not test or val")
