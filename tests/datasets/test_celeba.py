"""CelebA in its publishers' files: whole, in part, damaged and hostile."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from dpsd.datasets import Declared, celeba, data_root, has_validation, load_dataset
from dpsd.errors import ConfigError, DataError

COLUMNS = "Bald Black_Hair Blond_Hair Brown_Hair Male"
#: A file, its partition, and its attributes in the order of the columns.
FACES = (
    ("000001.jpg", 0, "-1 1 -1 -1 1"),
    ("000002.jpg", 0, "-1 -1 1 -1 -1"),
    ("000003.jpg", 0, "-1 -1 1 1 -1"),  # two colours
    ("000004.jpg", 0, "1 -1 -1 -1 1"),  # none
    ("000005.jpg", 1, "-1 -1 -1 1 -1"),
    ("000006.jpg", 2, "-1 -1 -1 1 -1"),
    ("000007.jpg", 0, "-1 -1 -1 1 1"),
)


def jpeg(red: int, size: tuple[int, int] = (178, 218)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 0, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_celeba(
    root: Path,
    *,
    count: bool = True,
    faces: Sequence[tuple[str, int, str]] = FACES,
    **images: bytes,
) -> Path:
    """Write the three files; images are given by their number, as in ``f000001=b"..."``."""
    folder = root / "celeba"
    folder.mkdir(exist_ok=True)
    lines = [COLUMNS, *(f"{file}  {values}" for file, _, values in faces)]
    lines = [str(len(faces))] * count + lines
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    partition = "".join(f"{file} {part}\n" for file, part, _ in faces)
    (folder / "list_eval_partition.txt").write_text(partition)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for row, (file, _, _) in enumerate(faces):
            content = images.get(f"f{file[:6]}", jpeg(20 * (row + 1)))
            archive.writestr(f"img_align_celeba/{file}", content)
        archive.writestr("../outside.jpg", b"never read, never written")
    return folder


@pytest.mark.parametrize("count", [True, False])
def test_hair_is_that_of_faces_with_exactly_one_colour(tmp_path: Path, count: bool) -> None:
    write_celeba(tmp_path, count=count)
    data = load_dataset("celeba-hair", "train", root=tmp_path)
    assert data.class_names == ("black", "blond", "brown")
    assert data.names == ("black/000001.jpg", "blond/000002.jpg", "brown/000007.jpg")
    assert data.labels.tolist() == [0, 1, 2]
    assert data.input_shape == (3, 64, 64)
    assert abs(int(data.images[2, 0, 30, 30]) - 140) < 4
    assert not (tmp_path.parent / "outside.jpg").exists()


@pytest.mark.filterwarnings("ignore:no (validation|test) image")
def test_the_partition_decides_the_split(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    names = {
        split: load_dataset("celeba-gender", split, root=tmp_path).names
        for split in ("train", "validation", "test")
    }
    assert names["validation"] == ("female/000005.jpg",)
    assert names["test"] == ("female/000006.jpg",)
    assert len(names["train"] or ()) == 5
    assert has_validation("celeba-gender", root=tmp_path)
    # A part without partition 1 has validation records held out of its training split.
    write_celeba(tmp_path, faces=tuple(face for face in FACES if face[1] != 1))
    assert not has_validation("celeba-gender", root=tmp_path)
    held = load_dataset("celeba-gender", "validation", root=tmp_path, validation_share=0.5)
    assert held.validation_share == 0.5
    assert set(held.names or ()) < set(names["train"] or ())


def test_size_and_order_of_classes_are_declared(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    declared = Declared(size=(32, 24), classes=("brown", "blond", "black"))
    data = load_dataset("celeba-hair", "train", root=tmp_path, declared=declared)
    assert data.input_shape == (3, 32, 24)
    assert data.labels.tolist() == [2, 1, 0]
    for wrong, words in (
        (Declared(classes=("male", "female", "other")), "classes are male, female, other, but"),
        (Declared(value_range=(0, 9)), "value_range is declared"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_dataset("celeba-hair", "train", root=tmp_path, declared=wrong)
    with pytest.raises(DataError, match=r"000001\.jpg is in colour, but channels 1 was declared"):
        load_dataset("celeba-hair", "train", root=tmp_path, declared=Declared(channels=1))


@pytest.mark.filterwarnings("ignore:no training image")
def test_a_prepared_folder_comes_before_the_publishers_files(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    (tmp_path / "celeba-hair/train/blond").mkdir(parents=True)
    Image.new("RGB", (70, 70)).save(tmp_path / "celeba-hair/train/blond/1.png")
    assert load_dataset("celeba-hair", "train", root=tmp_path).names == ("blond/1.png",)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_celeba(tmp_path)
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(DataError, match=r"celeba/list_eval_partition\.txt\. Get it from https"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    write_celeba(tmp_path, faces=FACES[:4])
    with pytest.raises(DataError, match=r"list_eval_partition\.txt lists no test image of"):
        load_dataset("celeba-hair", "test", root=tmp_path)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/000001.jpg", jpeg(9))
    with pytest.raises(DataError, match=r"000002\.jpg is listed, but is not in the archive"):
        load_dataset("celeba-hair", "train", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("list_attr_celeba.txt", "Bald Male\n000001.jpg 1 1\n", "no column Black_Hair, Blond_Hair"),
        ("list_attr_celeba.txt", "", "no column Black_Hair"),
        ("list_attr_celeba.txt", f"{COLUMNS}\n000001.jpg 1 1\n", "line 2: an image and 1 or -1"),
        ("list_attr_celeba.txt", f"{COLUMNS}\n000001.jpg 1 1 1 1 7\n", "line 2: an image and 1 or"),
        ("list_eval_partition.txt", "000001.jpg 3\n", "line 1: an image and 0, 1 or 2"),
        ("list_eval_partition.txt", "000001.jpg\n", "line 1: an image and 0, 1 or 2"),
        ("list_eval_partition.txt", b"\xff\xfe\0", "cannot be read as text"),
        ("img_align_celeba.zip", "no archive", "damaged or not a zip file"),
    ],
)
def test_broken_files_are_refused(
    tmp_path: Path, file: str, content: str | bytes, words: str
) -> None:
    path = write_celeba(tmp_path) / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("celeba-hair", "train", root=tmp_path)
    assert file in str(caught.value)


def test_damaged_and_absurd_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_celeba(tmp_path, f000002=jpeg(9)[:300])
    with pytest.raises(DataError, match=r"000002\.jpg is not a readable image"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    # The header of a JPEG file states its height and width, which may be anything.
    absurd = jpeg(9).replace(bytes([0, 218, 0, 178]), b"\xff\xdc\xff\xdc", 1)
    write_celeba(tmp_path, f000002=absurd)
    with pytest.raises(DataError, match=r"000002\.jpg is not a readable image: .*exceeds limit"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    path = write_celeba(tmp_path) / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8", b"\xff\xd9"))
    with pytest.raises(DataError, match=r"000001\.jpg is damaged or encrypted: Bad CRC"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    write_celeba(tmp_path)
    monkeypatch.setattr(celeba, "LARGEST_IMAGE", 30_000)  # bytes and pixels
    with pytest.raises(DataError, match=r"000001\.jpg has 178x218 pixels; refused"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    write_celeba(tmp_path, f000001=bytes(30_001))
    with pytest.raises(DataError, match=r"000001\.jpg would unpack to 30,001 bytes; refused"):
        load_dataset("celeba-hair", "train", root=tmp_path)
    monkeypatch.setattr(celeba, "LARGEST_LIST", 10)
    with pytest.raises(DataError, match="has more than 10 bytes; refused"):
        load_dataset("celeba-hair", "train", root=tmp_path)


def test_real_celeba() -> None:
    root = data_root().resolve()
    if not (root / "celeba").is_dir():
        pytest.skip(f"no CelebA under {root}")
    small = Declared(size=(8, 8))
    data = load_dataset("celeba-hair", "test", root=root, declared=small)
    assert len(data) > 1_000
    assert data.labels.bincount().min() > 200
