"""The public images that the attacker's prior is trained on.

>>> import torch
>>> from dpsd.datasets import load_dataset
>>> found = public_images("letters", load_dataset("digits", "test"), most=100, seed=0)
>>> found.pixels.shape, found.words
(torch.Size([100, 1, 8, 8]), 'printed letters, without digits')
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpsd.attacks.names import LETTERS
from dpsd.datasets import LabelledImages
from dpsd.datasets.public_images import is_dataset, path_of, read_public
from dpsd.datasets.published import dataset_names
from dpsd.datasets.sameness import Origin
from dpsd.errors import ConfigError, Setting, UnknownNameError
from dpsd.images.names import Shape
from dpsd.streams import stream
from dpsd.synthesis.glyphs import Glyphs
from dpsd.synthesis.mixture import SOURCES
from dpsd.teachers import Teacher
from dpsd.teachers.fingerprint import fingerprint_tensors
from dpsd.teachers.origins import origins_of

#: The prefix of ``classes:NAME,NAME``, classes of the private data set that count as public.
CLASSES = "classes"


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicImages:
    """Public images, and what they leave to attack.

    Args:
        pixels: the images, uint8 ``(N, C, H, W)``.
        words: what they are, for findings.
        classes: the classes that are attacked, int64 ``(K,)``.
        are_private: whether they are records of the private data set, as in GMI's milder setting.
    """

    pixels: Tensor
    words: str
    classes: Tensor
    are_private: bool = False


def check_public(spec: str, others: LabelledImages, teachers: Iterable[Teacher] = ()) -> None:
    """Refuse images that the attacker cannot have, or that do not exist, before any are read.

    What a teacher was trained on is known as far as a record beside it tells.

    Args:
        spec: the images, as :func:`public_images` takes them.
        others: the held-out records.
        teachers: the attacked teachers, whose training data are refused.

    Raises:
        ConfigError: the images would be the private ones, or of a class that does not exist.
        UnknownNameError: there is no source or data set of that name.
    """
    kind, _, rest = spec.partition(":")
    if spec == LETTERS or spec in SOURCES:
        return
    if kind == CLASSES:
        names = _named(rest)
        if not names or not set(names) < set(others.class_names):
            raise ConfigError(
                Setting("public"),
                f" is {spec!r}; it must name some, and not all, of the classes "
                f"{', '.join(others.class_names)}",
            )
        return
    if not is_dataset(spec) and not re.search(r"[/\\.:]", spec) and not path_of(spec).exists():
        known = (LETTERS, *SOURCES, f"{CLASSES}:NAME,NAME", *dataset_names(), "FOLDER", "PATH.npz")
        raise UnknownNameError("set of public images", spec, known)
    if Origin.of(others.name).is_shown_by(spec):
        raise ConfigError(
            Setting("public"),
            f" is {spec!r}, the private data set itself, whose images the attacker does not have: "
            f"give others, or some of its classes with {CLASSES}:NAME,NAME",
        )
    for origin in origins_of(teachers):
        if origin.is_shown_by(spec):
            raise ConfigError(
                Setting("public"),
                f" is {spec!r}, which holds what the teacher was trained on ({origin.name}), and "
                "the attacker does not have these images: give others",
            )


def content_key(spec: str, shape: Shape) -> str | None:
    """Return a hash of a folder or file of images, which may change; ``None`` for all others."""
    if spec == LETTERS or spec in SOURCES or spec.startswith(f"{CLASSES}:") or is_dataset(spec):
        return None
    return fingerprint_tensors({"images": read_public(spec, shape)})


def public_images(
    spec: str,
    others: LabelledImages,
    *,
    most: int,
    seed: int,
    teachers: Iterable[Teacher] = (),
) -> PublicImages:
    """Return the public images that a prior is trained on.

    Args:
        spec: ``"letters"``; the name of a drawn source; a folder, an ``.npz`` file or a data set;
            or ``classes:0,1,2``, the held-out records of some classes of the private data set.
            Then the other classes are attacked: the milder setting of GMI, as the attacker has
            images of the very domain.
        others: the held-out records.
        most: the most images.
        seed: the seed of what is drawn.
        teachers: the attacked teachers, whose training data are refused.

    Raises:
        ConfigError: the images would be the private ones, or of a class that does not exist.
        UnknownNameError: there is no source or data set of that name.
        DataError: there are no such images.
    """
    check_public(spec, others, teachers)
    shape, random = others.input_shape, stream(seed, 0, "inversion public")
    classes = torch.arange(others.num_classes)
    kind, _, rest = spec.partition(":")
    if spec == LETTERS:
        pixels = Glyphs(shape, kinds=("letters",)).pixels(most, generator=random)
        return PublicImages(pixels=pixels, words="printed letters, without digits", classes=classes)
    if spec in SOURCES:
        pixels = SOURCES[spec](shape).pixels(most, generator=random)
        return PublicImages(pixels=pixels, words=f"the drawn source {spec}", classes=classes)
    if kind == CLASSES:
        names = _named(rest)
        chosen = torch.tensor([name in names for name in others.class_names])
        pixels = others.images[chosen[others.labels]]
        words = (
            f"held-out records of the other classes {', '.join(names)} of the private data set "
            "(GMI's milder setting)"
        )
        return PublicImages(
            pixels=_few(pixels, most, random),
            words=words,
            classes=classes[~chosen],
            are_private=True,
        )
    pixels = _few(read_public(spec, shape), most, random)
    return PublicImages(pixels=pixels, words=f"images of {spec}", classes=classes)


def _named(rest: str) -> list[str]:
    return [name.strip() for name in rest.split(",") if name.strip()]


def _few(pixels: Tensor, most: int, random: torch.Generator) -> Tensor:
    return pixels[torch.randperm(len(pixels), generator=random)[:most]]
