"""Evaluations that ``dpsd evaluate --json`` wrote, read back for a page about the same student.

They are measured on private data and are not privatised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpsd.errors import ConfigError, RunError, Setting
from dpsd.privacy.records.certificate import Certificate
from dpsd.storage.files import read_json

#: What an evaluation must state, with its type.
_STATED: dict[str, type | tuple[type, ...]] = {
    **{"data": str, "split": str, "images": int, "student_accuracy": (int, float)},
    **{"run": str, "student": str},
}

#: The quantile of the normal distribution that a 95 % interval reaches to.
_QUANTILE = 1.959964


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read an evaluation.

    Raises:
        ConfigError: the file cannot be read, or is not an evaluation.
    """
    try:
        found = read_json(path)
    except RunError as error:
        raise ConfigError(
            Setting("evaluation"), f": {error}; write it with dpsd evaluate RUN --data NAME --json"
        ) from None
    for name, kind in _STATED.items():
        if not isinstance(found.get(name), kind) or isinstance(found[name], bool):
            raise ConfigError(
                *(Setting("evaluation"), f": {path} does not state {name}; write it with "),
                "dpsd evaluate RUN --data NAME --json",
            )
    for name in ("student_accuracy", "teacher_accuracy", "agreement"):
        share = found.get(name)
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise ConfigError(Setting("evaluation"), f": {path} states {name} = {share}")
    return found


def is_about(found: Mapping[str, Any], certificate: Certificate) -> bool:
    """Whether an evaluation is about the student that a certificate names."""
    return (found["run"], found["student"]) == (certificate.run, certificate.student)


def where(found: Mapping[str, Any]) -> str:
    """Say what was measured on, with the number of images.

    >>> where({"data": "digits", "split": "test", "images": 712})
    '712 images of digits, test split'
    """
    part = f"{found['split']} split"
    if share := found.get("validation_share"):
        part = f"{share:g} of the training split, held out for validation"
    return f"{found['images']:,} images of {found['data']}, {part}"


def chosen_on(found: Mapping[str, Any]) -> str:
    """Say in a full sentence what is known of choices that were made on these images."""
    if found["split"] == "train":
        return (
            "The teacher was trained on these images, so this accuracy says nothing about new ones."
        )
    if found["split"] == "validation":
        return (
            "Validation images are there to choose settings by, so this accuracy may be too high."
        )
    return (
        "dpsd chose nothing by these images; whether somebody chose settings by them, it cannot "
        "know."
    )


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's interval of 95 % for a share of ``count`` cases, which need not be whole.

    >>> "{:.3f} to {:.3f}".format(*wilson(0.5, 100))
    '0.404 to 0.596'
    """
    # scipy.stats has it too, but takes a second to import, and wants whole numbers.
    centre = (share + _QUANTILE**2 / (2 * count)) / (1 + _QUANTILE**2 / count)
    spread = share * (1 - share) / count + _QUANTILE**2 / (4 * count**2)
    reach = _QUANTILE * math.sqrt(max(0.0, spread)) / (1 + _QUANTILE**2 / count)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def with_interval(share: float | None, images: int) -> str:
    """Return a share of images with its 95 % interval (Wilson); ``"-"`` if it is not known.

    >>> with_interval(0.9, 100)
    '90.0% (82.6% to 94.5%)'
    """
    if share is None or images < 1:
        return "-"
    low, high = wilson(share, images)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"
