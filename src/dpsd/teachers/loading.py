"""Loading teachers of any kind: :func:`load_teacher` decides by what it is given.

>>> load_teacher("weights.safetensors")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: there is no weights.safetensors: a teacher is a directory that ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from dpsd.errors import Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.address import ServiceOptions, is_service
from dpsd.teachers.base import (
    DeclaredScores,
    Normalization,
    Precision,
    Teacher,
    agree,
    checked_shape,
)
from dpsd.teachers.callable import CallableTeacher
from dpsd.teachers.calling import Calling, InputScale, Layout
from dpsd.teachers.class_names import checked_class_names, parsed_class_names
from dpsd.teachers.directory import DESCRIPTION_FILE, load_directory
from dpsd.teachers.ensemble import Committee
from dpsd.teachers.exported import ExportedTeacher
from dpsd.teachers.factory import build_from_factory
from dpsd.teachers.huggingface import HuggingFaceTeacher
from dpsd.teachers.kinds import (
    KINDS,
    SNAPSHOT,
    check_source,
    is_factory,
    members_in,
    place_of,
    refuse_bare_snapshot,
    snapshot_folder,
)
from dpsd.teachers.kinds import is_ensemble as is_ensemble
from dpsd.teachers.module import ModuleTeacher
from dpsd.teachers.onnx import OnnxTeacher
from dpsd.teachers.service import ServiceTeacher
from dpsd.teachers.weights import fill_module, read_weights

TeacherSource: TypeAlias = (
    str | Path | nn.Module | Teacher | Callable[[Tensor], object] | Sequence[Teacher]
)


def load_teacher(
    source: TeacherSource,
    *,
    input_shape: Shape | None = None,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    scores: DeclaredScores = "auto",
    normalization: Normalization | None = None,
    layout: Layout = "auto",
    input_scale: InputScale = "1",
    output: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    name: str | None = None,
    service: ServiceOptions | None = None,
    class_names: str | Sequence[str] | None = None,
) -> Teacher:
    """Load a teacher from a module, a function, a file, a directory, a factory or a service.

    >>> def oracle(images):
    ...     return images.flatten(1)[:, :3]
    >>> load_teacher(oracle, input_shape=(1, 8, 8), name="oracle, version 3").fingerprint
    'callable:oracle, version 3'

    Args:
        source: a :class:`Teacher` (returned unchanged), an ``nn.Module``, a function from images to
            scores, a directory that ``train-teacher`` wrote, a ``.pt2`` or ``.onnx`` file,
            ``"hf:FOLDER"`` with the folder of a Hugging Face image classifier's snapshot,
            ``"package.module:factory"``, the address of a model behind a service that speaks the
            Open Inference Protocol (``"https://HOST/v2/models/NAME"``), or several teachers: a
            sequence of :class:`Teacher`, or a directory of such directories and files.
        input_shape: the shape of an image, ``(channels, height, width)``; needed for modules,
            functions and factories, and checked against what a file says about itself.
        num_classes: the number of classes; checked if given, otherwise found out.
        weights: a state dict, ``.safetensors``, ``.pt`` or ``.pth``, for a factory's or your own
            module.
        scores: what the teacher returns; ``"auto"`` finds out, see :class:`Teacher`.
        normalization: ``(means, deviations)`` per channel, applied to ``[0, 1]`` images first.
        layout: the order of axes that the teacher takes: ``"nchw"``, ``"nhwc"``, ``"flat"``, or
            ``"auto"`` to find out; see :class:`~dpsd.teachers.calling.Calling`.
        input_scale: the range of pixels that it takes: ``"1"`` for [0, 1], ``"255"`` for [0, 255]
            in floating point, ``"uint8"`` for whole numbers.
        output: the name, or the place from 0, of the output that holds the scores, if there are
            several.
        device: the device for modules and exported programs; ONNX files run on the CPU.
        precision: the precision of modules and exported programs; ``"bfloat16"`` uses autocast.
        name: the name under which a function's budget is kept, as its content cannot be hashed.
            Give two teachers two names, and the same teacher always the same name. The default is
            the function's qualified name, which all lambdas of a module share; for a factory's
            function, it is the factory's path.
        service: how a service is called; see :class:`ServiceOptions`.
        class_names: the names of the classes in the order of the labels, one by one or as
            ``"@FILE"``, a text file with one name a line; by default, those that the teacher's file
            states. They are your public words for the classes: whatever is made from a run shows
            them.

    Raises:
        TeacherError: nothing can be loaded, or it is not a classifier; the message says what to
            fix. Files are never unpickled beyond tensors.
        ConfigError: ``class_names`` cannot be shown or told apart.
    """
    named = None if class_names is None else parsed_class_names(class_names)
    teacher = _loaded(
        source,
        input_shape=input_shape,
        num_classes=num_classes,
        weights=weights,
        scores=scores,
        normalization=normalization,
        calling=Calling(layout=layout, scale=input_scale, output=output),
        device=device,
        precision=precision,
        name=name,
        service=service,
        class_names=named,
    )
    if named is not None:
        teacher.class_names = checked_class_names(named, num_classes=teacher.num_classes)
    return teacher


def _loaded(
    source: TeacherSource,
    *,
    input_shape: Shape | None,
    num_classes: int | None,
    weights: str | Path | None,
    scores: DeclaredScores,
    normalization: Normalization | None,
    calling: Calling,
    device: str,
    precision: Precision,
    name: str | None,
    service: ServiceOptions | None,
    class_names: tuple[str, ...] | None,
) -> Teacher:
    """Load a teacher; the names that were given replace those of its file afterwards."""
    shape = None if input_shape is None else checked_shape(input_shape)
    if isinstance(source, Sequence) and not isinstance(source, str):
        source = Committee(source)
    made: object = source
    factory: str | None = None
    if isinstance(source, str) and is_factory(source):
        made = build_from_factory(source, input_shape=shape, num_classes=num_classes)
        factory = source
    if name is not None and isinstance(made, str | Path | nn.Module | Teacher):
        raise TeacherError(
            f"name={name!r} is for functions: the budget of any other teacher is kept under a "
            "fingerprint of its content"
        )
    if weights is not None and not isinstance(made, nn.Module):
        raise TeacherError(
            Setting("weights"),
            f" {str(weights)!r} needs a module to fill: give 'package.module:factory' as "
            "the teacher, with a factory that returns an nn.Module",
        )
    if service is not None and not is_service(made):
        raise TeacherError(
            "service=ServiceOptions(…) is for the address of a service, such as "
            "https://HOST/v2/models/NAME, and the teacher is not one"
        )
    if isinstance(made, str) and is_service(made):
        _refuse_calling(calling, f"{made} states how it is called", but=("output",))
        return ServiceTeacher(
            made,
            input_shape=shape,
            num_classes=num_classes,
            scores=scores,
            normalization=normalization,
            output=calling.output,
            options=service,
        )
    if isinstance(made, str | Path):
        loaded = _load_path(
            Path(made),
            input_shape=shape,
            num_classes=num_classes,
            scores=scores,
            normalization=normalization,
            calling=calling,
            device=device,
            precision=precision,
            class_names=class_names,
        )
        place = place_of(str(made)).resolve()
        loaded.location = str(place) if snapshot_folder(made) is None else f"{SNAPSHOT}{place}"
        return loaded
    if isinstance(made, Teacher):
        agree("input_shape", shape, made.input_shape, where=made.description)
        agree("num_classes", num_classes, made.num_classes, where=made.description)
        made.location = factory or made.location
        return made
    estimator = made
    if not callable(made) and callable(predict_proba := getattr(made, "predict_proba", None)):
        made = predict_proba
    if not callable(made):
        raise TeacherError(
            f"{factory or 'the teacher'} is a {type(made).__name__}; a teacher is {KINDS}, "
            "or an nn.Module or a function from images to scores"
        )
    if shape is None:
        raise TeacherError(
            f"{factory or 'the teacher'} does not say what images it takes: give ",
            *(Setting("input_shape"), ", the channels, height and width, as in 1,28,28"),
        )
    if not isinstance(made, nn.Module):
        loaded = CallableTeacher(
            made,
            input_shape=shape,
            num_classes=num_classes,
            scores=scores,
            normalization=normalization,
            calling=calling,
            name=name or factory,
        )
        loaded.location = factory
        if made is not estimator:
            loaded.notes = (*loaded.notes, "its predict_proba is asked")
        return loaded
    if weights is not None:
        fill_module(made, read_weights(Path(weights)), where=str(weights))
    loaded = ModuleTeacher(
        made,
        input_shape=shape,
        num_classes=num_classes,
        scores=scores,
        normalization=normalization,
        calling=calling,
        device=device,
        precision=precision,
        description=factory,
    )
    if factory is not None:
        loaded.location = factory
        loaded.weights_location = None if weights is None else str(Path(weights).absolute())
    return loaded


def _load_path(
    path: Path,
    *,
    input_shape: Shape | None,
    num_classes: int | None,
    scores: DeclaredScores,
    normalization: Normalization | None,
    calling: Calling,
    device: str,
    precision: Precision,
    class_names: tuple[str, ...] | None,
) -> Teacher:
    if (folder := snapshot_folder(path)) is not None:
        if scores == "probabilities":
            raise TeacherError(f"{path} answers with logits: leave out ", Setting("scores"))
        _refuse_calling(calling, f"{path} states how it is called")
        return HuggingFaceTeacher(
            folder,
            input_shape=input_shape,
            num_classes=num_classes,
            normalization=normalization,
            device=device,
            precision=precision,
        )
    if path.is_dir():
        if normalization is not None:
            raise TeacherError(
                f"{path} normalises its own input: leave out ", Setting("normalization")
            )
        _refuse_calling(calling, f"{path} states how it is called")
        if not (path / DESCRIPTION_FILE).exists() and (members := members_in(path)):
            return Committee(
                [
                    load_teacher(
                        member,
                        input_shape=input_shape,
                        num_classes=num_classes,
                        scores=scores,
                        device=device,
                        precision=precision,
                        class_names=class_names,
                    )
                    for member in members
                ]
            )
        refuse_bare_snapshot(path)
        return load_directory(
            path,
            input_shape=input_shape,
            num_classes=num_classes,
            scores="logits" if scores == "auto" else scores,
            device=device,
            precision=precision,
        )
    check_source(path)
    if path.suffix == ".pt2":
        return ExportedTeacher(
            path,
            input_shape=input_shape,
            num_classes=num_classes,
            scores=scores,
            normalization=normalization,
            calling=calling,
            device=device,
            precision=precision,
        )
    if path.suffix == ".onnx":
        return OnnxTeacher(
            path,
            input_shape=input_shape,
            num_classes=num_classes,
            scores=scores,
            normalization=normalization,
            calling=calling,
        )
    read_weights(path)  # gives a better message if the file is damaged or not a state dict
    raise TeacherError(
        f"{path} is a state dict: weights without the code that runs them. Give the code as "
        "the teacher, 'package.module:factory', and the file as ",
        Setting("weights"),
    )


def _refuse_calling(calling: Calling, reason: str, *, but: Sequence[str] = ()) -> None:
    """Refuse settings of how a teacher is called, for one that states it itself."""
    for setting, value, usual in (
        *(("layout", calling.layout, "auto"), ("input_scale", calling.scale, "1")),
        ("output", calling.output, None),
    ):
        if value != usual and setting not in but:
            raise TeacherError(f"{reason}: leave out ", Setting(setting))
