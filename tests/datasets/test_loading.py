"""Names, places, folders of images, and what is said when data is missing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from dpsd.datasets import (
    Declared,
    data_root,
    dataset_names,
    fetchable_names,
    folder,
    load_dataset,
    persons_of,
)
from dpsd.datasets.idx import read_idx_pair
from dpsd.errors import ConfigError, DataError, UnknownNameError


def test_digits_are_split_for_good() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert len(train) + len(test) == 1797
    assert 0.59 < len(train) / 1797 < 0.61
    assert int(train.images.max()) == 255
    assert (train.labels.bincount() / test.labels.bincount() - 1.5).abs().max() < 0.1
    again = load_dataset("digits", "train")
    assert torch.equal(train.images, again.images)


@pytest.mark.parametrize("name", sorted(set(dataset_names()) - {"digits"}))
def test_missing_data_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DPSD_DATA") as caught:
        load_dataset(name, "train", root=tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "http" in message
    assert ("dpsd data fetch" in message) == (name in fetchable_names())
    with pytest.raises(DataError, match="DPSD_DATA"):
        load_dataset(name, "train", root=str(tmp_path))


def test_only_what_can_be_fetched_is_said_to_be(tmp_path: Path) -> None:
    """A set of MNIST's format need not come from where MNIST does."""
    with pytest.raises(DataError, match=r"Get it from https://kuzushiji\.example") as caught:
        read_idx_pair(
            "kmnist", "train", tmp_path, class_names=("o", "ki"), home="https://kuzushiji.example"
        )
    assert "dpsd data fetch" not in str(caught.value)


@pytest.mark.parametrize("name", ["folder:absent", "absent.npz"])
def test_missing_files_of_ones_own(name: str) -> None:
    with pytest.raises(DataError, match=r"is not there: no absent[^:]*$"):
        load_dataset(name, "train")


@pytest.mark.parametrize("name", ["minst", "medmnist:", "medmnist:../secrets", "folder:", ""])
def test_unknown_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set"):
        load_dataset(name, "train", root=tmp_path)


def test_senseless_options() -> None:
    with pytest.raises(ConfigError, match="'val'; it must be 'train', 'validation' or 'test'"):
        load_dataset("digits", "val")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fixed size"):
        load_dataset("digits", "test", declared=Declared(size=(16, 16)))
    with pytest.raises(ConfigError, match="size is 0"):
        load_dataset("imagenet", "test", declared=Declared(size=(0, 0)))


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPSD_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_root() == platformdirs.user_cache_path("dpsd", appauthor=False) / "data"
    if sys.platform == "linux":
        assert data_root() == Path.home() / ".cache/dpsd/data"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert data_root() == tmp_path / "cache/dpsd/data"
    # No folder that happens to lie beside the current one is taken for the data.
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    before = data_root()
    (tmp_path / "shared/data").mkdir(parents=True)
    assert data_root() == before
    monkeypatch.setenv("DPSD_DATA", "~/elsewhere")
    assert data_root() == Path.home() / "elsewhere"


def write_images(root: Path, files: dict[str, Image.Image]) -> None:
    for name, image in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)


def gradient(width: int, height: int) -> Image.Image:
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.stack([np.tile(row, (height, 1))] * 3, axis=-1))


def test_folder_resizes_then_cuts_the_centre(tmp_path: Path) -> None:
    write_images(
        tmp_path,
        {
            "train/b/1.png": gradient(16, 12),
            "train/a/2.png": gradient(40, 20),
            "val/b/1.jpg": gradient(20, 40),
            "train/.hidden/1.png": gradient(8, 8),
        },
    )
    (tmp_path / "train/b/notes.txt").write_text("no image")
    train = load_dataset(f"folder:{tmp_path}", "train", declared=Declared(size=(10, 10)))
    assert train.images.shape == (2, 3, 10, 10)
    assert train.class_names == ("a", "b")
    row = train.images[0, 0, 5].int()
    assert 55 < row[0] < 80  # the outer quarters of a 2:1 image are cut away
    assert 175 < row[-1] < 200
    assert load_dataset(f"folder:{tmp_path}", "train").input_shape == (3, 20, 40)
    test = load_dataset(f"folder:{tmp_path}", "test")
    assert test.input_shape == (3, 20, 40)
    assert test.labels.tolist() == [1]


def test_named_folders_have_their_size(tmp_path: Path) -> None:
    write_images(tmp_path / "celeba-hair", {"train/blond/1.png": gradient(178, 218)})
    assert load_dataset("celeba-hair", "train", root=tmp_path).input_shape == (3, 64, 64)
    small = load_dataset("celeba-hair", "train", root=tmp_path, declared=Declared(size=(32, 32)))
    assert small.input_shape == (3, 32, 32)


def test_grey_folders_stay_grey(tmp_path: Path) -> None:
    write_images(tmp_path, {"train/a/1.png": gradient(9, 9).convert("L")})
    assert load_dataset(f"folder:{tmp_path}", "train").input_shape == (1, 9, 9)


def test_broken_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"folder:{tmp_path}"
    (tmp_path / "train/a").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        load_dataset(name, "train")
    write_images(tmp_path, {"train/a/1.png": gradient(30, 30), "test/b/1.png": gradient(8, 8)})
    with pytest.raises(DataError, match=r"classes that .* lacks: b"):
        load_dataset(name, "test")
    whole = (tmp_path / "train/a/1.png").read_bytes()
    (tmp_path / "train/a/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2\.png is not a readable image"):
        load_dataset(name, "train")
    monkeypatch.setattr(folder, "LARGEST_SET", 1000)
    with pytest.raises(DataError, match="choose a smaller size"):
        load_dataset(name, "train")
    (tmp_path / "train/a/1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png is not a readable image"):
        load_dataset(name, "train")


def test_images_below_a_class_are_read_and_named_by_their_place(tmp_path: Path) -> None:
    """As one folder for each patient; hidden files, such as those of macOS, are no images."""
    files = ("train/a/p1/1.png", "train/a/p2/1.png", "train/b/2.png", "test/a/3.png")
    write_images(tmp_path, {name: gradient(8, 8) for name in files})
    for name in ("train/a/._2.png", "train/b/.x/._y.png", "train/__MACOSX/._z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7 no image")
    for name in ("train/a/Thumbs.db", "train/b/desktop.ini", "train/a/scan.nii"):
        (tmp_path / name).write_bytes(b"no image")
    data = load_dataset(f"folder:{tmp_path}", "train")
    assert data.names == ("a/p1/1.png", "a/p2/1.png", "b/2.png")
    assert data.class_names == ("a", "b")
    assert persons_of(data, r"re:^(p\d+/|2)", root=tmp_path) == ("p1/", "p2/", "2")


def test_a_missing_split_is_named_with_what_is_there(tmp_path: Path) -> None:
    name = f"folder:{tmp_path}"
    write_images(tmp_path, {"train/a/1.png": gradient(8, 8), "valid/a/1.png": gradient(8, 8)})
    with pytest.raises(DataError) as caught:
        load_dataset(name, "test")
    assert str(caught.value) == (
        f"data set {name!r} has no test split: {tmp_path} holds train, valid, but not test or "
        f"val. Put the images to measure on into {tmp_path}/test/<class>/"
    )
    (tmp_path / "train").rename(tmp_path / "a")
    with pytest.raises(DataError, match=r"no train split: .* holds a, valid, but not train\. "):
        load_dataset(name, "train")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, 2, 2, 1], "image of class '0' (of 3): do labels begin at 1? Answers are privatised "),
        ([0, 2, 2, 0], "image of class '1' (of 3): are labels numbered with gaps?"),
        ([0, 10, 20, 90], "image of 87 of 91 classes ('1', '2', '3', '4', '5', …): are labels"),
        ([0, 1, 1, 0], None),
    ],
)
def test_a_class_without_images_is_named(
    labels: list[int], said: str | None, tmp_path: Path
) -> None:
    images, numbers = np.zeros((4, 4, 4), np.uint8), np.array(labels)
    np.savez(
        tmp_path / "own.npz",
        train_images=images,
        train_labels=numbers,
        test_images=images,
        test_labels=numbers,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_dataset(str(tmp_path / "own.npz"), "train")
        load_dataset(str(tmp_path / "own.npz"), "test")
    messages = [str(warning.message) for warning in caught]
    if said is None:
        assert not messages
        return
    assert f"no training {said}" in messages[0]
    assert messages[1].startswith("no test image of ")


def test_a_folder_without_images_is_an_empty_class(tmp_path: Path) -> None:
    write_images(tmp_path, {"train/a/1.png": gradient(8, 8)})
    (tmp_path / "train/b").mkdir()
    with pytest.warns(UserWarning, match=r"class 'b' \(of 2\): is its name right\?"):
        assert load_dataset(f"folder:{tmp_path}", "train").num_classes == 2


def test_a_folder_that_may_not_be_listed_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"train/a/1.png": gradient(8, 8)})

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"train cannot be read: Permission denied$"):
        load_dataset(f"folder:{tmp_path}", "train")
