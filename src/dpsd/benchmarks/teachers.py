"""The teachers that benchmarks share: trained once, then kept.

Every method on a task starts from the same teacher, so a folder of them is part of the task. One is
found by all that made it: a single teacher lies in ``DATA-MODEL``, an ensemble in
``DATA-MODEL-SHARDS-8-views``, and one that was not trained on the records held out for validation
in such a folder with ``-0.1-held-out`` at its end. What it says of itself is compared with what is
wanted.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     path = trained_teacher("digits", Path(folder), model="scattering", shards=4)
...     path.name, read_record(path).members
('digits-scattering-4-8-views', 4)
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import nn

from dpsd.benchmarks.processes import in_a_process
from dpsd.datasets import (
    Declared,
    LabelledImages,
    has_validation,
    load_dataset,
    settled_in_full,
)
from dpsd.datasets.sameness import place_of
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError, TeacherError
from dpsd.models import build_classifier
from dpsd.models.names import WAVELETS
from dpsd.reporting.progress import counting, telling
from dpsd.teachers import TeacherRecord, load_teacher, read_record, save_teacher
from dpsd.teachers.directory import DESCRIPTION_FILE, WEIGHTS_FILE
from dpsd.teachers.origins import origin_of
from dpsd.teachers.sharding import Shards
from dpsd.teachers.weights import fill_module, read_weights
from dpsd.training.classifier import TrainingProgress, evaluate_accuracy, train_teacher
from dpsd.training.ensemble import CLOSED_FORM, VIEWS, train_ensemble
from dpsd.training.pretraining import find_backbone

#: The seed of every teacher's training, and of how records are dealt.
_SEED = 0


def trained_teacher(
    data: str,
    folder: Path,
    *,
    model: str,
    shards: int | None = None,
    features: str | None = None,
    validation_share: float = 0.0,
) -> Path:
    """The directory of a data set's teacher, or of many on its shards; trained if not there yet.

    Args:
        data: the data set's name.
        folder: where teachers are kept, under names of data set and architecture.
        model: the single teacher's architecture; members of an ensemble are ``scattering``.
        shards: so many teachers, each on a shard of its own; ``None`` for one on all of the data.
        features: what an ensemble's members are linear on; wavelets if not given.
        validation_share: the share of the training records that are held out, if the data set has
            no validation split of its own.

    Raises:
        ConfigError: shards of a data set whose name does not fix its shape and classes.
        DataError: the data set is not there, or has too few records for so many shards.
        TeacherError: training diverged, the directory cannot be written, or another teacher is in
            it.
    """
    if features == WAVELETS:
        features = None
    if shards is not None:
        model = CLOSED_FORM
    kind = model if shards is None else f"{model}-{shards}-{VIEWS}-views"
    kind += f"-on-{features}" if features else ""
    share = 0.0 if has_validation(data) else validation_share
    kind += f"-{share:g}-held-out" if share else ""
    path = folder / re.sub(r"[^\w.-]+", "-", f"{data}-{kind}")  # data may be a path
    if (path / DESCRIPTION_FILE).exists():
        members = shards or 1
        _require(path, data=data, model=model, members=members, share=share, features=features)
        return path
    print(f"training the teacher {path.name}, which is kept once it is done", file=sys.stderr)
    # Its memory and time are no method's that comes first.
    in_a_process(_train, data, path, model, shards, share, features)
    return path


def open_module(path: Path) -> nn.Module:
    """A single teacher's module, frozen but with its gradients within reach.

    For the references without privacy that the field distils from a white box. Whatever promises
    an ε asks a :class:`~dpsd.teachers.Teacher` instead, whose answers are sealed.

    Raises:
        ConfigError: an ensemble, which has no such module.
        TeacherError: a directory that is incomplete or damaged.
    """
    record = read_record(path)
    if record.members > 1:
        raise ConfigError(f"{path} holds {record.members} teachers; a white box is one")
    module = build_classifier(
        record.model, input_shape=record.input_shape, num_classes=record.num_classes, seed=0
    )
    fill_module(module, read_weights(path / WEIGHTS_FILE), where=str(path))
    return module.eval().requires_grad_(False)


def _require(
    path: Path, *, data: str, model: str, members: int, share: float, features: str | None
) -> None:
    """Refuse a teacher that was made of anything else, by whatever name it lies there.

    Raises:
        TeacherError: saying what is there and what is wanted.
    """
    found = read_record(path)
    own = "" if found.features is None else found.features["name"]
    # A relative path may be the name of other data, in another working directory.
    origin = origin_of(found, path)
    made_of = data if origin.is_named(data) else str(origin)
    there = (found.members, found.model, made_of, found.seed, found.validation_share, own)
    wanted = (members, model, data, _SEED, share, Path(features).name if features else "")
    if there != wanted:
        form = "{} x {} on {!r}, seed {}, {:g} held out"
        has, lacks = (
            form.format(*one) + (f", on the features {one[-1]}" if one[-1] else "")
            for one in (there, wanted)
        )
        raise TeacherError(
            f"{path} holds {has}, and {lacks} is wanted: move it away, or keep teachers elsewhere"
        )


def _train(
    data: str, path: Path, model: str, shards: int | None, share: float, features: str | None
) -> None:
    # What all teachers of an ensemble share is fixed by the data set's name, or refused.
    declared = None if shards is None else settled_in_full(data, Declared())
    train = load_dataset(data, "train", declared=declared, validation_share=share)
    test = load_dataset(data, "test", declared=declared)
    record = TeacherRecord(
        model=model,
        input_shape=train.input_shape,
        num_classes=train.num_classes,
        class_names=train.class_names,
        data=data,
        data_place=str(place_of(data)),
        validation_share=share,
        seed=_SEED,
    )
    if shards is None:
        _train_one(train, test, path, record)
        return
    # Equal records in two shards would reach two teachers, and no ε would protect them.
    dealt = Shards.assign(train, teachers=shards, seed=_SEED, drop_duplicates=True)
    backbone = None
    if features is not None:
        backbone = find_backbone(features, input_shape=train.input_shape, started=pretraining)
    advance = counting(_telling(f"{path.name}, teachers"), shards)
    stacked = train_ensemble(train, dealt, seed=_SEED, features=backbone, advance=advance)
    path.mkdir(parents=True, exist_ok=True)
    dealt.save(path)
    record = replace(record, members=shards)
    if backbone is not None:
        backbone.save(path)
        record = replace(record, features=backbone.stated())
    save_teacher(path, stacked, record)
    accuracy = _majority_accuracy(path, test)
    save_teacher(path, stacked, replace(record, accuracy=accuracy))


def _train_one(
    train: LabelledImages, test: LabelledImages, path: Path, record: TeacherRecord
) -> None:
    execution = Execution.of()
    begun, done = time.monotonic(), 0
    tell = _telling(f"{path.name}, epochs")

    def finished(at: TrainingProgress) -> None:
        nonlocal done
        done = at.epoch
        tell(at.epoch, at.epochs)

    module = train_teacher(
        train,
        model=record.model,
        seed=_SEED,
        device=str(execution.device),
        precision=execution.precision,
        on_epoch=finished,
    )
    seconds = time.monotonic() - begun
    record = replace(
        record,
        accuracy=evaluate_accuracy(module, test, precision=execution.precision),
        precision=execution.precision,
        epochs=done,
        seconds=round(seconds, 1),
    )
    save_teacher(path, module, record)


@contextmanager
def pretraining(passes: int) -> Iterator[Callable[[int], None]]:
    """Say how far the training of a public backbone is; yields a function to call with passes."""
    print("training a public backbone, which is kept for later", file=sys.stderr)
    yield counting(_telling("public backbone, passes"), passes)


def _telling(what: str) -> Callable[[int, int], None]:
    # Lines and no bar: the terminal's last line is that of the suite, which is another process.
    return telling(what, say=lambda line: print(line, file=sys.stderr))


def _majority_accuracy(path: Path, test: LabelledImages) -> float:
    teacher = load_teacher(path, device=str(Execution.of().device))
    found = teacher.predict_classes(test.images)
    return float((found == test.labels).double().mean())
