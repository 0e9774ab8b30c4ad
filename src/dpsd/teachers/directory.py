"""The directory of a teacher that dpsd trained: ``teacher.safetensors`` and ``teacher.json``.

Weights are written first and the description last, each to a temporary file that is flushed to
disk and renamed: a directory that has a ``teacher.json`` is whole.

>>> import tempfile
>>> from dpsd.models import build_classifier
>>> record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10, data="digits")
>>> module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
>>> with tempfile.TemporaryDirectory() as folder:
...     _ = save_teacher(folder, module, record)
...     load_directory(folder).description
'cnn trained on digits'
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from dpsd.errors import DpsdError, TeacherError
from dpsd.models import build_classifier
from dpsd.teachers.base import DeclaredScores, Precision, Shape, Teacher, agree, checked_shape
from dpsd.teachers.ensemble import EnsembleTeacher
from dpsd.teachers.module import ModuleTeacher
from dpsd.teachers.sharding import SHARDS_FILE, Shards
from dpsd.teachers.weights import fill_module, read_weights

DESCRIPTION_FILE = "teacher.json"
WEIGHTS_FILE = "teacher.safetensors"
_FORMAT, _VERSION = "dpsd-teacher", 1


#: Beyond it, a description is forged.
_MOST_CLASSES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """What ``teacher.json`` says about a trained teacher.

    Attributes:
        model: the architecture's name, for :func:`dpsd.models.build_classifier`.
        input_shape: ``(channels, height, width)``.
        num_classes: how many classes there are.
        members: how many teachers there are, each trained on a shard of its own.
        class_names: their names, in order of label; may be empty.
        data: what it was trained on.
        accuracy: on the test split, from 0 to 1, if it was measured.
        precision: the precision it was trained in.
        seed: the seed it was trained with.
        epochs: passes over the training data.
        seconds: how long training took.
    """

    model: str
    input_shape: Shape
    num_classes: int
    members: int = 1
    class_names: tuple[str, ...] = ()
    data: str = ""
    accuracy: float | None = None
    precision: str = "float32"
    seed: int | None = None
    epochs: int | None = None
    seconds: float | None = None


def save_teacher(
    directory: str | Path, weights: nn.Module | Mapping[str, Tensor], record: TeacherRecord
) -> Path:
    """Write a trained teacher to ``directory``, making it if need be.

    Args:
        directory: where to.
        weights: a module; or an ensemble's weights by name, ``(members, …)``.
        record: what describes it.

    Returns:
        The directory.

    Raises:
        TeacherError: the directory cannot be written.
    """
    directory = Path(directory)
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}
    encoded = encode_tensors(tensors, metadata={"format": "pt"})
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        **asdict(record),
        "weights_sha256": hashlib.sha256(encoded).hexdigest(),
    }
    if record.members > 1:
        description["shards_sha256"] = _file_hash(directory / SHARDS_FILE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_atomically(directory / WEIGHTS_FILE, encoded)
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        _write_atomically(directory / DESCRIPTION_FILE, text.encode())
    except OSError as error:
        raise TeacherError(f"cannot write the teacher to {directory}: {error.strerror}") from None
    return directory


def read_record(directory: str | Path) -> TeacherRecord:
    """The description of the teacher in ``directory``.

    Raises:
        TeacherError: no ``teacher.json``, or one that is damaged or of another version.
    """
    return _read_description(Path(directory))[0]


def load_directory(
    directory: str | Path,
    *,
    input_shape: Shape | None = None,
    num_classes: int | None = None,
    scores: DeclaredScores = "logits",
    device: str = "cpu",
    precision: Precision = "float32",
) -> Teacher:
    """Load the teacher, or the ensemble, in ``directory``.

    Args:
        directory: what :func:`save_teacher` wrote.
        input_shape: if given, must be what the directory says.
        num_classes: likewise.
        scores: dpsd's own classifiers return logits.
        device: where the teacher runs.
        precision: ``"bfloat16"`` asks under autocast.

    Raises:
        TeacherError: a directory that is incomplete, damaged, or says otherwise.
    """
    directory = Path(directory)
    record, hashes = _read_description(directory)
    path = directory / DESCRIPTION_FILE
    agree("input_shape", input_shape, record.input_shape, where=str(path))
    agree("num_classes", num_classes, record.num_classes, where=str(path))
    weights_path = directory / WEIGHTS_FILE
    state = read_weights(weights_path)
    if _file_hash(weights_path) != hashes["weights_sha256"]:
        raise TeacherError(
            f"{weights_path} is not the file that {DESCRIPTION_FILE} describes (sha256 differs): "
            "copy the whole directory again, or train the teacher anew"
        )
    try:
        module = build_classifier(
            record.model, input_shape=record.input_shape, num_classes=record.num_classes, seed=0
        )
    except DpsdError as error:
        raise TeacherError(f"{path}: {error}") from None
    trained_on = f"{record.model} trained on {record.data or 'unnamed data'}"
    if record.members > 1:
        shards = _checked_shards(directory, record, state, expected=hashes["shards_sha256"])
        first = {name: part[0] for name, part in state.items()}
        # What nobody trained, as the scale of fixed features, is not in the file.
        trained = dict(module.named_parameters())
        own = {name: part for name, part in module.state_dict().items() if name not in trained}
        fill_module(module, own | first, where=str(directory))
        return EnsembleTeacher(
            module,
            state,
            input_shape=record.input_shape,
            num_classes=record.num_classes,
            scores=scores,
            device=device,
            precision=precision,
            description=f"{record.members} of {trained_on}",
            shards=shards,
            key=shards.key,
        )
    fill_module(module, state, where=str(weights_path))
    return ModuleTeacher(
        module,
        input_shape=record.input_shape,
        num_classes=record.num_classes,
        scores=scores,
        device=device,
        precision=precision,
        description=trained_on,
    )


def _checked_shards(
    directory: Path, record: TeacherRecord, state: Mapping[str, Tensor], *, expected: str
) -> Shards:
    """The shards: disjoint, those that the description names, and as many as weights."""
    if any(part.ndim == 0 or len(part) != record.members for part in state.values()):
        raise TeacherError(
            f"{directory / WEIGHTS_FILE} does not hold {record.members} teachers, as "
            f"{DESCRIPTION_FILE} says: copy the whole directory again"
        )
    shards = Shards.load(directory)
    if _file_hash(directory / SHARDS_FILE) != expected:
        raise TeacherError(
            f"{directory / SHARDS_FILE} is not the file that {DESCRIPTION_FILE} describes (sha256 "
            "differs), so nobody can tell who was trained on what: copy the whole directory again"
        )
    if shards.teachers != record.members:
        raise TeacherError(
            f"{directory / SHARDS_FILE} holds {shards.teachers} shards for {record.members} "
            "teachers: copy the whole directory again"
        )
    return shards


def _read_description(directory: Path) -> tuple[TeacherRecord, dict[str, str]]:
    """The record, and the hashes of the files that it describes."""
    path = directory / DESCRIPTION_FILE
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
            }
        )
        hashes = {"weights_sha256": str(content["weights_sha256"])}
        hashes["shards_sha256"] = str(content.get("shards_sha256"))
        return record, hashes
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, TeacherError):
            raise
        raise TeacherError(
            f"{path} is damaged ({type(error).__name__}: {error}): copy the directory again, "
            "or train the teacher anew"
        ) from None


def _checked_count(classes: Any) -> int:
    if not 2 <= int(classes) <= _MOST_CLASSES:
        raise ValueError(f"num_classes is {classes}")
    return int(classes)


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {error.strerror}") from None


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o600)  # a teacher may leak its data: for its owner alone
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
