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


#: What each of them may be trained on, which is not the same backbone, with the better data first.
_TRAINED_ON = {"cifar100": ("cifar100", "cifar100-jpeg"), "glyphs": ("glyphs",)}


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
    body = untrained_backbone(name)
    kept = (on for on in _TRAINED_ON[name] if _restored(body, kept_at(on, training)))
    if (on := next(kept, None)) is None:
        data, on = _glyphs(training) if name == "glyphs" else _cifar(training, root)
        # Copied, so that weights lie in memory as those that are read, and give the same features.
        body.load_state_dict(_pretrained(data, training, started=started))
        _keep(body, kept_at(on, training))
    return own_backbone(name, body, trained_on=_described(on, training), input_shape=input_shape)


def kept_at(on: str, training: Pretraining) -> Path:
    """Return the file in the user's data folder where one of dpsd's own backbones is kept.

    Its name is the hash of what determines the training.

    Args:
        on: what it is trained on: ``glyphs``, ``cifar100`` or ``cifar100-jpeg``.
        training: how it is trained.

    >>> kept_at("glyphs", PRETRAINING["glyphs"]).name.startswith("glyphs-")
    True
    """
    stated = {"version": _VERSION, "on": _described(on, training), **asdict(training)}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    folder: Path = user_data_path("dpsd", appauthor=False) / "backbones"
    return folder / f"{on}-{digest[:16]}.safetensors"


def _described(on: str, training: Pretraining) -> str:
    """Return in words what a backbone is trained on, without reading it."""
    if on == "glyphs":
        fonts = f"the fonts of matplotlib {version('matplotlib')}"
        return f"{training.images:,} distorted digits and letters of {fonts}, which are public"
    pixels = "compressed as JPEG" if on == "cifar100-jpeg" else "with the published pixels"
    return f"{training.images:,} training images of CIFAR-100, {pixels}, which are public"


def _pretrained(
    data: LabelledImages, training: Pretraining, *, started: Started
) -> dict[str, Tensor]:
    """Train a backbone to tell the classes of images apart, and return its weights."""
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


def _glyphs(training: Pretraining) -> tuple[LabelledImages, str]:
    """Draw digits and letters; a letter is one class, whether it is small or a capital."""
    source = Glyphs(MADE_FOR["glyphs"], kinds=("digits", "letters"))
    random = torch.Generator().manual_seed(training.seed)
    images, codes = source.labelled(training.images, generator=random)
    known, labels = torch.unique(codes, return_inverse=True)
    names = tuple(map(chr, known.tolist()))
    data = LabelledImages(
        images=images, labels=labels, class_names=names, name="glyphs", split="public"
    )
    return data, "glyphs"


def _cifar(training: Pretraining, root: Path | None) -> tuple[LabelledImages, str]:
    """Read CIFAR-100's training images, of which some may be enough, in the form that is there."""
    on, other = _TRAINED_ON["cifar100"]
    try:
        data = load_dataset(on, "train", root=root)
    except MissingDataError as error:
        try:
            data, on = load_dataset(other, "train", root=root), other
        except MissingDataError:
            raise error from None
    random = torch.Generator().manual_seed(training.seed)
    return data.subset(torch.randperm(len(data), generator=random)[: training.images]), on


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
