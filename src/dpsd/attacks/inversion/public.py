"""The public images that the attacker's prior is trained on.

>>> import torch
>>> from dpsd.datasets import load_dataset
>>> found = public_images("letters", load_dataset("digits", "test"), most=100, seed=0)
>>> found.pixels.shape, found.words
(torch.Size([100, 1, 8, 8]), 'printed letters, without digits')
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpsd.attacks.inversion.settings import LETTERS
from dpsd.datasets import LabelledImages
from dpsd.datasets.public_images import read_public
from dpsd.datasets.sameness import Origin
from dpsd.errors import ConfigError, Setting
from dpsd.streams import stream
from dpsd.synthesis.glyphs import Glyphs
from dpsd.synthesis.mixture import SOURCES

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


def public_images(spec: str, others: LabelledImages, *, most: int, seed: int) -> PublicImages:
    """Return the public images that a prior is trained on.

    Args:
        spec: ``"letters"``; the name of a drawn source; a folder, an ``.npz`` file or a data set;
            or ``classes:0,1,2``, the held-out records of some classes of the private data set.
            Then the other classes are attacked: the milder setting of GMI, as the attacker has
            images of the very domain.
        others: the held-out records.
        most: the most images.
        seed: the seed of what is drawn.

    Raises:
        ConfigError: the images would be the private ones, or of a class that does not exist.
        DataError: there are no such images.
    """
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
        names = [name.strip() for name in rest.split(",")]
        unknown = [name for name in names if name not in others.class_names]
        chosen = torch.tensor([name in names for name in others.class_names])
        if unknown or bool(chosen.all()):
            raise ConfigError(
                Setting("public"),
                f" is {spec!r}; it must name some, and not all, of the classes "
                f"{', '.join(others.class_names)}",
            )
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
    if Origin.of(others.name).is_shown_by(spec):
        raise ConfigError(
            Setting("public"),
            f" is {spec!r}, the private data set itself, whose images the attacker does not have",
        )
    pixels = _few(read_public(spec, shape), most, random)
    return PublicImages(pixels=pixels, words=f"images of {spec}", classes=classes)


def _few(pixels: Tensor, most: int, random: torch.Generator) -> Tensor:
    return pixels[torch.randperm(len(pixels), generator=random)[:most]]
