"""Image files as people have them: scaled by what their values mean, or refused by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpsd.datasets import Declared, LabelledImages, load_dataset
from dpsd.errors import ConfigError, DataError
from dpsd.images.reading import image_files, read_picture
from dpsd.images.value_range import checked_range, parsed_range, stated_range
from dpsd.synthesis.photographs import Folder

BYTES = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
DEEP = BYTES.astype(np.uint16) * 257


def pixels(path: Path, value_range: tuple[float, float] | None = None) -> np.ndarray[Any, Any]:
    """What is read, without a word on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(read_picture(path, value_range=value_range))


def saved(image: Image.Image, path: Path, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.png", "<u2"), ("x.png", ">u2"), ("x.tif", "<u2"), ("x.tif", ">u2"), ("x.pgm", "<u2")],
)
def test_sixteen_bits_are_scaled_as_a_whole(name: str, kind: str, tmp_path: Path) -> None:
    path = saved(Image.fromarray(DEEP.astype(kind)), tmp_path / name)
    assert pixels(path).tolist() == BYTES.tolist()


def test_a_png_that_pillow_opens_as_32_bits_has_sixteen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions of Pillow open every PNG of 16 bits so."""
    path = saved(Image.fromarray(DEEP), tmp_path / "x.png")
    opened = Image.fromarray(DEEP.astype(np.int32))
    assert opened.mode == "I"
    opened.format = "PNG"
    monkeypatch.setattr(Image, "open", lambda _: opened)
    assert pixels(path).tolist() == BYTES.tolist()


def test_a_data_set_and_public_images_are_the_same_in_8_and_16_bits(tmp_path: Path) -> None:
    for number, kind in enumerate(("a", "b")):
        for split in ("train", "test"):
            for bits, image in ((8, BYTES + number), (16, (BYTES + number) * np.uint16(257))):
                saved(Image.fromarray(image), tmp_path / f"{bits}/{split}/{kind}/1.png")
    wide, narrow = (
        load_dataset(f"folder:{tmp_path / bits}", "train", declared=Declared(size=(6, 6)))
        for bits in ("16", "8")
    )
    assert wide.images.equal(narrow.images)
    assert wide.input_shape == (1, 6, 6)
    public = [Folder((1, 5, 5), tmp_path / bits)._images for bits in ("16", "8")]
    assert public[0].equal(public[1])


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9),
    st.floats(-1e9, 1e9),
    st.floats(1e-3, 1e9),
)
@settings(max_examples=50)
def test_declared_ends_are_black_and_white_and_order_is_kept(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], low: float, width: float
) -> None:
    path = tmp_path_factory.mktemp("values") / "x.tif"
    Image.fromarray(np.array([sorted(values)], dtype=np.int32)).save(path)
    ends = low, low + width
    grey = pixels(path, ends)[0].tolist()
    assert grey == sorted(grey)
    for value, found in zip(sorted(values), grey, strict=True):
        share = min(max((value - ends[0]) / (ends[1] - ends[0]), 0), 1)
        assert abs(found - 255 * share) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("kind", "words"), [(np.int32, "32-bit or signed"), (np.float32, "floating-point")]
)
def test_values_without_a_range_need_one(kind: type, words: str, tmp_path: Path) -> None:
    path = saved(Image.fromarray(BYTES.astype(kind)), tmp_path / "x.tif")
    with pytest.raises(DataError, match=rf"x\.tif holds {words} numbers") as caught:
        pixels(path)
    assert "--value-range 0,4095" in caught.value.spelled(lambda _: "--value-range")
    assert pixels(path, (0, 255)).tolist() == BYTES.tolist()


def test_a_scan_of_12_bits_in_16_is_scaled_from_the_declared_range(tmp_path: Path) -> None:
    path = saved(Image.fromarray(BYTES.astype(np.uint16) * 16), tmp_path / "x.png")
    assert pixels(path, (0, 255 * 16)).tolist() == BYTES.tolist()
    assert pixels(path).max() < 17


def test_a_tiff_of_12_bits_says_so_itself(tmp_path: Path) -> None:
    packed = np.array([[0, 4095], [2048, 16]])
    first, second = packed[:, 0], packed[:, 1]
    rows = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    path = saved(Image.new("I;16", (2, 2)), tmp_path / "x.tif")
    whole = path.read_bytes()
    # The values follow the header, and the entry of tag 258 says how many bits each has.
    bits = bytes([2, 1, 3, 0, 1, 0, 0, 0])
    at = Image.open(path).tag_v2[273][0]  # type: ignore[attr-defined]
    whole = whole[:at] + rows.astype(np.uint8).tobytes() + whole[at + rows.size :]
    path.write_bytes(whole.replace(bits + bytes([16, 0]), bits + bytes([12, 0])))
    assert pixels(path).tolist() == [[0, 255], [128, 1]]


def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path: Path) -> None:
    shallow = saved(Image.fromarray(255 - BYTES), tmp_path / "8.tif", tiffinfo={262: 0})
    deep = saved(Image.fromarray(65535 - DEEP), tmp_path / "16.tif")
    entry = bytes([6, 1, 3, 0, 1, 0, 0, 0])
    deep.write_bytes(deep.read_bytes().replace(entry + b"\1", entry + b"\0"))
    with Image.open(deep) as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert pixels(deep).tolist() == BYTES.tolist()
    assert pixels(shallow).tolist() == (255 - BYTES).tolist()  # Pillow inverts these itself, twice


def test_what_is_not_a_number_is_refused_by_file(tmp_path: Path) -> None:
    values = np.ones((2, 2), dtype=np.float32)
    values[0, 0] = np.nan
    path = saved(Image.fromarray(values), tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif holds values that are not numbers"):
        pixels(path, (0, 1))
    values[0, 0], values[1, 1] = np.inf, -np.inf
    saved(Image.fromarray(values), path)
    assert pixels(path, (0, 1)).tolist() == [[255, 255], [255, 0]]


def test_a_range_applies_to_8_bits_if_it_fits_them(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(BYTES // 2), tmp_path / "grey.png")
    assert pixels(grey, (0, 127.5)).tolist() == (BYTES // 2 * 2).tolist()
    colour = saved(Image.new("RGB", (3, 3), "red"), tmp_path / "red.png")
    assert pixels(colour, (0, 255)).tolist() == pixels(colour).tolist()
    for path, words in ((grey, "8-bit grey"), (colour, "8-bit colour")):
        with pytest.raises(DataError, match=rf"{words} values, 0 to 255, .* 0,4095 cannot apply"):
            pixels(path, (0, 4095))


def test_sixteen_bits_of_colour_keep_their_upper_eight(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    row = b"\0" + b"".join(struct.pack(">H", 257 * value) for value in (10, 200, 255))
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert pixels(path).tolist() == [[[10, 200, 255]]]


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = bytes([255, 0])
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("L", (1, 1), 7), "png", [[7]]),
        (Image.new("1", (1, 1), 1), "png", [[255]]),
        (Image.new("LA", (1, 1), (7, 255)), "png", [[7]]),
        (Image.new("LA", (1, 1), (7, 0)), "png", [[255]]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 255)), "png", [[[1, 2, 3]]]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 0)), "png", [[[255, 255, 255]]]),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 127)), "png", [[[128, 128, 128]]]),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tif", [[[255, 0, 0]]]),
        (palette_with_transparency(), "png", [[[255, 0, 0], [255, 255, 255]]]),
    ],
    ids=lambda value: f"{value.mode}-{value.getpixel((0, 0))}" if hasattr(value, "mode") else "",
)
def test_modes_are_shown_as_a_viewer_shows_them(
    image: Image.Image, suffix: str, expected: list[Any], tmp_path: Path
) -> None:
    assert pixels(saved(image, tmp_path / f"x.{suffix}")).tolist() == expected


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("deep", [False, True])
def test_pictures_are_upright(orientation: int, turn: int, deep: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(DEEP if deep else BYTES)
    path = saved(image, tmp_path / "train/a/x.png", exif=exif)
    assert pixels(path).tolist() == np.rot90(BYTES, turn).tolist()
    (tmp_path / "train/b").mkdir()
    with pytest.warns(UserWarning, match="class 'b'"):
        data = load_dataset(f"folder:{tmp_path}", "train")
    assert data.images[0, 0].tolist() == np.rot90(BYTES, turn).tolist()


def test_several_pages_are_refused_and_a_preview_is_not_a_page(tmp_path: Path) -> None:
    pages = [Image.fromarray(BYTES) for _ in range(3)]
    path = saved(pages[0], tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"x\.tif holds 3 pages, .* as a file of its own"):
        pixels(path)
    preview = Image.new("L", (2, 2))
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    path = saved(pages[0], tmp_path / "y.tif", save_all=True, append_images=[preview])
    assert pixels(path).tolist() == BYTES.tolist()


def test_an_animation_is_shown_by_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert pixels(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_refused_by_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png is not a readable image: .*; replace or remove"):
        pixels(path)


def test_a_file_that_may_not_be_read_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.fromarray(BYTES), tmp_path / "x.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        with pytest.raises(DataError, match=r"x\.png cannot be read: Permission denied$"):
            pixels(path)

    def walk(_: Path, onerror: Callable[[OSError], None]) -> list[Any]:
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "closed")))
        return []

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(DataError, match=r"closed cannot be read: Permission denied$"):
        image_files(tmp_path)


def test_only_images_are_found_and_none_that_is_hidden(tmp_path: Path) -> None:
    for name in ("a/1.PNG", "a/deep/2.tif", "b.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = image_files(tmp_path)
    for name in (
        *("a/._1.png", ".hidden/3.png", "__MACOSX/a/1.png", "Thumbs.db", "desktop.ini"),
        *("a/.DS_Store", "DICOMDIR", "notes"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(128) + b"DIC")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "folder.png").mkdir()
    assert image_files(tmp_path) == wanted
    assert [file.name for file in wanted] == ["1.PNG", "2.tif", "b.jpeg"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False))
def test_a_range_is_two_numbers_that_ascend(low: float, high: float) -> None:
    if low < high and high - low < float("inf"):
        assert checked_range([low, high]) == (low, high)
        assert parsed_range(f"{low!r},{high!r}") == (low, high)
    else:
        with pytest.raises(ConfigError, match="value_range is"):
            checked_range((low, high))


@pytest.mark.parametrize("text", ["", "4095", "0,1,2", "low,high", "nan,1", "1,1", "0;4095"])
def test_what_is_not_a_range(text: str) -> None:
    with pytest.raises(ConfigError, match="smaller first, as in 0,4095"):
        parsed_range(text)
    assert stated_range((0.0, 4095.0)) == "0,4095"


def test_a_range_is_about_loose_images_only() -> None:
    with pytest.raises(ConfigError, match="value_range is 0,16, but it is about loose images"):
        load_dataset("digits", "test", declared=Declared(value_range=(0, 16)))
    with pytest.raises(ConfigError, match="smaller first"):
        Declared(value_range=(5, 5))
    assert Declared().over(Declared(value_range=(0, 9))).value_range == (0, 9)


def test_a_record_of_a_16_bit_set_is_read_in_the_declared_range(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        image = Image.fromarray(BYTES.astype(np.uint16) * 16)
        saved(image, tmp_path / f"train/{kind}/1.png")
    declared = Declared(value_range=(0, 255 * 16))
    data: LabelledImages = load_dataset(f"folder:{tmp_path}", "train", declared=declared)
    assert data.images[0, 0].tolist() == BYTES.tolist()
    public = Folder((1, 9, 7), tmp_path, value_range=(0, 255 * 16))
    assert public._images[0, 0].tolist() == BYTES.tolist()
