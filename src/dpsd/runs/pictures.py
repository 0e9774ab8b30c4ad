"""Samples of the generator's images after each round, and a contact sheet of all rounds."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from dpsd.images.contact_sheet import image_row, save_image, stack_rows
from dpsd.runs.folder import RunFolder

#: The most rounds that the generator's contact sheet shows.
_SHEET_ROWS = 30


def save_samples(run: RunFolder, round_index: int, images: Tensor) -> None:
    """Store some of the generator's images after a round, uint8 ``(n, C, H, W)``."""
    folder = run.path / "images"
    folder.mkdir(exist_ok=True)
    save_image(image_row(images), folder / f"round-{round_index:04d}.png")


def sheet_path(run: RunFolder) -> Path:
    """The path of the contact sheet of the generator's images, which has one row per round."""
    return run.path / "images" / "generator.png"


def save_sheet(run: RunFolder) -> None:
    """Put the images of all rounds, or of a selection if there are many, on one sheet."""
    files = sorted(sheet_path(run).parent.glob("round-*.png"))
    # A long run is represented by some of its rounds, the last among them.
    step = 1 + len(files) // _SHEET_ROWS
    files = files[::-step][::-1]
    if files:
        rows = [Image.open(file) for file in files]
        labels = [f"round {int(file.stem.removeprefix('round-'))}" for file in files]
        save_image(stack_rows(rows, labels=labels), sheet_path(run))
