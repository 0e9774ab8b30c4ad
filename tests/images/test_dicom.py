"""DICOM files are shown as they say themselves, and nothing about the patient is read."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from dpsd.datasets import Declared, load_dataset
from dpsd.errors import DataError
from dpsd.images.dicom import is_dicom, read_dicom
from dpsd.images.reading import image_files, read_picture
from dpsd.synthesis.photographs import Folder

PATIENT = "Doe^Jane"
VALUES = np.array([[0, 100, 300], [1100, 2000, 4095]], dtype=np.uint16)


def written(path: Path, values: np.ndarray[Any, Any] = VALUES, **elements: Any) -> Path:
    """A DICOM file with a patient in it; elements replace or extend those that it has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT, "MRN-4711", "19700101"
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    bits = 8 * values.dtype.itemsize
    data.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    data.BitsAllocated, data.BitsStored = bits, 8 if bits == 8 else 12
    data.PixelRepresentation = int(values.dtype.kind == "i")
    content = elements.pop("content", values.tobytes())
    for name, value in elements.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = content
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    if meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        data["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def pixels(path: Path, value_range: tuple[float, float] | None = None) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found: list[Any] = np.asarray(read_picture(path, value_range=value_range)).tolist()
    return found


def test_a_window_is_what_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "x.dcm", WindowCenter=1000.5, WindowWidth=2001)
    # A linear window of width w shows w - 1 steps, centred half a step lower.
    assert pixels(path) == [[0, 13, 38], [140, 255, 255]]


def test_values_are_rescaled_before_the_window(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": 0.5, "WindowWidth": 2001}
    path = written(tmp_path / "x.dcm", RescaleSlope=1, RescaleIntercept=-1000, **window)
    assert pixels(path) == [[0, 13, 38], [140, 255, 255]]
    path = written(tmp_path / "y.dcm", RescaleSlope=-1, RescaleIntercept=1000, **window)
    assert pixels(path) == [[255, 242, 217], [115, 0, 0]]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": [1000.5, 40], "WindowWidth": [2001, 80]}
    straight = pixels(written(tmp_path / "x.dcm", **window))
    inverted = written(tmp_path / "y.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    assert pixels(inverted) == (255 - np.array(straight)).tolist()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(center=st.integers(-500, 5000), width=st.integers(2, 4000))
@settings(max_examples=15)
def test_every_window_keeps_the_order_and_shows_its_ends(
    function: str, center: int, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.array([[0, 500, 1000, 1500, 2000, 4000, 4095]], dtype=np.uint16)
    path = written(
        tmp_path_factory.mktemp("window") / "x.dcm",
        values,
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function,
    )
    (grey,) = pixels(path)
    assert grey == sorted(grey)
    for value, found in zip(values[0].tolist(), grey, strict=True):
        if value < center - 3 * width:
            assert found == 0
        if value > center + 3 * width:
            assert found == 255


def test_a_declared_range_replaces_the_window(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.dcm",
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=5,
        WindowWidth=10,
    )
    assert pixels(path, (-1000, 3000)) == [[0, 13, 38], [140, 255, 255]]


def test_a_lookup_table_is_used_where_there_is_no_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [2, 0, 8]
    table.LUTData = [255, 0]
    table["LUTData"].VR = "US"
    path = written(tmp_path / "x.dcm", np.array([[0, 1]], dtype=np.uint16), VOILUTSequence=[table])
    assert pixels(path) == [[255, 0]]


def test_8_bits_need_no_window_and_more_do(tmp_path: Path) -> None:
    path = written(tmp_path / "x.dcm", np.array([[0, 7], [200, 255]], dtype=np.uint8))
    assert pixels(path) == [[0, 7], [200, 255]]
    path = written(tmp_path / "deep.dcm")
    with pytest.raises(DataError, match=r"deep\.dcm declares no window") as caught:
        pixels(path)
    assert caught.value.spelled(lambda _: "--value-range").endswith(
        "give --value-range, for example --value-range -1000,400"
    )


def test_colours_are_colours(tmp_path: Path) -> None:
    colours = np.array([[[1, 2, 3], [255, 0, 9]]], dtype=np.uint8)
    assert pixels(written(tmp_path / "x.dcm", colours)) == colours.tolist()
    with pytest.raises(DataError, match=r"x\.dcm is in colour, to which .* cannot apply"):
        pixels(tmp_path / "x.dcm", (0, 4095))


def test_rle_is_decoded(tmp_path: Path) -> None:
    path = written(tmp_path / "x.dcm", WindowCenter=1000.5, WindowWidth=2001)
    plain = pixels(path)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    assert pixels(path) == plain


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder  # type: ignore[attr-defined, unused-ignore]

    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed")
    path = written(tmp_path / "x.dcm", syntax=JPEGLosslessSV1, content=encapsulate([b"no JPEG"]))
    with pytest.raises(DataError) as caught:
        pixels(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is compressed as JPEG Lossless")
    assert "gdcmconv --raw" in message
    assert "pip install pylibjpeg" in message


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": 2, "content": VALUES.tobytes() * 2}, "holds 2 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "of a kind that is not read"),
        ({"content": b"\0\0"}, "not a readable DICOM file"),
        ({"BitsAllocated": 7, "WindowCenter": 1, "WindowWidth": 1}, "not a readable DICOM file"),
        ({"Rows": 60_000, "Columns": 60_000}, "declares 3,600,000,000 pixels"),
        ({"Rows": 0}, "without a picture"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "not a readable DICOM file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_names_the_file_and_quotes_nothing(
    elements: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.dcm", **elements)
    with pytest.raises(DataError, match=words) as caught:
        pixels(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_no_element_of_the_patient_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "x.dcm", WindowCenter=1000.5, WindowWidth=2001)
    assert PATIENT.encode() in path.read_bytes()
    seen: list[Dataset] = []
    real = pydicom.dcmread

    def watched(*arguments: Any, **settings: Any) -> Dataset:
        seen.append(real(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr(pydicom, "dcmread", watched)
    with caplog.at_level(logging.DEBUG):
        pixels(path)
    (parsed,) = seen
    assert {tag.group for tag in parsed.keys()} == {0x0028, 0x7FE0}  # noqa: SIM118
    assert PATIENT not in f"{parsed}{caplog.text}"
    assert not logging.getLogger("pydicom").disabled


@given(cut=st.integers(133, 700))
@settings(max_examples=40)
def test_a_truncated_file_is_an_image_or_one_line(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("cut") / "x.dcm", WindowCenter=9, WindowWidth=9)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(DataError, match=r"x\.dcm") as caught:
        read_dicom(path)
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_files_without_a_suffix_are_known_by_their_content(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": 1000.5, "WindowWidth": 2001}
    for name in ("train/a/IM0001", "train/b/1.2.840.5", "train/b/x.dcm"):
        written(tmp_path / name, **window)
    (tmp_path / "train/b/notes").write_text("no image")
    assert not is_dicom(tmp_path / "train/b/notes")
    data = load_dataset(f"folder:{tmp_path}", "train")
    assert data.names == ("a/IM0001", "b/1.2.840.5", "b/x.dcm")
    assert data.input_shape == (1, 2, 3)
    assert data.images[2, 0].tolist() == pixels(tmp_path / "train/b/x.dcm")
    again = load_dataset(
        f"folder:{tmp_path}", "train", declared=Declared(value_range=(0, 4095), channels=1)
    )
    assert not torch.equal(again.images, data.images)
    assert len(image_files(tmp_path)) == 3
    assert len(Folder((1, 2, 3), tmp_path)._images) == 3


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"x\.dcm is a DICOM file, .*pip install 'pydicom>="):
        pixels(path)
