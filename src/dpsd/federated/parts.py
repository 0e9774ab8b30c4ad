"""The teachers of clients in a simulation: each is trained on a part of a data set, then kept.

A folder of a name that says what they were made of has ``partition.json``, with a picture of the
partition, and the directory of a teacher for each client. Another folder of that name is refused.
All teachers start from the same weights, as baselines average them.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     teachers = ClientTeachers(
...         data="digits", folder=Path(folder), model="cnn", clients=2, alpha=9.0, epochs=1
...     )
...     [path.relative_to(folder).as_posix() for path in teachers.train()]
['digits-cnn-2-clients-dirichlet-9-1-epochs/client-1', '...-1-epochs/client-2']
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpsd.datasets import has_validation, load_dataset
from dpsd.datasets.sameness import Origin, place_of
from dpsd.devices.execution import Execution
from dpsd.errors import TeacherError, reason, unwritable
from dpsd.federated.partitions import Partition, dirichlet_partition
from dpsd.storage.files import write_text
from dpsd.teachers.directory import DESCRIPTION_FILE, TeacherRecord, save_teacher
from dpsd.teachers.record import read_record
from dpsd.training.classifier import evaluate_accuracy, train_teacher

PARTITION_FILE = "partition.json"

#: The seed of every client's training; all start from the same weights.
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ClientTeachers:
    """The teachers of clients, by what they are made of.

    Args:
        data: the data set's name.
        folder: where teachers are kept.
        model: the architecture of all teachers.
        clients: the number of clients, at least 2.
        alpha: the parameter of the Dirichlet distribution, > 0.
        seed: the seed of the partition.
        epochs: each client's passes over its part; as many as
            :func:`~dpsd.training.classifier.train_teacher` chooses if not given.
        validation_share: the share of the training records that no client is given, if the data
            set has no validation split of its own.
    """

    data: str
    folder: Path
    model: str
    clients: int
    alpha: float
    seed: int = 0
    epochs: int | None = None
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        if has_validation(self.data):
            object.__setattr__(self, "validation_share", 0.0)

    @property
    def home(self) -> Path:
        """The folder of all these teachers, named after what they are made of."""
        name = f"{self.data}-{self.model}-{self.clients}-clients-dirichlet-{self.alpha:g}"
        name += f"-{self.epochs}-epochs" if self.epochs else ""
        name += f"-seed-{self.seed}" if self.seed else ""
        name += f"-{self.validation_share:g}-held-out" if self.validation_share else ""
        return self.folder / re.sub(r"[^\w.-]+", "-", name)  # data may be a path

    @property
    def paths(self) -> list[Path]:
        """The directory of each client's teacher, in order."""
        return [self.home / f"client-{number}" for number in range(1, self.clients + 1)]

    def are_kept(self) -> bool:
        """Whether all teachers are there.

        Raises:
            TeacherError: other teachers are in the folder.
        """
        if not (self.home / PARTITION_FILE).exists():
            return False
        _require(self.home, self._made_of())
        if not all((path / DESCRIPTION_FILE).exists() for path in self.paths):
            return False
        # A relative path may be the name of other data, in another working directory.
        place = read_record(self.paths[0]).data_place
        if not Origin.of(self.data, place=place).is_named(self.data):
            raise TeacherError(
                f"{self.home} holds teachers of the data in {place}, and {self.data} leads to "
                f"{place_of(self.data)}: move it away, or keep teachers elsewhere"
            )
        return True

    def train(self, notify: Callable[[str], None] = lambda _: None) -> list[Path]:
        """Train the teachers that are not there, and return the directories of all, in order.

        Args:
            notify: is told of each teacher before it is trained.

        Raises:
            ConfigError: a number is out of range, or there is no model of that name.
            DataError: the data set is not there.
            TeacherError: training diverged, the folder cannot be written, or other teachers are in
                it.
        """
        if self.are_kept():
            return self.paths
        train = load_dataset(self.data, "train", validation_share=self.validation_share)
        test = load_dataset(self.data, "test")
        partition = dirichlet_partition(
            train.labels,
            num_classes=train.num_classes,
            clients=self.clients,
            alpha=self.alpha,
            seed=self.seed,
        )
        _describe(self.home, self._made_of(), partition, train.class_names)
        execution = Execution.of()
        for number, path in enumerate(self.paths):
            if (path / DESCRIPTION_FILE).exists():
                continue
            notify(f"training {self.home.name}/{path.name}, which is kept once it is done")
            module = train_teacher(
                train.subset(partition.rows(number)),
                model=self.model,
                epochs=self.epochs,
                seed=_SEED,
                device=str(execution.device),
                precision=execution.precision,
            )
            record = TeacherRecord(
                model=self.model,
                input_shape=train.input_shape,
                num_classes=train.num_classes,
                class_names=train.class_names,
                data=f"part {number + 1} of {self.clients} of {self.data}",
                data_place=str(place_of(self.data)),
                validation_share=self.validation_share,
                accuracy=evaluate_accuracy(module, test),
                precision=execution.precision,
                seed=_SEED,
                epochs=self.epochs,
            )
            save_teacher(path, module, record)
        return self.paths

    def _made_of(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "folder"}


def _describe(
    home: Path, made_of: Mapping[str, Any], partition: Partition, class_names: tuple[str, ...]
) -> None:
    """Write what the folder is for before there is a teacher in it.

    Raises:
        TeacherError: it cannot be written, or records are divided otherwise than when it was.
    """
    if (home / PARTITION_FILE).exists():
        _require(home, {**made_of, "digest": partition.digest})
        return
    said = {**made_of, "digest": partition.digest, "counts": partition.counts.tolist()}
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{home} cannot be created", mend="give another place", kind=TeacherError
        ) from None
    partition.picture(class_names).save(home)
    write_text(home / PARTITION_FILE, json.dumps(said) + "\n")


def _require(home: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse teachers that were made of anything else, by whatever name they lie there.

    Raises:
        TeacherError: saying what is there and what is wanted.
    """
    path = home / PARTITION_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        there = {name: found[name] for name in wanted}
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TeacherError(
            f"{path} is damaged ({type(error).__name__}: {error}): move {home} away"
        ) from None
    if there != wanted:
        differs = ", ".join(
            f"{name} {there[name]} instead of {wanted[name]}"
            for name in wanted
            if there[name] != wanted[name]
        )
        raise TeacherError(
            f"{home} holds other teachers ({differs}): move it away, or keep teachers elsewhere"
        )
