"""Finding the training records on which a run can be measured, as no teacher was trained on them.

Which records were held out follows from a share and a rule (:mod:`dpsd.datasets.validation`), which
the record of the run's teacher states.
"""

from __future__ import annotations

from pathlib import Path

from dpsd.datasets.validation import check_share
from dpsd.errors import ConfigError, Setting, TeacherError
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import read_record
from dpsd.teachers.origins import origin_of
from dpsd.teachers.record import TeacherRecord


def held_out_by(
    run: RunDirectory,
    data: str,
    *,
    teacher: str | None = None,
    share: float | None = None,
    group_by: str | None = None,
    root: str | Path | None = None,
) -> tuple[float, str | None]:
    """Return the share of training records that was held out, and the rule for persons, if any.

    Both are arguments of :func:`dpsd.datasets.load_dataset`, which then loads these records.

    Args:
        run: the run of which the teacher's record is read.
        data: the name of a data set without a validation split of its own.
        teacher: the path of the teacher, if it has moved since the run.
        share: the share, for a teacher without a record of its training on these data.
        group_by: the rule, for the same; or the rule with which the recorded one is replaced, if
            its file has moved.
        root: the folder of data sets; by default :func:`~dpsd.datasets.data_root`.

    Raises:
        ConfigError: the teacher was trained on all records, the share is not the recorded one, or
            nothing states a share.
    """
    place = teacher or run.config().teacher.teacher
    if share is not None:
        check_share(share)
    record, unknown = _record_about(data, place, root)
    if record is None:
        if not share:
            raise ConfigError(
                f"nothing states which training records of {data!r} the teacher was not trained on "
                f"({unknown}): give their share with ",
                *(Setting("validation_share"), ", or the place of the teacher's record with "),
                Setting("teacher"),
            )
        return share, group_by
    if not record.validation_share:
        raise ConfigError(
            f"the teacher {place} was trained on all training records of {data!r}, so none of them "
            "can serve for validation: train it again with ",
            *(Setting("validation_share"), " 0.1"),
        )
    return _as_recorded(record, share, group_by)


def trained_on_by(
    run: RunDirectory,
    data: str,
    *,
    teacher: str | None = None,
    share: float | None = None,
    group_by: str | None = None,
    root: str | Path | None = None,
) -> tuple[float, str | None]:
    """Return the share of training records that the teacher was *not* trained on, and the rule.

    Both are arguments of :func:`dpsd.datasets.load_dataset`, which then loads, as the training
    split, exactly the records that the teacher was trained on. The arguments are those of
    :func:`held_out_by`, with a share of 0 for a teacher that was trained on all records.

    Raises:
        ConfigError: the share or the rule is not the recorded one, or nothing states a share.
    """
    if share is not None:
        check_share(share)
    record, unknown = _record_about(data, teacher or run.config().teacher.teacher, root)
    if record is None:
        if share is None:
            raise ConfigError(
                f"nothing states which training records of {data!r} the teacher was trained on "
                f"({unknown}): give the share of them that was held out, 0 if none was, with ",
                *(Setting("validation_share"), ", or the place of the teacher's record with "),
                Setting("teacher"),
            )
        return share, group_by
    return _as_recorded(record, share, group_by)


def _record_about(
    data: str, place: str, root: str | Path | None
) -> tuple[TeacherRecord | None, str]:
    """Return a teacher's record of its training on some data, or why there is none."""
    try:
        record = read_record(place)
    except TeacherError as error:
        return None, str(error)
    origin = origin_of(record, place)
    if not origin.is_named(data, root=root):
        return None, f"the teacher's record is about '{origin}'"
    return record, ""


def _as_recorded(
    record: TeacherRecord, share: float | None, group_by: str | None
) -> tuple[float, str | None]:
    """Return what a record states; refuse what contradicts it."""
    if share not in (None, record.validation_share):
        raise ConfigError(
            Setting("validation_share"),
            f" is {share:g}, but the teacher's record says that {record.validation_share:g} was "
            "held out: leave it out",
        )
    if group_by is not None and record.group_by is None:
        raise ConfigError(
            Setting("group_by"),
            f" is {group_by!r}, but the teacher's record says that records were held out one by "
            "one: leave it out",
        )
    return record.validation_share, group_by or record.group_by
