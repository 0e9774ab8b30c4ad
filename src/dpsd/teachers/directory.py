"""The directory of a teacher that dpsd trained: ``teacher.safetensors`` and ``teacher.json``.

Weights are written first and the description last, each to a temporary file that is flushed to
disk and renamed, so a directory that has a ``teacher.json`` is complete.

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
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from dpsd.errors import DpsdError, TeacherError, reason, unwritable
from dpsd.images.names import Shape
from dpsd.models import build_classifier
from dpsd.storage.files import file_hash
from dpsd.teachers.backbones import kept_backbone
from dpsd.teachers.base import DeclaredScores, Precision, Teacher, agree
from dpsd.teachers.class_names import found_class_names
from dpsd.teachers.ensemble import EnsembleTeacher
from dpsd.teachers.module import ModuleTeacher
from dpsd.teachers.record import DESCRIPTION_FILE as DESCRIPTION_FILE
from dpsd.teachers.record import TeacherRecord as TeacherRecord
from dpsd.teachers.record import read_description
from dpsd.teachers.sharding import SHARDS_FILE, Shards
from dpsd.teachers.weights import fill_module, read_weights

WEIGHTS_FILE = "teacher.safetensors"


def save_teacher(
    directory: str | Path, weights: nn.Module | Mapping[str, Tensor], record: TeacherRecord
) -> Path:
    """Write a trained teacher to ``directory``, which is created if it does not exist.

    Args:
        directory: the directory to write to.
        weights: a module, or an ensemble's weights by name, ``(members, …)``.
        record: the description of the teacher.

    Returns:
        The directory.

    Raises:
        TeacherError: the directory cannot be written to.
        DiskFullError: the disk is full.
    """
    directory = Path(directory)
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}
    encoded = encode_tensors(tensors, metadata={"format": "pt"})
    hashes = {"weights_sha256": hashlib.sha256(encoded).hexdigest()}
    if record.members > 1:
        hashes["shards_sha256"] = _file_hash(directory / SHARDS_FILE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_atomically(directory / WEIGHTS_FILE, encoded)
        _write_atomically(directory / DESCRIPTION_FILE, record.describe(**hashes).encode())
    except OSError as error:
        raise unwritable(
            error,
            f"cannot write the teacher to {directory}",
            mend="give another place",
            kind=TeacherError,
        ) from None
    return directory


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
        directory: a directory that :func:`save_teacher` wrote.
        input_shape: the shape of an image; if given, it must be the one in the description.
        num_classes: the number of classes; if given, it must be the one in the description.
        scores: what the teacher returns; dpsd's own classifiers return logits.
        device: the device that the teacher runs on.
        precision: the precision; ``"bfloat16"`` uses autocast.

    Raises:
        TeacherError: the directory is incomplete or damaged, or contradicts an argument.
    """
    directory = Path(directory)
    record, hashes = read_description(directory)
    agree("num_classes", num_classes, record.num_classes, where=str(directory / DESCRIPTION_FILE))
    loaded = _loaded(directory, record, hashes, input_shape, scores, device, precision)
    loaded.class_names = found_class_names(record.class_names, num_classes=record.num_classes)
    return loaded


def _loaded(
    directory: Path,
    record: TeacherRecord,
    hashes: Mapping[str, str],
    input_shape: Shape | None,
    scores: DeclaredScores,
    device: str,
    precision: Precision,
) -> Teacher:
    path = directory / DESCRIPTION_FILE
    agree("input_shape", input_shape, record.input_shape, where=str(path))
    weights_path = directory / WEIGHTS_FILE
    state = read_weights(weights_path)
    if _file_hash(weights_path) != hashes["weights_sha256"]:
        raise TeacherError(
            f"{weights_path} is not the file that {DESCRIPTION_FILE} describes (sha256 differs): "
            "copy the whole directory again, or train the teacher again"
        )
    features = None
    if record.features is not None:
        features = kept_backbone(directory, record.features, input_shape=record.input_shape)
    try:
        module = build_classifier(
            record.model,
            input_shape=record.input_shape,
            num_classes=record.num_classes,
            seed=0,
            features=None if features is None else features.module,
        )
    except DpsdError as error:
        raise TeacherError(f"{path}: {error}") from None
    trained_on = f"{record.model} trained on {record.data or 'unnamed data'}"
    if record.members > 1:
        shards = _checked_shards(directory, record, state, expected=hashes["shards_sha256"])
        first = {name: part[0] for name, part in state.items()}
        # What is not trained, such as the scale of fixed features, is not in the file.
        trained = {name for name, part in module.named_parameters() if part.requires_grad}
        own = {name: part for name, part in module.state_dict().items() if name not in trained}
        fill_module(module, own | first, where=str(directory))
        ensemble = EnsembleTeacher(
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
        ensemble.features = features
        return ensemble
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
    """Load the shards: disjoint, those that the description names, and as many as the weights."""
    if any(part.ndim == 0 or len(part) != record.members for part in state.values()):
        raise TeacherError(
            f"{directory / WEIGHTS_FILE} does not hold {record.members} teachers, as "
            f"{DESCRIPTION_FILE} says: copy the whole directory again"
        )
    shards = Shards.load(directory)
    if _file_hash(directory / SHARDS_FILE) != expected:
        raise TeacherError(
            f"{directory / SHARDS_FILE} is not the file that {DESCRIPTION_FILE} describes (sha256 "
            "differs), so nobody can tell which teacher was trained on what: copy the whole "
            "directory again"
        )
    if shards.teachers != record.members:
        raise TeacherError(
            f"{directory / SHARDS_FILE} holds {shards.teachers} shards for {record.members} "
            "teachers: copy the whole directory again"
        )
    return shards


def _file_hash(path: Path) -> str:
    try:
        return file_hash(path).removeprefix("sha256:")
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {reason(error)}") from None


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o600)  # a teacher may leak its data, so only its owner may read it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
