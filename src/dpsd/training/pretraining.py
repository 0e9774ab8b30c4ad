"""dpsd's own backbones: trained once, on public images alone, and kept for every later use.

``glyphs`` learns to tell printed characters apart that were distorted as if by many hands, for
written characters; ``cifar100`` learns the hundred classes of CIFAR-100, for natural images. What a
private data set holds has no part in either.

>>> find_backbone("wavelet", input_shape=(1, 28, 28))
Traceback (most recent call last):
    ...
dpsd.errors.UnknownNameError: unknown features 'wavelet': did you mean 'wavelets'? Known: ...
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from platformdirs import user_data_path
from safetensors import SafetensorError
from torch import Tensor, nn

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution
from dpsd.errors import MissingDataError, WriteError
from dpsd.images.names import Shape
from dpsd.models import build_classifier
from dpsd.models.backbones import MADE_FOR, body_of, pretrained_network, untrained_backbone
from dpsd.models.names import BACKBONES, CLOSED_FORM, WAVELETS, check_features
from dpsd.storage.files import load_tensors, save_tensors, writing
from dpsd.synthesis.glyphs import Glyphs
from dpsd.synthesis.sources import Started, unseen
from dpsd.teachers.backbones import Backbone, load_backbone, own_backbone
from dpsd.training.classifier import train_teacher

#: The version of the network and its training, under which a backbone is kept.
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How one of dpsd's own backbones is trained.

    Args:
        images: the number of glyphs, or the most of CIFAR-100's training images.
        epochs: the number of passes over them.
        seed: the seed of images, initial weights and order.
    """

    images: int
    epochs: int
    seed: int = 0


#: How each of them is trained, which takes minutes on one core.
PRETRAINING = {
    "cifar100": Pretraining(images=50_000, epochs=8),
    "glyphs": Pretraining(images=60_000, epochs=5),
}


def find_backbone(
    name: str,
    *,
    input_shape: Shape,
    root: Path | None = None,
    started: Started = unseen,
    training: Pretraining | None = None,
) -> Backbone | None:
    """Return a backbone by its name: read from where it is kept, or trained first.

    Args:
        name: ``glyphs`` or ``cifar100``; the path of a ``.pt2`` or ``.onnx`` file;
            ``package.module:factory``; or ``wavelets`` for no backbone.
        input_shape: the channels, height and width of the images that it will get.
        root: the folder of data sets, where CIFAR-100 is read; the usual one if it is ``None``.
        started: begins to report the passes of a training.
        training: how one of dpsd's own is trained, if not as :data:`PRETRAINING` says.

    Returns:
        The backbone; ``None`` for ``wavelets``.

    Raises:
        UnknownNameError: there are no features of that name.
        ConfigError: they are not features of images of that shape.
        DataError: CIFAR-100 is needed and missing; the message says where to get it.
        TeacherError: a file or factory cannot be loaded.
    """
    check_features(name, model=CLOSED_FORM)
    if name == WAVELETS:
        return None
    if name not in BACKBONES:
        return load_backbone(name, input_shape=input_shape)
    training = training or PRETRAINING[name]
    body, path = untrained_backbone(name), kept_at(name, training)
    if not _restored(body, path):
        # Copied, so that weights lie in memory as those that are read, and give the same features.
        body.load_state_dict(_pretrained(name, training, root=root, started=started))
        _keep(body, path)
    return own_backbone(name, body, trained_on=_described(name, training), input_shape=input_shape)


def kept_at(name: str, training: Pretraining) -> Path:
    """Return the file in the user's data folder where one of dpsd's own backbones is kept.

    Its name is the hash of what determines the training.

    >>> kept_at("glyphs", PRETRAINING["glyphs"]).name.startswith("glyphs-")
    True
    """
    stated = {"version": _VERSION, "on": _described(name, training), **asdict(training)}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    folder: Path = user_data_path("dpsd", appauthor=False) / "backbones"
    return folder / f"{name}-{digest[:16]}.safetensors"


def _described(name: str, training: Pretraining) -> str:
    """Return in words what a backbone is trained on, without reading it."""
    if name == "glyphs":
        fonts = f"the fonts of matplotlib {version('matplotlib')}"
        return f"{training.images:,} distorted digits and letters of {fonts}, which are public"
    return f"{training.images:,} training images of CIFAR-100, which are public"


def _pretrained(
    name: str, training: Pretraining, *, root: Path | None, started: Started
) -> dict[str, Tensor]:
    """Train a backbone to tell the classes of its images apart, and return its weights."""
    data = _glyphs(training) if name == "glyphs" else _cifar(training, root)
    execution = Execution.of()
    network = build_classifier(
        pretrained_network,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        seed=training.seed,
    )
    with started(training.epochs) as advance:
        trained = train_teacher(
            data,
            model=network,
            epochs=training.epochs,
            seed=training.seed,
            device=str(execution.device),
            precision=execution.precision,
            on_epoch=lambda _: advance(1),
        )
    return body_of(trained.cpu()).state_dict()


def _glyphs(training: Pretraining) -> LabelledImages:
    """Draw digits and letters; a letter is one class, whether it is small or a capital."""
    source = Glyphs(MADE_FOR["glyphs"], kinds=("digits", "letters"))
    random = torch.Generator().manual_seed(training.seed)
    images, codes = source.labelled(training.images, generator=random)
    known, labels = torch.unique(codes, return_inverse=True)
    names = tuple(map(chr, known.tolist()))
    return LabelledImages(
        images=images, labels=labels, class_names=names, name="glyphs", split="public"
    )


def _cifar(training: Pretraining, root: Path | None) -> LabelledImages:
    """Read CIFAR-100's training images, of which some may be enough."""
    try:
        data = load_dataset("cifar100", "train", root=root)
    except MissingDataError as error:
        try:
            data = load_dataset("cifar100-jpeg", "train", root=root)
        except MissingDataError:
            raise error from None
    random = torch.Generator().manual_seed(training.seed)
    return data.subset(torch.randperm(len(data), generator=random)[: training.images])


def _restored(body: nn.Module, path: Path) -> bool:
    """Read a backbone's weights from a file, and return whether it is there and undamaged."""
    try:
        body.load_state_dict(load_tensors(path))
    except (OSError, SafetensorError, RuntimeError):
        return False  # it is trained anew, and replaces what cannot be read
    return True


def _keep(body: nn.Module, path: Path) -> None:
    """Write a backbone's weights to a file, or warn that it will be trained again."""
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, body.state_dict())
    except WriteError as error:
        warnings.warn(f"the backbone is not kept for later: {error}", stacklevel=3)
