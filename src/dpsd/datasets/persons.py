"""Finding the person to whom each record of a training split belongs.

A rule says where persons are recorded:

- ``csv:PATH:COLUMN`` is a CSV file with a header. Its column ``COLUMN`` holds persons; its column
  ``file``, or else its first column, holds files, as ``class/file`` or by the file's name alone.
- ``re:EXPRESSION`` is a regular expression that is searched for in every file's name, or in its
  path below the class's folder if it lies deeper; what its one group matches is the person.
- ``array:NAME`` is an array of the data set's ``.npz`` file, with one number or text per record.

>>> import torch
>>> from dpsd.datasets.labelled import LabelledImages
>>> data = LabelledImages(
...     images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 0, 1]),
...     class_names=("cat", "dog"), name="folder:pets", split="train",
...     names=("cat/ada_1.png", "cat/ben_1.png", "dog/ada_2.png"),
... )
>>> persons_of(data, r"re:^([a-z]+)_", root=Path("data"))
('ada', 'ben', 'ada')
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dpsd.datasets.labelled import LabelledImages
from dpsd.datasets.medmnist import read_array
from dpsd.datasets.published import npz_path
from dpsd.errors import ConfigError, DataError, Setting, reason

RULES = "csv:PATH:COLUMN, re:EXPRESSION or array:NAME"
#: The column of a CSV file that lists files, if there is one of this name.
FILE_COLUMN = "file"


def persons_of(data: LabelledImages, rule: str, *, root: Path) -> tuple[str, ...]:
    """Return the person to whom each record belongs, in the order of the records.

    Args:
        data: a split of a data set.
        rule: the rule that says where persons are recorded, as described above.
        root: the folder of data sets from which the split was read.

    Raises:
        ConfigError: the rule cannot be parsed, or does not suit the data set.
        DataError: a record has no person, or the file of persons is missing, damaged, or gives a
            record two persons.
    """
    kind, _, rest = rule.partition(":")
    if kind not in ("csv", "re", "array") or not rest:
        raise ConfigError(Setting("group_by"), f" is {rule!r}; it must be {RULES}")
    if kind == "array":
        return _from_array(data, rest, root)
    if data.names is None:
        raise ConfigError(
            Setting("group_by"),
            f" is {rule!r}, but the records of data set {data.name!r} are not in files of their "
            "own; array:NAME names an array of an .npz file",
        )
    if kind == "re":
        return _from_names(data.names, rest)
    path, _, column = rest.rpartition(":")
    if not path or not column:
        raise ConfigError(Setting("group_by"), f" is {rule!r}; it must be csv:PATH:COLUMN")
    return _from_table(data.names, Path(path).expanduser(), column)


def _from_names(names: tuple[str, ...], expression: str) -> tuple[str, ...]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ConfigError(
            Setting("group_by"), f": '{expression}' is not a regular expression ({error})"
        ) from None
    if compiled.groups != 1:
        raise ConfigError(
            Setting("group_by"),
            f": '{expression}' has {compiled.groups} groups; exactly one must enclose the person, "
            r"as in re:(patient\d+)_",
        )
    found = []
    for name in names:
        match = compiled.search(name.partition("/")[2])
        if match is None or not match[1]:
            raise DataError(
                Setting("group_by"),
                f": '{expression}' finds no person in the file name {name!r}; every record needs "
                "one",
            )
        found.append(match[1])
    return tuple(found)


def _from_table(names: tuple[str, ...], path: Path, column: str) -> tuple[str, ...]:
    listed: dict[str, str] = {}
    for line, (file, person) in _rows(path, column):
        if listed.setdefault(file, person) != person:
            raise DataError(
                f"{path}, line {line}: {file} belongs to {person!r}, but to {listed[file]!r} "
                "further up; a record must have one person"
            )
    alone = Counter(name.rpartition("/")[2] for name in names)
    found = []
    for name in names:
        short = name.rpartition("/")[2]
        if name not in listed and short not in listed:
            raise DataError(f"{path} does not list file {name}; every record needs a person")
        if name not in listed and alone[short] > 1:
            raise DataError(
                f"{path} lists {short}, but {alone[short]} files have that name: "
                f"list this one as {name}"
            )
        person = listed.get(name, listed.get(short, ""))
        if not person:
            raise DataError(f"{path}: {name} has no {column}; every record needs a person")
        found.append(person)
    return tuple(found)


def _rows(path: Path, column: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield the file and person in each line of a table, with the line's number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            fields = list(reader.fieldnames or ())
            files = FILE_COLUMN if FILE_COLUMN in fields else next(iter(fields), "")
            if column not in fields or column == files:
                raise DataError(
                    f"{path} has no column {column!r} of persons beside its column {files!r} of "
                    f"files: its columns are {', '.join(fields) or 'missing'}"
                )
            for row in reader:
                yield reader.line_num, (row[files].strip(), row[column].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file: {reason(error)}") from None


def _from_array(data: LabelledImages, name: str, root: Path) -> tuple[str, ...]:
    path = npz_path(data.name, root)
    if path is None:
        raise ConfigError(
            Setting("group_by"),
            f" is 'array:{name}', but data set {data.name!r} is not an .npz file; for files, use "
            "csv:PATH:COLUMN or re:EXPRESSION",
        )
    array = read_array(path, name)
    if array.dtype.kind not in "iuUS" or array.shape not in ((len(data),), (len(data), 1)):
        raise DataError(
            f"{path}: {name} is {array.dtype} {array.shape}; whole numbers or text, one for each "
            f"of the {len(data):,} records of the {data.split} split, are needed"
        )
    flat = array.reshape(-1).tolist()
    texts = [item.decode("latin-1") if isinstance(item, bytes) else str(item) for item in flat]
    found = tuple(text.strip() for text in texts)
    if "" in found:
        raise DataError(
            f"{path}: {name}, row {found.index('')}, is empty; every record needs a person"
        )
    return found
