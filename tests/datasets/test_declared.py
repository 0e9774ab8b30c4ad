"""What is declared decides the shape and classes of a data set, and no record of it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpsd.datasets import Declared, LabelledImages, dataset_names, load_dataset, settled_in_full
from dpsd.datasets.published import settled
from dpsd.errors import ConfigError, DataError

PETS = Declared(size=(8, 8), channels=1, classes=("cat", "dog"))


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png")):
            write(tmp_path / split / name, Image.new("L", (12, 8), 40 * number))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": "64"}, Declared(size=(64, 64))),
        ({"size": "48x64", "channels": 3}, Declared(size=(48, 64), channels=3)),
        ({"classes": "3"}, Declared(classes=("0", "1", "2"))),
        ({"classes": "dog, cat"}, Declared(classes=("dog", "cat"))),
        ({}, Declared()),
    ],
)
def test_what_users_write(given: dict[str, object], expected: Declared) -> None:
    assert Declared.parse(**given) == expected  # type: ignore[arg-type]


def test_classes_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("n01\nn02\n\n", encoding="utf-8")
    assert Declared.parse(classes=f"@{path}").classes == ("n01", "n02")
    with pytest.raises(ConfigError, match="cannot be read"):
        Declared.parse(classes=f"@{path}.not")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "wide"}, "size is 'wide'"),
        ({"size": "0"}, "at least 1 pixel"),
        ({"size": "-4"}, "size is '-4'"),
        ({"channels": 2}, "channels is 2"),
        ({"classes": "cat"}, "classes are 1; there must be 2"),
        ({"classes": "cat,dog,cat"}, "class 'cat' is empty or named twice"),
        ({"classes": "cat,,dog"}, "class '' is empty"),
        ({"classes": "1"}, "classes are 1"),
        ({"classes": "9" * 40}, "there must be 2 to 10,000"),
    ],
)
def test_what_no_data_set_can_have(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Declared.parse(**given)  # type: ignore[arg-type]


def test_names_that_fix_everything() -> None:
    open_ones = {"covidx": "channels is", "imagenet": "classes is"}
    for name in dataset_names():
        if name in open_ones:
            with pytest.raises(ConfigError, match=open_ones[name]):
                settled_in_full(name, Declared())
        else:
            whole = settled_in_full(name, Declared())
            assert None not in (whole.size, whole.channels, whole.classes)
    assert settled("medmnist:bloodmnist_128", Declared()).size == (128, 128)
    assert settled("medmnist:chestmnist", Declared()) == Declared()
    assert settled("covidx", Declared(size=(32, 32), channels=3)).size == (32, 32)


def test_what_is_left_open_is_named_with_an_example() -> None:
    with pytest.raises(ConfigError) as caught:
        settled_in_full("folder:pets", Declared(size=(64, 64)))
    assert "channels and classes are not declared" in str(caught.value)
    assert str(caught.value).endswith("for example, channels 1 and classes cat,dog")
    assert caught.value.spelled("--{}".format).endswith("--channels 1 and --classes cat,dog")
    with pytest.raises(ConfigError, match="size, channels and classes are not declared"):
        settled_in_full("own.npz", Declared())


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Declared(size=(9, 9)), "has a fixed size of 8x8 pixels, not 9x9"),
        (Declared(channels=3), "has 1 channel, not 3"),
        (Declared(classes=("a", "b")), "has 10 classes, not 2"),
    ],
)
def test_names_are_not_contradicted(declared: Declared, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset("digits", "train", declared=declared)


def test_classes_of_a_known_set_may_go_by_other_names() -> None:
    names = tuple("abcdefghij")
    assert load_dataset("digits", "test", declared=Declared(classes=names)).class_names == names


@pytest.mark.parametrize(
    "replacement",
    [Image.new("L", (30, 20)), Image.new("RGB", (12, 8)), Image.new("RGBA", (5, 5))],
)
def test_one_image_changes_no_shape(pets: Path, replacement: Image.Image) -> None:
    """The first one decided it for everybody, and another size or colour was another shape."""
    before = load_dataset(f"folder:{pets}", "train", declared=PETS)
    replacement.save(pets / "train/cat/1.png")
    after = load_dataset(f"folder:{pets}", "train", declared=PETS)
    assert after.input_shape == before.input_shape == (1, 8, 8)
    assert after.images[1:].equal(before.images[1:])


def test_one_image_changes_no_classes(pets: Path) -> None:
    """The last image of a class may leave; the class stays."""
    (pets / "train/cat/1.png").unlink()
    (pets / "train/cat/2.png").rename(pets / "train/dog/2.png")
    (pets / "train/cat").rmdir()
    data = load_dataset(f"folder:{pets}", "train", declared=PETS)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 1]
    assert data.names == ("dog/1.png", "dog/2.png")


def test_a_declared_order_of_classes_is_kept(pets: Path) -> None:
    declared = Declared(size=(8, 8), channels=1, classes=("dog", "cat"))
    data = load_dataset(f"folder:{pets}", "train", declared=declared)
    assert data.labels.tolist() == [0, 1, 1]
    assert data.names == ("dog/1.png", "cat/1.png", "cat/2.png")


def test_images_that_were_not_declared_are_refused_by_file(pets: Path) -> None:
    colour = Image.new("RGB", (12, 8), (200, 40, 40))
    colour.save(pets / "train/dog/1.png")
    with pytest.raises(DataError, match=r"dog/1\.png is in colour, but channels 1 was declared"):
        load_dataset(f"folder:{pets}", "train", declared=PETS)
    three = Declared(size=(8, 8), channels=3, classes=("cat", "dog"))
    assert load_dataset(f"folder:{pets}", "train", declared=three).input_shape == (3, 8, 8)
    write(pets / "train/emu/7.png", colour)
    message = r"none of the declared cat, dog: emu \(with .*emu/7\.png, for example\)"
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{pets}", "train", declared=three)


def test_a_jpeg_of_a_grey_image_is_grey(pets: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12), dtype=np.uint8)
    Image.fromarray(np.stack([pixels] * 3, -1)).save(pets / "train/dog/1.jpg", quality=60)
    assert load_dataset(f"folder:{pets}", "train", declared=PETS).input_shape == (1, 8, 8)


def arrays(path: Path, labels: list[int], shape: tuple[int, ...] = (4, 8, 8)) -> Path:
    pixels = np.zeros(shape, np.uint8)
    np.savez(
        path,
        train_images=pixels,
        train_labels=np.array(labels),
        test_images=pixels,
        test_labels=np.array([0, 0, 0, 9]),
    )
    return path


def npz(path: Path, declared: Declared) -> LabelledImages:
    return load_dataset(str(path), "train", declared=declared)


def test_one_label_changes_no_number_of_classes(tmp_path: Path) -> None:
    declared = Declared(size=(8, 8), channels=1, classes=("a", "b", "c"))
    for labels in ([0, 1, 2, 0], [0, 1, 1, 0]):
        path = arrays(tmp_path / "own.npz", labels)
        # Nor does the test split, whose largest label counted too.
        assert npz(path, declared).class_names == ("a", "b", "c")
    with pytest.raises(DataError, match=r"row 2 has label 3, but there are 3 classes, 0 to 2"):
        npz(arrays(tmp_path / "own.npz", [0, 1, 3, 0]), declared)
    assert npz(path, Declared()).num_classes == 10


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 9, 9), "9x9 pixels, not 8x8"), ((4, 8, 8, 3), "3 channels, not 1")],
)
def test_arrays_that_were_not_declared_are_refused(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        npz(arrays(tmp_path / "own.npz", [0, 1, 1, 0], shape), PETS)


def test_published_facts_hold_for_the_files_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "medmnist").mkdir()
    arrays(tmp_path / "medmnist/retinamnist.npz", [0, 1, 1, 0], (4, 28, 28))
    declared = settled_in_full("medmnist:retinamnist", Declared())
    with pytest.raises(DataError, match="1 channel, not 3"):
        load_dataset("medmnist:retinamnist", "train", root=tmp_path, declared=declared)
