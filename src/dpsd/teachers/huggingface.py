"""Teachers that are snapshots of Hugging Face image classifiers, ``hf:FOLDER``.

They need the extra ``huggingface``. Nothing is downloaded, no code of the snapshot's runs,
and nothing is unpickled: the model is built by transformers' own classes from what ``config.json``
says, and filled from ``model.safetensors``. :mod:`dpsd.teachers.snapshot` reads the JSON files.

>>> HuggingFaceTeacher("nowhere")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: there is no folder nowhere, and dpsd downloads nothing: give ...
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpsd.errors import Setting, TeacherError
from dpsd.extras import how_to_install
from dpsd.images.names import Shape
from dpsd.teachers.base import Normalization, Precision, agree
from dpsd.teachers.class_names import found_class_names
from dpsd.teachers.fingerprint import fingerprint_records, fingerprint_tensors
from dpsd.teachers.module import ModuleTeacher
from dpsd.teachers.snapshot import CONFIG_FILE, WEIGHTS_FILE, Snapshot, read_snapshot
from dpsd.teachers.weights import read_weights

#: Settings in ``config.json`` that no answer depends on, so that no fingerprint does.
_WORDS = (
    *("id2label", "label2id", "_name_or_path", "transformers_version", "architectures"),
    *("torch_dtype", "dtype", "finetuning_task", "problem_type"),
)


#: A number in ``config.json`` that is harmless whatever the weights.
_LARGEST_SMALL = 10_000


class HuggingFaceTeacher(ModuleTeacher):
    """A teacher that is a snapshot of an image classifier.

    What the preprocessor does becomes the teacher's ``input_shape`` and ``normalization``; dpsd's
    images have the final size, so nothing is resized or cropped. The scores are the model's
    ``logits``. ``class_names`` are those of ``id2label``.

    Args:
        folder: the folder of the snapshot.
        input_shape: the shape of an image; if given, it must be what the preprocessor makes. It is
            needed only if the preprocessor does not resize.
        num_classes: the number of classes; if given, it must be the model's.
        normalization: ``(means, deviations)``; if given, they must be what the preprocessor does.
        device: the device that the model runs on.
        precision: the precision; ``"bfloat16"`` uses autocast.

    Raises:
        TeacherError: a file is missing or damaged, transformers is not installed or does not know
            the model, or the weights do not fit.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        input_shape: Shape | None = None,
        num_classes: int | None = None,
        normalization: Normalization | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        snapshot = read_snapshot(folder)
        where = str(snapshot.folder)
        agree("input_shape", input_shape, snapshot.input_shape, where=where)
        shape = input_shape or snapshot.input_shape
        if shape is None:
            raise TeacherError(
                f"{where} takes images of any size: give ",
                *(Setting("input_shape"), ", as in 3,224,224"),
            )
        if normalization is not None and not _same(normalization, snapshot.normalization):
            raise TeacherError(
                f"{where} normalises its input ({snapshot.applied}): leave out ",
                Setting("normalization"),
            )
        tensors = read_weights(snapshot.folder / WEIGHTS_FILE)
        model = _built(snapshot, tensors)
        super().__init__(
            _Logits(model),
            input_shape=shape,
            num_classes=num_classes,
            scores="logits",
            normalization=snapshot.normalization,
            device=device,
            precision=precision,
            description=f"{type(model).__name__} of snapshot {snapshot.folder.resolve().name}",
        )
        stated = {name: value for name, value in snapshot.config.items() if name not in _WORDS}
        self.fingerprint = fingerprint_records(
            {
                CONFIG_FILE: json.dumps(stated, sort_keys=True).encode(),
                WEIGHTS_FILE: fingerprint_tensors(tensors).encode(),
            }
        )
        self.class_names = found_class_names(snapshot.class_names, num_classes=self.num_classes)
        self.applied = snapshot.applied


class _Logits(nn.Module):
    """A classifier of transformers as a function from images to logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        return self.model(pixel_values=images).logits


def _built(snapshot: Snapshot, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the model and fill it, without looking at any other file or place."""
    try:
        with _offline():
            return _filled(snapshot, tensors)
    except TeacherError:
        raise
    except Exception as error:  # noqa: BLE001 - transformers raises anything at odd settings
        reason = " ".join(str(error).split())[:300]
        raise TeacherError(
            f"{snapshot.folder} cannot be built by transformers: {type(error).__name__}: {reason}"
        ) from None


def _filled(snapshot: Snapshot, tensors: Mapping[str, Tensor]) -> nn.Module:
    try:
        import transformers
    except ImportError:
        raise TeacherError(
            f"{snapshot.folder} needs transformers: {how_to_install('huggingface')}"
        ) from None
    path = snapshot.folder / CONFIG_FILE
    kind = snapshot.config.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise TeacherError(
            f"{path} has the model_type {kind!r}, which transformers {transformers.__version__} "
            "does not know, and code that comes with a snapshot is never run: export the model to "
            ".pt2 or .onnx, or wrap it in a factory, package.module:factory"
        )
    _check_numbers(snapshot.config, tensors, path)
    config = transformers.CONFIG_MAPPING[kind].from_dict(dict(snapshot.config))
    classifiers = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    if classifiers is None:
        raise TeacherError(
            f"{path} describes a {kind!r}, which is not an image classifier: a teacher gives a "
            "score for each class"
        )
    known = classifiers if isinstance(classifiers, tuple) else (classifiers,)
    architectures = snapshot.config.get("architectures") or []
    if architectures and not any(kind.__name__ in architectures for kind in known):
        raise TeacherError(
            f"{path} describes {', '.join(map(str, architectures))}, which is not an image "
            f"classifier: a teacher is one of {', '.join(kind.__name__ for kind in known)}"
        )
    chosen = next((kind for kind in known if kind.__name__ in architectures), known[0])
    _check_size(chosen, config, tensors, path)
    model, found = chosen.from_pretrained(
        None,
        config=config,
        state_dict=dict(tensors),
        dtype=torch.float32,
        output_loading_info=True,
    )
    for problem in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, found[problem])):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise TeacherError(
                f"{snapshot.folder / WEIGHTS_FILE} does not fit {chosen.__name__} "
                f"({problem.partition('_')[0]}: {', '.join(names[:3])}{more}): is it the snapshot "
                "of a model that was trained to classify?"
            )
    filled: nn.Module = model
    return filled


def _check_numbers(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a number, of labels or stages say, that no model with these weights can have."""
    held = sum(part.numel() for part in tensors.values())
    left: list[tuple[str, Any]] = list(config.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(name, part) for part in value.values()]
        elif isinstance(value, list):
            left += [(name, part) for part in value]
        elif isinstance(value, int | float) and not abs(value) <= max(held, _LARGEST_SMALL):
            raise TeacherError(
                f"{path} has {name} {value}, and {WEIGHTS_FILE} holds only {held:,} numbers: "
                "download the snapshot again"
            )


def _check_size(chosen: Any, config: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a description of more than the weights hold, before memory is taken for it."""
    layers = [getattr(config, "num_hidden_layers", 0), *(getattr(config, "depths", None) or [])]
    described = math.inf
    if all(isinstance(count, int) for count in layers) and sum(layers) <= len(tensors):
        with torch.device("meta"):
            described = sum(part.numel() for part in chosen(config).parameters())
    held = sum(part.numel() for part in tensors.values())
    if described > held:
        raise TeacherError(
            f"{path} describes a larger model than {WEIGHTS_FILE} holds ({held:,} numbers): "
            "download the snapshot again"
        )


@contextmanager
def _offline() -> Iterator[None]:
    """Let transformers reach no network, show no progress and say nothing."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        try:
            from huggingface_hub import constants
            from transformers.utils import logging
        except ImportError:
            yield  # whoever needs them says how to install them
            return
        was_offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = was_offline
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def _same(given: Normalization, found: Normalization | None) -> bool:
    """Whether two normalisations are the same but for rounding."""
    if found is None or any(len(given[part]) != len(found[part]) for part in (0, 1)):
        return False
    pairs = [*zip(given[0], found[0], strict=True), *zip(given[1], found[1], strict=True)]
    return all(math.isclose(mine, stated, rel_tol=1e-6, abs_tol=1e-9) for mine, stated in pairs)
