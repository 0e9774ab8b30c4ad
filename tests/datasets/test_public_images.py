"""Public images from folders, files and data sets, fitted to what a teacher takes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsd.datasets import load_dataset, public_images
from dpsd.datasets.public_images import read_public
from dpsd.errors import DataError, MissingDataError

SHAPE = (1, 8, 8)
PIXELS = np.arange(3 * 8 * 8).reshape(3, 8, 8).astype(np.uint8)


def pictures(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 10), 40 * number, dtype=np.uint8)).save(path)
    return folder


def save(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)  # type: ignore[arg-type]


def test_a_folder_is_searched_whole_and_classes_are_nothing_to_it(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "scans", "b/1.png", "a/2.png", "c.png", ".hidden.png")
    (folder / "notes.txt").write_text("none", encoding="utf-8")
    for spec in (str(folder), f"folder:{folder}"):
        found = read_public(spec, SHAPE)
        assert (found.dtype, found.shape) == (torch.uint8, (3, *SHAPE))
        assert sorted(found[:, 0, 0, 0].tolist()) == [0, 40, 80]
    assert read_public(str(folder), (3, 16, 16)).shape == (3, 3, 16, 16)


def test_a_large_folder_is_read_in_part_from_all_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path, *(f"{number}.png" for number in range(6)))
    monkeypatch.setattr(public_images, "MOST_IMAGES", 3)
    assert read_public(str(folder), SHAPE)[:, 0, 0, 0].tolist() == [0, 80, 200]


@pytest.mark.parametrize("name", ["images", "train_images", "arr_0"])
def test_a_file_of_arrays_is_read_without_its_labels(tmp_path: Path, name: str) -> None:
    path = tmp_path / "public.npz"
    save(**{name: PIXELS})(path)
    found = read_public(str(path), SHAPE)
    assert np.array_equal(found[:, 0].numpy(), PIXELS)
    save(**{name: PIXELS[..., None].repeat(3, -1)})(path)
    assert read_public(str(path), (3, 8, 8)).shape == (3, 3, 8, 8)


def test_a_data_set_gives_its_training_images() -> None:
    assert read_public("digits", SHAPE).equal(load_dataset("digits", "train").images)


def cut_short(path: Path) -> None:
    np.savez(path, images=PIXELS)
    path.write_bytes(path.read_bytes()[:200])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(65 * 2**20))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (save(first=PIXELS, second=PIXELS), "has no array images or train_images"),
        (save(images=PIXELS.astype(np.float32)), r"float32 .*; uint8 \(N, H, W\)"),
        (save(images=PIXELS[0]), "uint8"),
        (save(images=PIXELS[:0]), "at least one image"),
        (save(images=np.array([{"a": 1}])), "pickled objects; refused"),
        (save(images=PIXELS[..., None].repeat(4, -1)), "4 channels as .* the teacher takes 1"),
        (lambda path: path.write_bytes(b"no archive"), "damaged or not an .npz file"),
        (cut_short, "damaged or not an .npz file"),
        (bomb, "refused"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None], problem: str
) -> None:
    path = tmp_path / "public.npz"
    write(path)
    with pytest.raises(DataError, match=problem) as caught:
        read_public(str(path), SHAPE)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'minst' is no folder, no \.npz file and no data set"):
        read_public("minst", SHAPE)
    with pytest.raises(MissingDataError, match=r"no .*absent\.npz"):
        read_public(str(tmp_path / "absent.npz"), SHAPE)
    with pytest.raises(DataError, match="no image"):
        read_public(str(tmp_path), SHAPE)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"public images: .*broken\.png"):
        read_public(str(tmp_path), SHAPE)


def test_images_that_take_too_much_memory_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path, "1.png", "2.png")
    monkeypatch.setattr(public_images, "LARGEST_SET", 100)
    with pytest.raises(DataError, match=r"2 images in .* take 128 bytes"):
        read_public(str(folder), SHAPE)


def test_pytorchs_layout_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "public.npz"
    np.savez(path, images=np.zeros((5, 1, 16, 16), np.uint8))
    with pytest.raises(DataError) as caught:
        read_public(str(path), (1, 8, 8), setting="probe")
    said = caught.value.spelled("--{}".format)
    assert said.startswith(
        f"--probe: {path}: images is uint8 (5, 1, 16, 16), which has 16 channels"
    )
    assert "(N, H, W) or (N, H, W, C) is needed; this may be PyTorch's (N, C, H, W)" in said
