"""What teachers were trained on, as far as the records beside them tell.

>>> import tempfile
>>> from dpsd.models import build_classifier
>>> from dpsd.teachers import load_teacher, save_teacher
>>> record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10, data="digits")
>>> module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
>>> teacher = load_teacher(save_teacher(tempfile.mkdtemp(), module, record))
>>> [origin.name for origin in origins_of([teacher])]
['digits']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dpsd.datasets.sameness import Origin
from dpsd.errors import TeacherError
from dpsd.teachers.base import Teacher
from dpsd.teachers.kinds import place_of
from dpsd.teachers.record import TeacherRecord, read_record


def origin_of(record: TeacherRecord, directory: str | Path) -> Origin:
    """Return what a teacher was trained on.

    A relative path in a record of an earlier version is sought from the folders above the teacher,
    in one of which ``train-teacher`` is likely to have been started.

    Args:
        record: the record of the teacher, which names its data.
        directory: the directory of the teacher.
    """
    bases = Path(directory).resolve().parents
    return Origin.of(record.data, place=record.data_place, bases=bases)


def origins_of(teachers: Iterable[Teacher]) -> Iterator[Origin]:
    """Yield what teachers, and each member of a committee, were trained on, if that is recorded."""
    directories = dict.fromkeys(place for teacher in teachers for place in _directories(teacher))
    for directory in directories:
        with suppress(TeacherError):  # not a directory that dpsd wrote
            record = read_record(directory)
            if record.data:
                yield origin_of(record, directory)


def _directories(teacher: Teacher) -> Iterator[Path]:
    """Yield the directories in which the record of a teacher may lie, or those of a committee."""
    for one in (teacher, *teacher.charged):
        for location in (one.location, one.weights_location):
            if location is None:
                continue
            place = place_of(location)
            if place.is_dir():
                yield from (place, *sorted(place.iterdir()))
            elif place.is_file():  # such as an export, kept with the teacher that it was made from
                yield place.parent
