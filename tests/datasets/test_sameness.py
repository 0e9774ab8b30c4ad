"""Names of data are compared by the files that they lead to, and not by how they are written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dpsd.datasets.sameness import Origin, place_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of images, a folder of them, and others."""
    for name in ("scans/train/ill", "scans/train/well", "scans/test/ill", "others", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("scans/train/ill/1.png", "scans/test/ill/1.png", "others/1.png", "own.npz"):
        (tmp_path / name).write_text(name)
    (tmp_path / "other.npz").write_text("o" * len("own.npz"))  # as large, and not the same
    (tmp_path / "file.npz").symlink_to("own.npz")
    (tmp_path / "folder").symlink_to("scans/train")
    (tmp_path / "pets").symlink_to("scans")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SPELLINGS = ("own.npz", "./own.npz", "others/../own.npz", "{}/own.npz", "{}/others/../file.npz")
FOLDERS = ("scans", "scans/", "./scans", "others/../scans", "{}/scans", "pets", "{}/pets/")


@pytest.mark.parametrize("given", SPELLINGS)
@pytest.mark.parametrize("asked", SPELLINGS)
def test_a_file_is_the_same_by_whatever_path(folder: Path, given: str, asked: str) -> None:
    origin = Origin.of(given.format(folder))
    assert origin.is_named(asked.format(folder))
    assert origin.is_shown_by(asked.format(folder))
    assert not origin.is_named("other.npz")
    assert not origin.is_shown_by("other.npz")


@pytest.mark.parametrize("given", FOLDERS)
@pytest.mark.parametrize("asked", FOLDERS)
def test_a_folder_is_the_same_by_whatever_path(folder: Path, given: str, asked: str) -> None:
    origin = Origin.of(f"folder:{given.format(folder)}")
    assert origin.is_named(f"folder:{asked.format(folder)}")
    assert origin.is_shown_by(asked.format(folder))
    assert not origin.is_named("folder:others")


@pytest.mark.parametrize(
    ("shown", "is_private"),
    [
        *((name, True) for name in ("scans/train", "scans/train/ill", "folder", "folder/ill")),
        *((name, True) for name in ("pets/train", "folder:scans/train", ".", "..", "/")),
        *((name, False) for name in ("scans/test", "others", "elsewhere", "other.npz", "absent")),
    ],
)
def test_training_images_are_shown_by_what_is_holds_or_lies_within_their_folder(
    folder: Path, shown: str, is_private: bool
) -> None:
    assert Origin.of("folder:scans").is_shown_by(shown) == is_private


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_one_training_image_shows_it(folder: Path, link: object) -> None:
    assert callable(link)
    origin = Origin.of("folder:scans")
    link(folder / "scans/train/ill/1.png", folder / "elsewhere/innocent.png")
    assert origin.is_shown_by("elsewhere")
    assert not origin.is_shown_by("others")


def test_a_training_class_that_is_a_link_is_shown_by_what_it_leads_to(folder: Path) -> None:
    (folder / "scans/train/odd").symlink_to(folder / "others")
    assert Origin.of("folder:scans").is_shown_by("others")


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "others/again").symlink_to(folder / "others")
    (folder / "loop").symlink_to("loop")
    assert not Origin.of("folder:scans").is_shown_by("others")
    assert not Origin.of("folder:scans").is_shown_by("loop")


def test_a_copy_of_a_file_is_the_same(folder: Path) -> None:
    shutil.copy(folder / "own.npz", folder / "elsewhere/copy.npz")
    origin = Origin.of("own.npz")
    assert origin.is_shown_by("elsewhere/copy.npz")
    assert origin.is_named("elsewhere/copy.npz")


def test_a_known_name_is_the_same_as_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_DATA", str(folder))
    (folder / "medmnist").mkdir()
    (folder / "medmnist/bloodmnist.npz").write_text("blood")
    (folder / "covidx/train/positive").mkdir(parents=True)
    blood = "medmnist:bloodmnist", str(folder / "medmnist/bloodmnist.npz")
    for one, other in (blood, blood[::-1]):
        assert Origin.of(one).is_named(other)
        assert Origin.of(one).is_shown_by(other)
    assert Origin.of("covidx").is_shown_by("covidx/train/positive")
    assert Origin.of("covidx").is_named("folder:covidx")
    (folder / "celeba").mkdir()
    assert Origin.of("celeba-hair").is_shown_by("celeba-gender")  # the same photographs
    assert not Origin.of("celeba-hair").is_named("celeba-gender")  # of other classes
    assert Origin.of("digits").is_shown_by("digits")
    assert not Origin.of("digits").is_shown_by("mnist")


def test_a_recorded_place_counts_from_any_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(place_of("own.npz"))
    monkeypatch.chdir(folder / "elsewhere")
    (folder / "elsewhere/own.npz").write_text("another file of that name")
    origin = Origin.of("own.npz", place=place)
    assert origin.is_named("../own.npz")
    assert not origin.is_named("own.npz")
    assert not origin.is_shown_by("own.npz")


def test_a_relative_path_without_a_place_is_sought_from_the_bases(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "elsewhere")
    bases = (folder / "teachers/one", folder / "teachers", folder)
    assert Origin.of("own.npz", bases=bases).is_shown_by(str(folder / "own.npz"))
    assert not Origin.of("own.npz").is_shown_by(str(folder / "own.npz"))
    gone = Origin.of("own.npz", place="/moved/away/own.npz", bases=bases)
    assert gone.is_shown_by("../file.npz")
    assert not gone.is_shown_by("../other.npz")
