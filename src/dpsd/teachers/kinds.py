"""Telling from a path or a name which kind of teacher it is, without loading anything.

>>> is_factory("package.module:factory"), is_factory("teacher.onnx"), is_factory("hf:vit")
(True, False, False)
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from dpsd.errors import TeacherError
from dpsd.teachers.address import ServiceAddress, is_service
from dpsd.teachers.in_memory import refuse_in_memory
from dpsd.teachers.record import DESCRIPTION_FILE, read_record
from dpsd.teachers.snapshot import CONFIG_FILE, check_snapshot

#: The kinds of teachers, for messages.
KINDS = (
    "a directory that train-teacher wrote, a directory of several teachers, a .pt2 or .onnx file, "
    "hf:FOLDER (a snapshot of a Hugging Face classifier), 'package.module:factory', or the address "
    "of a service, https://HOST/v2/models/NAME"
)
#: What may be given as a teacher, for the help of every command and setting that takes one.
TEACHER_HELP = (
    "The teacher: a directory, an .onnx or .pt2 file, hf:FOLDER, package.module:factory, or the "
    "address of a service, https://HOST/v2/models/NAME."
)
#: The suffixes of files that hold weights without the code that runs them.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
#: What stands before the folder of a snapshot of a Hugging Face classifier.
SNAPSHOT = "hf:"
#: The file in a teacher's directory that records what its runs have spent.
BUDGET_FILE = "budget.jsonl"

_LOADABLE = (".pt2", ".onnx")
_FACTORY_MEND = "give 'package.module:teacher' with a function of yours: def teacher(): return "
#: What to do with files of other kinds, by their suffixes.
_MENDS = {
    (".pkl", ".pickle", ".joblib", ".sav"): "a pickle runs code when it is read. If you trust it, "
    + _FACTORY_MEND
    + "joblib.load({name!r}).predict_proba",
    (".keras", ".h5", ".hdf5"): "a Keras model may hold code. If you trust it, "
    + _FACTORY_MEND
    + "keras.saving.load_model({name!r}), with KERAS_BACKEND=torch and probably --layout nhwc",
    (".pb", ".tflite", ".mlmodel"): "convert it to ONNX, for example with tf2onnx, and give the "
    ".onnx file",
    (".ts", ".torchscript", ".ptl"): "TorchScript may call any operator of torch's. If you trust "
    "it, " + _FACTORY_MEND + "torch.jit.load({name!r})",
    (".bin", ".ckpt"): "save its state dict where you trust it, with safetensors.torch.save_file, "
    "and give 'package.module:factory' as the teacher and that file as its weights",
    (".engine", ".plan"): "let a server answer for it, and give the server's address, "
    "https://HOST/v2/models/NAME",
}
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_factory(source: str) -> bool:
    """Return whether a name is that of a function in a module, and not of a file."""
    if snapshot_folder(source) is not None:
        return False
    return _FACTORY.fullmatch(source) is not None and not Path(source).exists()


def snapshot_folder(source: str | Path) -> str | None:
    """Return the folder in ``hf:FOLDER``; ``None`` if the source is of another kind.

    Where there is no such folder, but a module of the user's that is called ``hf``, the source is a
    factory in that module.

    >>> snapshot_folder("hf:models/vit"), snapshot_folder("models/vit")
    ('models/vit', None)
    """
    text = str(source)
    if not text.startswith(SNAPSHOT):
        return None
    folder = text.removeprefix(SNAPSHOT)
    is_own_module = (
        _FACTORY.fullmatch(text) is not None
        and not Path(folder).expanduser().exists()
        and (Path("hf.py").exists() or importlib.util.find_spec("hf") is not None)
    )
    return None if is_own_module else folder


def place_of(location: str) -> Path:
    """Return the path of a teacher from its location, which may say first what is there.

    >>> place_of("hf:models/vit") == Path("models/vit")
    True
    """
    folder = snapshot_folder(location)
    return Path(location) if folder is None else Path(folder).expanduser()


def is_ensemble(source: object) -> bool:
    """Return whether a path holds several teachers, from descriptions and names alone.

    Raises:
        TeacherError: a description is damaged.

    >>> is_ensemble("package.module:factory")
    False
    """
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return False
    if (Path(source) / DESCRIPTION_FILE).exists():
        return read_record(source).members > 1
    return bool(members_in(Path(source)))


def members_in(directory: Path) -> list[Path]:
    """Return the paths of the teachers in a directory of several, sorted by name."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in _LOADABLE or (path / DESCRIPTION_FILE).exists()
    )


def refuse_bare_snapshot(directory: Path) -> None:
    """Refuse a snapshot that is given without ``hf:``, as what it holds decides nothing here.

    Raises:
        TeacherError: the directory is a snapshot.
    """
    if (directory / CONFIG_FILE).is_file() and not (directory / DESCRIPTION_FILE).exists():
        raise TeacherError(
            f"{directory} has no {DESCRIPTION_FILE}, but a {CONFIG_FILE}: if it is a snapshot of a "
            f"Hugging Face classifier, give {SNAPSHOT}{directory}"
        )


def check_source(source: str | Path, *, plain_http: bool = False) -> None:
    """Refuse, by its name alone, a source from which no teacher can be loaded.

    Args:
        source: a path, ``package.module:factory`` or the address of a service.
        plain_http: whether a service on another machine may be asked without encryption.

    Raises:
        TeacherError: there is nothing, or something that is not a teacher.

    >>> check_source("weights.safetensors")
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: there is no weights.safetensors: a teacher is a directory that ...
    """
    if isinstance(source, str) and is_service(source):
        ServiceAddress.of(source, plain_http=plain_http)
        return
    path = Path(source)
    if (snapshot := snapshot_folder(source)) is not None:
        check_snapshot(snapshot)
        return
    if is_factory(str(source)):
        return
    if path.is_dir():
        if not members_in(path):
            refuse_bare_snapshot(path)
            read_record(path)
        return
    if not path.exists():
        refuse_in_memory(source)
        raise TeacherError(f"there is no {path}: a teacher is {KINDS}")
    if path.suffix not in (*_LOADABLE, *WEIGHT_SUFFIXES):
        mend = next((text for suffixes, text in _MENDS.items() if path.suffix in suffixes), None)
        if mend is not None:
            raise TeacherError(f"{path} is not loaded by its name: {mend.format(name=path.name)}")
        raise TeacherError(f"{path} is not of a known kind: a teacher is {KINDS}")
