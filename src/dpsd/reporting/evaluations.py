"""Evaluations that ``dpsd evaluate --json`` wrote, read back for a page about the same student.

They are measured on private data and are not privatised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dpsd.datasets.labelled import Split
from dpsd.errors import ConfigError, RunError, Setting
from dpsd.privacy.records.certificate import Certificate
from dpsd.storage.files import read_json
from dpsd.storage.stated import validated

#: The quantile of the normal distribution that a 95 % interval reaches to.
_QUANTILE = 1.959964

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Whole(BaseModel):
    """What a file states: all of it, in these types, and nothing else."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _OfClass(_Whole):
    """The results for one class, as :class:`dpsd.results.evaluation.ClassResult` states them."""

    name: str
    images: Count
    student_accuracy: Share | None
    teacher_accuracy: Share | None
    agreement: Share | None
    predicted: Count


class _Evaluation(_Whole):
    """What :meth:`dpsd.results.evaluation.Evaluation.to_dict` returns."""

    data: str
    split: Split
    validation_share: Share
    images: Annotated[int, Field(ge=1)]
    student_accuracy: Share
    teacher_accuracy: Share | None
    student_balanced_accuracy: Share
    teacher_balanced_accuracy: Share | None
    agreement: Share | None
    classes: list[_OfClass]
    run: str
    student: str
    confusion: list[list[Count]]
    standard_errors: dict[str, Share] = {}  # files of earlier versions have none
    privatised: Literal[False]

    @model_validator(mode="after")
    def _require_sums(self) -> Self:
        """Compare the numbers of images, which are counted in several places."""
        images = [one.images for one in self.classes]
        if sum(images) != self.images:
            raise ValueError(f"classes have {sum(images)} images, and images is {self.images}")
        if self.confusion and images != [sum(row) for row in self.confusion]:
            raise ValueError("rows of confusion are not as large as their classes")
        if any(len(row) != len(images) for row in self.confusion):
            raise ValueError(f"rows of confusion have not {len(images)} numbers")
        return self


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read an evaluation.

    Raises:
        ConfigError: the file cannot be read, or is not an evaluation that was left as it is.
    """
    try:
        found = read_json(path)
        validated(_Evaluation, found)
    except RunError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"{path} is no evaluation, or damaged ({error})"
    else:
        return found
    raise ConfigError(
        Setting("evaluation"), f": {problem}; write it with dpsd evaluate RUN --data NAME --json"
    )


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
