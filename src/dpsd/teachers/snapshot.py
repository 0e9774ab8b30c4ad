"""Snapshots of image classifiers as the Hugging Face Hub has them, read from their folder alone.

A snapshot is a folder with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.
This module reads the two JSON files: which images the model takes, how their pixels are scaled, and
what its classes are called. It imports nothing that is slow, so that mistakes are told at once;
:mod:`dpsd.teachers.huggingface` builds the model.

>>> check_snapshot("google/vit-base-patch16-224")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: there is no folder google/vit-base-patch16-224, and dpsd downloads ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsd.errors import TeacherError
from dpsd.images.names import Shape
from dpsd.teachers.record import checked_shape

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILE = "model.safetensors"

#: Files with weights that only unpickling, or another framework, could read.
_OTHER_WEIGHTS = (
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"),
)
_SHARDED_WEIGHTS = "model.safetensors.index.json"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

#: The steps of a preprocessor that dpsd carries out, or that an image of the final size in [0, 1]
#: has no need of.
_KNOWN_STEPS = {"do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"}
#: Settings under other names that change pixels in ways that dpsd does not.
_OTHER_STEPS = ("include_top", "rescale_offset")
#: Settings of steps that images of the final size have no need of.
_NOT_APPLIED = ("crop_pct", "resample", "do_convert_rgb")

#: The model type of students that dpsd exported.
STUDENT_TYPE = "dpsd-student"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a snapshot says about its model.

    Attributes:
        folder: the folder.
        config: the content of ``config.json``.
        input_shape: the shape of the images that reach the model, ``(channels, height, width)``;
            ``None`` if the preprocessor leaves sizes as they are.
        normalization: ``(means, deviations)`` for images in [0, 1]; ``None`` if they reach the
            model as they are.
        class_names: the names of the classes as ``id2label`` has them; ``None`` if it has none.
        applied: a sentence on what is done with an image, and what is not.
    """

    folder: Path
    config: Mapping[str, Any]
    input_shape: Shape | None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
    class_names: tuple[str, ...] | None
    applied: str


def check_snapshot(source: str | Path) -> Path:
    """Refuse, by the names of its files alone, a folder that is not a usable snapshot.

    Returns:
        The folder.

    Raises:
        TeacherError: there is no folder, or a file is missing or a link out of the folder.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise TeacherError(
            f"there is no folder {folder}, and dpsd downloads nothing: "
            + (
                f"run `hf download {source} --local-dir {folder.name}` and give hf:{folder.name}"
                if _HUB_NAME.fullmatch(str(source))
                else "give hf:FOLDER, the folder of a snapshot that `hf download` wrote"
            )
        )
    if not (folder / CONFIG_FILE).is_file():
        raise TeacherError(
            f"{folder} has no {CONFIG_FILE}: give the folder of a snapshot, with {CONFIG_FILE}, "
            f"{PREPROCESSOR_FILE} and {WEIGHTS_FILE}"
        )
    if not (folder / WEIGHTS_FILE).is_file():
        raise TeacherError(f"{folder} has no {WEIGHTS_FILE}: {_mend_for_weights(folder)}")
    if not (folder / PREPROCESSOR_FILE).is_file():
        raise TeacherError(
            f"{folder} has no {PREPROCESSOR_FILE}, which says what images the model takes: "
            "download it too, or write it with AutoImageProcessor.save_pretrained"
        )
    inside = folder.resolve()
    for name in (CONFIG_FILE, WEIGHTS_FILE, PREPROCESSOR_FILE):
        if not (folder / name).resolve().is_relative_to(inside):
            raise TeacherError(
                f"{folder / name} is a link out of its folder, as in the Hub's cache, and will not "
                "be followed: download with `hf download NAME --local-dir FOLDER`, or copy the "
                "folder with cp -rL"
            )
    return folder


def _mend_for_weights(folder: Path) -> str:
    if other := next((name for name in _OTHER_WEIGHTS if (folder / name).exists()), None):
        return (
            f"{other} will not be loaded, as unpickling it could run any code. Convert it where "
            "you trust it: AutoModelForImageClassification.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER)"
        )
    if (folder / _SHARDED_WEIGHTS).exists():
        return (
            "its weights are in several files. Write them to one: "
            'model.save_pretrained(FOLDER, max_shard_size="100GB")'
        )
    return "download the whole snapshot with `hf download`"


def read_snapshot(source: str | Path) -> Snapshot:
    """Read what a snapshot says about its model.

    Args:
        source: the folder.

    Raises:
        TeacherError: a file is missing or damaged, or asks for something that dpsd does not do.
    """
    folder = check_snapshot(source)
    config = _read(folder / CONFIG_FILE)
    if config.get("model_type") == STUDENT_TYPE:
        raise TeacherError(
            f"{folder} is a student that dpsd exported, which transformers cannot build: give its "
            f"program, {folder / 'model.pt2'}"
        )
    _check_config(config, folder / CONFIG_FILE)
    steps = _read(folder / PREPROCESSOR_FILE)
    where = folder / PREPROCESSOR_FILE
    _check_steps(steps, where)
    try:
        normalization = _normalization(steps)
        size = _final_size(steps)
        channels = _channels(config, steps)
        if normalization is not None:
            normalization = (
                _for_channels(normalization[0], channels),
                _for_channels(normalization[1], channels),
            )
        shape = None if size is None else checked_shape((channels, *size))
        names = _class_names(config)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise TeacherError(
            f"{where} does not say plainly what it does ({type(error).__name__}: {error}): write "
            "it again with AutoImageProcessor.save_pretrained"
        ) from None
    return Snapshot(
        folder=folder,
        config=config,
        input_shape=shape,
        normalization=normalization,
        class_names=names,
        applied=_applied(steps, shape, normalization),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TeacherError(
            f"{path} is damaged ({type(error).__name__}: {error}): download it again"
        ) from None
    if not isinstance(content, dict):
        raise TeacherError(f"{path} holds no JSON object: download it again")
    return content


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that make transformers fetch code, or weights that are not plain numbers."""
    if config.get("quantization_config"):
        raise TeacherError(
            f"{path} has a quantization_config, and dpsd runs plain weights only: give the "
            "snapshot of the model before quantization"
        )
    for name, value in config.items():
        if name.endswith("_implementation") and value not in (None, "eager", "sdpa"):
            raise TeacherError(
                f"{path} asks for {name} {value!r}, which may be code from elsewhere: remove that "
                "line"
            )


def _check_steps(steps: Mapping[str, Any], path: Path) -> None:
    for name, value in steps.items():
        is_other = (name.startswith("do_") and name not in _KNOWN_STEPS) or name in _OTHER_STEPS
        if is_other and value:
            raise TeacherError(
                f"{path} has {name}, which dpsd does not do, so the teacher would see other images "
                "than it was trained on: wrap the model and its preprocessing in a factory, "
                "package.module:factory"
            )


def _final_size(steps: Mapping[str, Any]) -> tuple[int, int] | None:
    """The height and width of the images that reach the model."""
    if steps.get("do_center_crop") and steps.get("crop_size"):
        return _sides(steps["crop_size"])
    if steps.get("do_resize", True) and steps.get("size"):
        return _sides(steps["size"])
    return None


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list):
        height, width = size
        return int(height), int(width)
    if size.keys() == {"shortest_edge"}:  # an image of this size is square when it is cropped
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _channels(config: Mapping[str, Any], steps: Mapping[str, Any]) -> int:
    if isinstance(config.get("num_channels"), int):
        return int(config["num_channels"])
    mean = steps.get("image_mean")
    return len(mean) if isinstance(mean, list) and len(mean) > 1 else 3


def _normalization(
    steps: Mapping[str, Any],
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What the preprocessor does to a pixel from 0 to 255, stated for pixels in [0, 1].

    It computes ``(255 x · factor − mean) / deviation``.
    """
    factor = 255.0
    if steps.get("do_rescale", True):
        factor *= float(steps.get("rescale_factor", 1 / 255))
    if abs(factor - 1) < 1e-6:
        factor = 1.0
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    if steps.get("do_normalize", True):
        mean, deviation = _numbers(steps["image_mean"]), _numbers(steps["image_std"])
    means = tuple(value / factor for value in mean)
    deviations = tuple(value / factor for value in deviation)
    if set(means) == {0.0} and set(deviations) == {1.0}:
        return None
    return means, deviations


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} numbers for {channels} channels")
    return values


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in ``id2label``, unless they are those that transformers makes up."""
    stated = config.get("id2label")
    if not isinstance(stated, dict) or not stated:
        return None
    try:
        names = tuple(str(stated[str(label)]) for label in range(len(stated)))
    except KeyError:
        return None
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _applied(
    steps: Mapping[str, Any],
    shape: Shape | None,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> str:
    size = "images" if shape is None else f"images of {'x'.join(map(str, shape))}"
    done = "as they are"
    if normalization is not None:
        means, deviations = ([f"{value:.4g}" for value in part] for part in normalization)
        done = f"normalised by mean {','.join(means)} and deviation {','.join(deviations)}"
    left = [name for name in _NOT_APPLIED if steps.get(name)]
    without = f"; not applied, as images have that size already: {', '.join(left)}" if left else ""
    return f"{size} in [0, 1], {done}{without}"
