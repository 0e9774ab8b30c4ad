"""Readers of MNIST's, CIFAR's and MedMNIST's formats, on whole and broken files."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpsd.datasets import (
    Declared,
    LabelledImages,
    data_root,
    load_dataset,
    medmnist,
    persons_of,
    settled_in_full,
)
from dpsd.datasets.archives import tar_files
from dpsd.datasets.idx import read_idx
from dpsd.datasets.published import CIFAR100_CLASSES, RECORDS, places_of
from dpsd.errors import DataError


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, images: bytes, labels: bytes, *, packed: bool = True) -> None:
    folder = root / "mnist"
    folder.mkdir()
    for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
        path = folder / f"t10k-{kind}-ubyte"
        if packed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


IMAGES = np.arange(3 * 4 * 5).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9])


@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), packed=packed)
    data = load_dataset("mnist", "test", root=tmp_path)
    assert data.images.dtype == torch.uint8
    assert np.array_equal(data.images[:, 0].numpy(), IMAGES)
    assert data.labels.tolist() == [7, 0, 9]
    assert (data.input_shape, data.num_classes) == ((1, 4, 5), 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(IMAGES)[:-1], "declares 60 bytes but holds only 59"),
        (idx_bytes(IMAGES) + b"\0", "declares 60 bytes but holds more"),
        (idx_bytes(IMAGES)[:9], "9 bytes are not an IDX header"),
        (idx_bytes(LABELS) + bytes(16), "magic number 0x00000801, not 0x00000803"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 2**16, 2**16), "are accepted"),
        (struct.pack(">4I", 0x803, 0, 28, 28), "are accepted"),
        (struct.pack(">4I", 0x803, 500, 1000, 1000), "declares 500,000,000 bytes but holds only 0"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_broken_idx(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    write_mnist(tmp_path, content, idx_bytes(LABELS), packed=packed)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("mnist", "test", root=tmp_path)
    assert "t10k-images-idx3-ubyte" in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    for content in (gzip.compress(idx_bytes(LABELS))[:-10], b"no gzip at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"labels\.gz is damaged or truncated"):
            read_idx(path, dimensions=1)


def test_counts_and_labels_must_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS[:2]))
    with pytest.raises(DataError, match="3 images but 2 labels"):
        load_dataset("mnist", "test", root=tmp_path)
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.array([1, 2, 10])))
    with pytest.raises(DataError, match="label 10, but there are 10 classes"):
        load_dataset("mnist", "test", root=tmp_path)


def test_real_mnist() -> None:
    root = data_root().resolve()
    if not (root / "mnist").is_dir():
        pytest.skip(f"no MNIST under {root}")
    data = load_dataset("mnist", "test", root=root)
    assert data.images.shape == (10_000, 1, 28, 28)
    header = struct.pack(">4I", 0x803, 10_000, 28, 28)
    digest = hashlib.md5(header + data.images.numpy().tobytes(), usedforsecurity=False)
    assert digest.hexdigest() == "2646ac647ad5339dbf082846283269ea"


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def records(count: int, label_bytes: int) -> bytes:
    table = np.zeros((count, label_bytes + 3072), np.uint8)
    table[:, label_bytes - 1] = np.arange(count) % 10
    table[:, label_bytes] = 200
    return table.tobytes()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "file", "archive", "label_bytes"),
    [
        ("cifar10", "cifar-10-batches-bin/test_batch.bin", "cifar-10-binary.tar.gz", 1),
        ("cifar100", "cifar-100-binary/test.bin", "cifar-100-binary.tar.gz", 2),
    ],
)
def test_cifar(
    tmp_path: Path, name: str, file: str, archive: str, label_bytes: int, packed: bool
) -> None:
    content = records(10_000, label_bytes)
    if packed:
        with tarfile.open(tmp_path / archive, "w:gz", compresslevel=1) as tar:
            add(tar, "../outside.bin", b"never read, never written")
            add(tar, file, content)
    else:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_bytes(content)
    data = load_dataset(name, "test", root=tmp_path)
    assert data.images.shape == (10_000, 3, 32, 32)
    assert data.labels[:12].tolist() == [*range(10), 0, 1]
    assert data.images[5, :, 0, 0].tolist() == [200, 0, 0]
    assert data.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    assert not (tmp_path.parent / "outside.bin").exists()


def test_cifar_truncated_or_incomplete(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(records(9, 1))
    with pytest.raises(DataError, match=r"27,657 bytes, not the 30,730,000 of 10,000"):
        load_dataset("cifar10", "test", root=tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1\.bin.*https://www.cs.toronto"):
        load_dataset("cifar10", "train", root=tmp_path)
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        add(tar, "cifar-100-binary/../cifar-100-binary/train.bin", b"")
    with pytest.raises(DataError, match=r"lacks cifar-100-binary/train\.bin"):
        load_dataset("cifar100", "train", root=tmp_path)


def jpeg(colour: int, side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_jpegs(root: Path, files: dict[str, bytes]) -> Path:
    path = root / "cifar-10-images.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            add(tar, name, content)
    return path


def test_cifar_jpeg(tmp_path: Path) -> None:
    write_jpegs(
        tmp_path,
        {
            "test/truck/0.jpg": jpeg(250),
            "../test/dog/0.jpg": b"",
            "test/../0.jpg": b"",
            "/test/dog/0.jpg": b"",
            "train/dog/0.jpg": jpeg(0),
            "test/bird/0.jpg": jpeg(100),
        },
    )
    data = load_dataset("cifar10-jpeg", "test", root=tmp_path)
    assert data.labels.tolist() == [9, 2]
    assert data.input_shape == (3, 32, 32)
    assert abs(int(data.images[0, 0, 0, 0]) - 250) < 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test/dog/0.jpg": jpeg(0, 64)}, "64x64 pixels, not 32x32"),
        ({"test/dog/0.jpg": jpeg(0)[:300]}, "not a readable image"),
        (
            {"test/dog/0.jpg": jpeg(0).replace(bytes([0, 32, 0, 32]), b"\xff\xdc\xff\xdc", 1)},
            "not a readable image: .* exceeds limit",
        ),
        ({"test/wolf/0.jpg": jpeg(0)}, "does not belong to a class of cifar10-jpeg"),
        ({"train/dog/0.jpg": jpeg(0)}, "holds no images named test/"),
    ],
)
def test_broken_cifar_jpeg(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write_jpegs(tmp_path, files)
    with pytest.raises(DataError, match=message):
        load_dataset("cifar10-jpeg", "test", root=tmp_path)


def test_archives_are_bounded_and_checked(tmp_path: Path) -> None:
    path = write_jpegs(tmp_path, {"test/dog/0.jpg": bytes(10**6)})
    with pytest.raises(DataError, match="unpacks to more than 100,000 bytes"):
        list(tar_files(path, wanted=lambda _: True, most=100_000))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged or truncated"):
        load_dataset("cifar10-jpeg", "test", root=tmp_path)


def write_npz(root: Path, **changes: np.ndarray) -> Path:
    pixels = np.full((4, 8, 8, 3), 9, np.uint8)
    labels = np.array([[0], [1], [2], [0]], np.uint8)
    arrays = {
        "train_images": pixels,
        "train_labels": labels,
        "test_images": pixels[:2],
        "test_labels": labels[:2],
    }
    path = root / "medmnist" / "pathmnist.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **(arrays | changes))
    return path


def test_npz(tmp_path: Path) -> None:
    path = write_npz(tmp_path)
    for name in ("medmnist:pathmnist", str(path)):
        data = load_dataset(name, "test", root=tmp_path)
        assert data.images.shape == (2, 3, 8, 8)
        assert data.images.is_contiguous()
        assert data.class_names == ("0", "1", "2")  # of both splits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": np.array([[1], {}], dtype=object)}, "holds pickled objects"),
        ({"test_images": np.zeros((2, 8, 8, 8), np.uint8)}, r"test_images is uint8 \(2, 8, 8, 8\)"),
        ({"test_images": np.zeros((2, 8, 8), np.float32)}, "test_images is float32"),
        ({"test_labels": np.zeros((2, 14), np.uint8)}, "one whole number per image"),
        ({"test_labels": np.zeros(3, np.uint8)}, "2 images but 3 labels"),
        ({"test_labels": np.array([0, -1])}, "label -1"),
        ({"test_labels": np.array([0, 10**9])}, "cannot be the index of a class"),
        ({"test_labels": np.zeros((0, 1), np.uint8)}, "is empty"),
    ],
)
def test_broken_npz_arrays(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    write_npz(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load_dataset("medmnist:pathmnist", "test", root=tmp_path)


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header("(2, 99999, 99999)") + bytes(10), "declares 19,999,600,002 bytes but holds 10"),
        (npy_header("(2, -8, 8)") + bytes(10), "declares -128 bytes"),
        (npy_header("((("), "not a readable array"),
        (npy_header("(-2, -8, 8)") + bytes(128), "not a readable array"),
        (b"no array", "not a readable array"),
        (b"\x93NUMPY\x07\x00" + bytes(50), "not a readable array"),
    ],
)
def test_lying_npz_headers(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "lying.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test_images.npy", content)
    with pytest.raises(DataError, match=message):
        load_dataset(str(path), "test")


def test_npz_bombs_and_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path, test_images=np.zeros((2000, 28, 28), np.uint8))
    monkeypatch.setattr(medmnist, "_RATIO_MATTERS_FROM", 2**20)
    with pytest.raises(DataError, match=r"would unpack .* refused"):
        load_dataset(str(path), "test")
    monkeypatch.setattr(medmnist, "LARGEST_ARRAY", 100)
    with pytest.raises(DataError, match=r"would unpack .* refused"):
        load_dataset(str(path), "train")
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load_dataset(str(path), "test")
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="has no array test_images"):
        load_dataset(str(path), "test")


def test_parts_must_fit() -> None:
    images, labels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    for wrong_images, wrong_labels in (
        (images.float(), labels),
        (images[0], labels),
        (images[:0], labels[:0]),
        (images, labels.int()),
    ):
        with pytest.raises(DataError, match=r"needed|at least one"):
            LabelledImages(
                images=wrong_images,
                labels=wrong_labels,
                class_names=("a",),
                name="odd",
                split="test",
            )


def test_cifar_class_names() -> None:
    assert len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)


@pytest.mark.parametrize(
    ("name", "archive", "train", "test", "side", "kind", "label"),
    [
        ("cifar100-jpeg", "cifar-100-images", "train/", "test/", 32, "worm", 99),
        *[
            ("tiny-imagenet-10", "tiny-imagenet-10", f"{at}train/", f"{at}val/", 64, "pizza", 6)
            for at in ("tinyimagenet10/", "./tinyimagenet10/")
        ],
    ],
)
@pytest.mark.filterwarnings("ignore:no (training|test) image")
def test_packed_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    archive: str,
    train: str,
    test: str,
    side: int,
    kind: str,
    label: int,
) -> None:
    with tarfile.open(tmp_path / f"{archive}.tar.xz", "w:xz") as tar:
        add(tar, f"{train}{kind}/1.JPEG", jpeg(250, side))
        add(tar, f"{test}{kind}/1.JPEG", jpeg(100, side))
        add(tar, f"other/{test}{kind}/1.JPEG", b"in another folder")
        add(tar, f"{train}{kind}/2.JPEG", jpeg(10, side))
    training, testing = (load_dataset(name, split, root=tmp_path) for split in ("train", "test"))
    assert training.input_shape == (3, side, side)
    assert training.labels.tolist() == [label, label]
    assert (len(testing), testing.labels.tolist()) == (1, [label])
    assert abs(int(testing.images[0, 0, 0, 0]) - 100) < 4
    monkeypatch.setitem(RECORDS, name, (1, 1))
    with pytest.raises(DataError, match="holds more than the 1 train images of"):
        load_dataset(name, "train", root=tmp_path)


def test_covid_xray_has_the_names_of_its_classes(tmp_path: Path) -> None:
    pixels, labels = np.full((3, 64, 64), 9, np.uint8), np.array([2, 0, 1])
    (tmp_path / "covid-xray").mkdir()
    arrays: dict[str, Any] = {"train_images": pixels, "train_labels": labels}
    path = tmp_path / "covid-xray/covid-xray-64.npz"
    arrays |= {"test_images": pixels, "test_labels": labels}
    np.savez(path, **arrays, train_names=np.array(["a", "b", "a"]))
    data = load_dataset(
        "covid-xray", "train", root=tmp_path, declared=settled_in_full("covid-xray", Declared())
    )
    assert data.class_names == load_dataset("covid-xray", "test", root=tmp_path).class_names
    assert data.class_names == ("covid", "normal", "pneumonia")
    assert persons_of(data, "array:train_names", root=tmp_path) == ("a", "b", "a")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("tiny-imagenet-10", (500, 3, 64, 64)), ("covid-xray", (221, 1, 64, 64))],
)
def test_real_small_sets(name: str, shape: tuple[int, ...]) -> None:
    root = data_root().resolve()
    if not any(path.exists() for path in places_of(name, root)):
        pytest.skip(f"no {name} under {root}")
    assert load_dataset(name, "test", root=root).images.shape == shape
