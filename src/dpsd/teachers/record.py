"""The record in ``teacher.json`` of a teacher that dpsd trained.

It is read before the teacher, to tell one teacher from many, so this module imports nothing that is
slow to import.

>>> import tempfile
>>> read_record(tempfile.mkdtemp())
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: ... has no teacher.json: give a directory that train-teacher wrote, or ...
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dpsd.errors import Setting, TeacherError, reason
from dpsd.images.names import Shape
from dpsd.images.value_range import ValueRange, checked_range
from dpsd.teachers.in_memory import refuse_in_memory

DESCRIPTION_FILE = "teacher.json"
_FORMAT, _VERSION = "dpsd-teacher", 1

#: A description that states more classes is taken to be forged.
_MOST_CLASSES = 10_000_000

#: The most characters of what it states of features, which certificates quote.
_LONGEST_TEXT = 300


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """The description of a trained teacher in ``teacher.json``.

    Attributes:
        model: the name of the architecture, for :func:`dpsd.models.build_classifier`.
        input_shape: the shape of an image, ``(channels, height, width)``.
        num_classes: the number of classes.
        members: the number of teachers, each trained on a shard of its own.
        class_names: the names of the classes in the order of their labels; may be empty.
        data: the name of the training data.
        data_place: where they lay, as :func:`dpsd.datasets.sameness.place_of` returned it, by which
            they are known under other names too; empty in records of earlier versions.
        features: the frozen backbone that a ``scattering`` model is linear on, with its ``name``,
            its ``hash`` and what it was ``trained_on``; ``None`` if that is a scattering transform.
        value_range: the stored values of the training images that were read as black and white, if
            they were declared; other images for this teacher are read in the same way.
        validation_share: the share of the training records that was held out for validation, in
            [0, 1), by the rule of :mod:`dpsd.datasets.validation`; 0 if the teacher was trained on
            all of them.
        group_by: the rule that says to whom each training record belongs, if one was given; a
            person's records were held out together.
        accuracy: the accuracy on the test split, from 0 to 1, if it was measured.
        validation_accuracy: the accuracy on the validation split that the publishers made, or on
            the records that were held out, if there are any.
        precision: the precision of the training.
        seed: the seed of the training.
        epochs: the number of passes over the training data.
        seconds: the duration of the training.
    """

    model: str
    input_shape: Shape
    num_classes: int
    members: int = 1
    class_names: tuple[str, ...] = ()
    data: str = ""
    data_place: str = ""
    features: Mapping[str, str] | None = None
    value_range: ValueRange | None = None
    validation_share: float = 0.0
    group_by: str | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None
    precision: str = "float32"
    seed: int | None = None
    epochs: int | None = None
    seconds: float | None = None

    def describe(self, **hashes: str) -> str:
        """Return the text of ``teacher.json``.

        Args:
            hashes: the hashes of the files that it describes, by name.
        """
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self), **hashes}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read_record(directory: str | Path) -> TeacherRecord:
    """Return the description of the teacher in ``directory``.

    Raises:
        TeacherError: there is no ``teacher.json``, or it is damaged or of another version.
    """
    return read_description(Path(directory))[0]


def read_description(directory: Path) -> tuple[TeacherRecord, dict[str, str]]:
    """Return the description of a teacher, and the hashes of the files that it describes.

    Raises:
        TeacherError: as for :func:`read_record`.
    """
    path = directory / DESCRIPTION_FILE
    if not directory.exists():
        refuse_in_memory(directory)
        raise TeacherError(f"there is no {directory}: give the place to which it was moved")
    if not path.is_file():
        raise TeacherError(
            f"{directory} has no {DESCRIPTION_FILE}: give a directory that train-teacher wrote, "
            "or a file"
        )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise TeacherError(f"{path} is of format {content['format']!r}, not {_FORMAT!r}")
        if content["version"] != _VERSION:
            raise TeacherError(
                f"{path} is of version {content['version']!r}; this dpsd reads {_VERSION}. "
                "Use the dpsd that wrote it, or a newer one"
            )
        known = {field.name for field in fields(TeacherRecord)}
        record = TeacherRecord(
            **{name: value for name, value in content.items() if name in known}
            | {
                "input_shape": checked_shape(content["input_shape"]),
                "num_classes": _checked_count(content["num_classes"]),
                "members": int(content.get("members", 1)),
                "class_names": tuple(content.get("class_names", ())),
                "data_place": str(content.get("data_place", "")),
                "features": checked_statement(content.get("features")),
                "value_range": _checked_range(content.get("value_range")),
                "validation_share": _checked_share(content.get("validation_share", 0.0)),
                "group_by": _checked_rule(content.get("group_by")),
            }
        )
        hashes = {"weights_sha256": str(content["weights_sha256"])}
        hashes["shards_sha256"] = str(content.get("shards_sha256"))
        return record, hashes
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, TeacherError):
            raise
        raise TeacherError(
            f"{path} is damaged ({type(error).__name__}: {error}): copy the directory again, "
            "or train the teacher again"
        ) from None


def checked_statement(stated: Any) -> dict[str, str] | None:
    """Return what a description states of a backbone, checked to be complete.

    Raises:
        ValueError: something is missing, or is not a text, or one that a certificate cannot quote.

    >>> checked_statement({"name": "glyphs"})
    Traceback (most recent call last):
        ...
    ValueError: features do not state name, hash and trained_on
    """
    if stated is None:
        return None
    names = ("name", "hash", "trained_on")
    if not isinstance(stated, Mapping) or not all(isinstance(stated.get(n), str) for n in names):
        raise ValueError("features do not state name, hash and trained_on")
    for name in names:
        if not (0 < len(stated[name]) <= _LONGEST_TEXT and stated[name].isprintable()):
            raise ValueError(f"features state no {name} of 1 to {_LONGEST_TEXT} printable signs")
    return {name: stated[name] for name in names}


def _checked_range(values: Any) -> ValueRange | None:
    return None if values is None else checked_range(values)


def _checked_share(share: Any) -> float:
    if not 0 <= share < 1:
        raise ValueError(f"validation_share is {share}")
    return float(share)


def _checked_rule(rule: Any) -> str | None:
    return None if rule is None else str(rule)


def _checked_count(classes: Any) -> int:
    if not 2 <= int(classes) <= _MOST_CLASSES:
        raise ValueError(f"num_classes is {classes}")
    return int(classes)


#: The most numbers in an image; a forged description that states more would only use up memory.
_LARGEST_IMAGE = 1 << 28


def checked_shape(shape: Sequence[int]) -> Shape:
    """Return ``shape`` as three positive integers.

    >>> checked_shape([1, 28, 28])
    (1, 28, 28)
    """
    sizes = tuple(int(size) for size in shape)
    if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > _LARGEST_IMAGE:
        raise TeacherError(
            Setting("input_shape"),
            " must be (channels, height, width), all positive and at most "
            f"{_LARGEST_IMAGE:,} numbers in all, not {tuple(shape)}",
        )
    return sizes
