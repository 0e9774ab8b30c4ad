"""Public unlabelled images that a run is given: a source of queries, and the probe.

This is the only module of a transcription that reads images from elsewhere. None of them may be
private: a run stores and publishes what it asks about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from dpsd.config.objects import IN_MEMORY
from dpsd.config.recipe import NO_PROBE, Recipe
from dpsd.datasets.public_images import is_dataset, path_of, read_public
from dpsd.distillation.judging import size_warnings
from dpsd.errors import ConfigError, Setting
from dpsd.images.fitting import fitted
from dpsd.images.names import Shape
from dpsd.privacy.mechanisms import Mechanism
from dpsd.streams import stream
from dpsd.synthesis.distinct import AskedImages, image_digests
from dpsd.synthesis.names import is_folder_source
from dpsd.teachers import Teacher
from dpsd.teachers.origins import origins_of

#: Public images as a user gives them in Python: where they are, or uint8 ``(N, C, H, W)``.
Images: TypeAlias = str | Path | Tensor

#: The part of the public images that is held out as the probe: one of so many.
_HELD_OUT = 5

#: The fewest distinct images of a probe, and public images of which some are held out.
_FEWEST_PROBE, _FEWEST_PUBLIC = 2, 10


@dataclass(frozen=True)
class PublicImages:
    """The public images of a run, as they are after the probe was set apart.

    Args:
        source: the images that queries are made from, uint8 ``(N, C, H, W)``; ``None`` for none.
        probe: the images of the probe, uint8 ``(M, C, H, W)``, all distinct and none of them in
            ``source``; ``None`` for none.
        pool: the number of images that the probe was drawn from, and of distinct ones among them.
    """

    source: Tensor | None = None
    probe: Tensor | None = None
    pool: tuple[int, int] = (0, 0)

    def warnings(self) -> Iterator[str]:
        """Yield what the number of the probe's images leaves open."""
        if self.probe is not None:
            given, distinct = self.pool
            yield from size_warnings(given=given, distinct=distinct, asked=len(self.probe))

    def facts(self) -> dict[str, dict[str, int | str]]:
        """Return the number of images and a hash of each part, by which a run knows them again."""
        parts = {"source": self.source, "probe": self.probe}
        return {
            name: {"images": len(images), "sha256": _hash(images)}
            for name, images in parts.items()
            if images is not None
        }


def stated(given: Mapping[str, Images | None]) -> dict[str, str]:
    """Return the settings that stand for what a user gave in Python.

    >>> stated({"public": Path("scans"), "probe": torch.zeros(2, 1, 8, 8)})
    {'public': 'scans', 'probe': '(tensor)'}
    """
    return {
        name: IN_MEMORY if isinstance(images, Tensor) else str(images)
        for name, images in given.items()
        if images is not None
    }


def check_probe(recipe: Recipe, mechanism: Mechanism) -> None:
    """Refuse a probe that cannot tell how often two classifiers agree, and a stop without a probe.

    Raises:
        ConfigError: the settings make no sense together or with the mechanism.
    """
    recipe.check_until()
    if recipe.has_probe and not mechanism.estimates_agreement:
        raise ConfigError(
            *(f"with these settings, {type(mechanism).__name__} does not tell how often student "),
            *("and teacher agree: choose others, or give ", Setting("probe"), f" {NO_PROBE}"),
        )


def gathered(
    recipe: Recipe,
    given: Mapping[str, Images | None],
    *,
    shape: Shape,
    teachers: Iterable[Teacher],
) -> tuple[Recipe, PublicImages]:
    """Read the public images that a recipe names, and set the probe apart.

    Args:
        recipe: the settings ``public``, ``probe`` and ``probe_images``.
        given: the images that were given as tensors, by the names of the settings.
        shape: the shape of an image, which the images are fitted to.
        teachers: the teachers, whose training data are refused; none if they are elsewhere.

    Returns:
        The recipe with absolute paths, and the images.

    Raises:
        ConfigError: the images make no sense together or with the teacher.
        DataError: images are missing, damaged or of a shape that cannot be fitted.
    """
    refuse_private(recipe, teachers)
    read, paths = dict[str, Tensor](), dict[str, str]()
    for name, spec in (("public", recipe.public), ("probe", recipe.probe)):
        if spec is None or (name == "probe" and spec == NO_PROBE):
            continue
        if spec == IN_MEMORY:
            read[name] = _of_tensor(name, given.get(name), shape)
            continue
        paths[name] = spec if is_dataset(spec) else str(path_of(spec))
        read[name] = read_public(paths[name], shape, setting=name, value_range=recipe.value_range)
    return recipe.model_copy(update=paths), _divided(recipe, **read)


def _of_tensor(name: str, images: Images | None, shape: Shape) -> Tensor:
    """Return images that were given as a tensor, fitted to a shape."""
    if not isinstance(images, Tensor):
        raise ConfigError(
            *(
                Setting(name),
                ": this run was given its images as a tensor; give it in Python, with ",
            ),
            *("the same tensor as ", Setting(name)),
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        raise ConfigError(
            Setting(name),
            f" must be uint8 (N, C, H, W) with at least one image, not {images.dtype} "
            f"{tuple(images.shape)}",
        )
    return fitted(images.cpu(), shape)


def refuse_private(recipe: Recipe, teachers: Iterable[Teacher]) -> None:
    """Refuse the data that teachers were trained on, by whatever path they would become queries.

    What a teacher was trained on is known as far as a record beside it tells.

    Raises:
        ConfigError: ``public``, ``probe`` or a folder of ``sources`` holds training images.
    """
    named = list(_named(recipe))
    for origin in origins_of(teachers) if named else ():
        for name, spec in named:
            if origin.is_shown_by(spec):
                raise ConfigError(
                    *(Setting(name), f" is {spec}, which holds what the teacher was trained on "),
                    f"({origin.name}), and a run publishes these images: give others, which are "
                    "public",
                )


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the images that a recipe names, each with its setting: the only ones that are read."""
    for source in filter(is_folder_source, recipe.sources):
        yield "sources", source
    for name, spec in (("public", recipe.public), ("probe", recipe.probe)):
        if spec is not None and spec not in (IN_MEMORY, NO_PROBE):
            yield name, spec


def _divided(
    recipe: Recipe, public: Tensor | None = None, probe: Tensor | None = None
) -> PublicImages:
    """Set the probe apart; what is in it is taken out of the images that queries are made from."""
    if not recipe.has_probe:
        return PublicImages(source=public)
    name, pool, part, least = "probe", probe, 1, _FEWEST_PROBE
    if pool is None:  # a part of the public images
        name, pool, part, least = "public", public, _HELD_OUT, _FEWEST_PUBLIC
    assert pool is not None  # as there is a probe
    distinct = pool[AskedImages().fresh(image_digests(pool))]
    if len(distinct) < least:
        raise ConfigError(
            *(Setting(name), f" has {len(distinct)} distinct images, and a probe needs {least}: "),
            *("give more, or ", Setting("probe"), f" {NO_PROBE}"),
        )
    order = torch.randperm(len(distinct), generator=stream(recipe.seed, 0, "probe"))
    chosen = distinct[order[: min(recipe.probe_images, len(distinct) // part)]]
    counts = len(pool), len(distinct)
    if public is None:
        return PublicImages(probe=chosen, pool=counts)
    held = AskedImages()
    held.add(image_digests(chosen))
    rest = public[~held.holds(image_digests(public))]
    if not len(rest):
        raise ConfigError(
            *(Setting("public"), " has no image that is not in the probe: give others, or "),
            *(Setting("probe"), f" {NO_PROBE}"),
        )
    return PublicImages(source=rest, probe=chosen, pool=counts)


def _hash(images: Tensor) -> str:
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()}"
