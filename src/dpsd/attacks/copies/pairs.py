"""The samples that are closest to training records, as a picture: they may be records themselves.

No picture is made of data sets that show persons, and an earlier one is removed.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dpsd.attacks.copies.comparing import Comparison
from dpsd.attacks.copies.records import Records
from dpsd.attacks.copies.spaces import SPACES
from dpsd.attacks.target import are_of_persons, remove_picture
from dpsd.images.contact_sheet import drawn_rows, image_row, save_image, stack_rows
from dpsd.runs.findings import Picture
from dpsd.storage.files import write_text

_LABELS = ("sample", "nearest training", "nearest held-out")


def closest_pairs(
    samples: Tensor,
    found: Comparison,
    records: Records,
    *,
    space: str,
    count: int,
    folder: Path,
) -> Picture | None:
    """Draw the samples with the smallest ratios above their nearest training and held-out records.

    Args:
        samples: the samples, uint8 ``(N, C, H, W)``.
        found: what they are near to.
        records: the records.
        space: the name of the space.
        count: the number of pairs.
        folder: where the picture is written, as SVG and PNG.

    Returns:
        The picture; ``None`` for data sets that show persons.
    """
    members, name = records.members, f"copies-{space}"
    if are_of_persons(members) or are_of_persons(records.reference):
        remove_picture(folder, name)
        return None
    order = found.training.ratios.argsort()[:count]
    rows = [
        samples[order],
        members.images[found.training.rows[order]],
        records.reference.images[found.held_out.rows[order]],
    ]
    pictures = [image_row(row) for row in rows]
    save_image(stack_rows(pictures, labels=_LABELS), folder / f"{name}.png")
    write_text(folder / f"{name}.svg", drawn_rows(pictures, labels=_LABELS))
    smallest = float(found.training.ratios[order[0]])
    return Picture(
        name=name,
        caption=f"The {len(order)} samples that are closest to a training record in "
        f"{SPACES[space]}, relative to its neighbours, closest first, with that record below and "
        "the nearest held-out record below that.",
        finding=f"The closest sample is at {smallest:.2f} of its mean distance to its nearest "
        f"training records; a near-copy would be below {found.near.threshold:.2f}.",
        shows_records=True,
    )
