"""Training one small teacher on every shard, from that shard alone.

``scattering`` teachers, linear on fixed wavelet features, are ridge regressions in closed form. Any
other architecture is trained like a single teacher, and an interrupted training continues where it
stopped. The teacher of a shard depends only on the shard's records, its number and the seed, to the
last bit: no batch holds records of two shards, and no random number depends on another shard's
size. The teacher of a shard without records stays as the seed initialised it.

>>> from dpsd.datasets import load_dataset
>>> data = load_dataset("digits", "train")
>>> shards = Shards.assign(data, teachers=20, seed=0)
>>> stacked = train_ensemble(data, shards)
>>> stacked["head.weight"].shape
torch.Size([20, 10, 81])
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError, Setting, TeacherError, unwritable
from dpsd.images.augmentation import draw_distortions, moved
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.models import build_classifier
from dpsd.models.names import CLOSED_FORM as CLOSED_FORM
from dpsd.models.names import check_features
from dpsd.storage.files import load_tensors, save_tensors, write_text
from dpsd.streams import stream_seed
from dpsd.synthesis.drawn import StructuredNoise
from dpsd.teachers.backbones import Backbone
from dpsd.teachers.batches import in_batches
from dpsd.teachers.fingerprint import fingerprint_module, fingerprint_tensors
from dpsd.teachers.sharding import Shards
from dpsd.training.classifier import train_teacher

#: The default number of distorted copies of each record that closed-form teachers see.
VIEWS = 8

#: The ridge penalty, as a share of the mean squared length of a shard's feature vectors.
_RIDGE = 0.03
#: The factor that spreads answers of ridge regressions, which lie between 0 and 1, to logits.
_LOGIT_SCALE = 10.0
#: The number of public images from which the scale of features is computed.
_PUBLIC_IMAGES = 2048
#: The number of distorted images of a shard that are made at once, if it has no more records.
_IMAGES_AT_ONCE = 256
#: If records are dealt by position, distortions are drawn for this many images, and for this many
#: teachers, at a time. Other numbers would give other ensembles for the same seed.
_DRAWN_AT_ONCE = 16_384
_TEACHERS_AT_ONCE = 64


def train_ensemble(
    data: LabelledImages,
    shards: Shards,
    *,
    model: str = CLOSED_FORM,
    views: int | None = None,
    seed: int = 0,
    features: Backbone | None = None,
    parts: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
    **training: Any,
) -> dict[str, Tensor]:
    """Train a teacher on each shard, from that shard's records alone.

    Args:
        data: the private training split.
        shards: the assignment of records to teachers.
        model: the name of an architecture.
        views: the number of distorted copies of each record that its teacher is also trained on, at
            least 0; by default :data:`VIEWS`. For ``scattering`` only.
        seed: the seed of initial weights and orders; member ``i`` gets ``seed + i``.
        features: the frozen public backbone that ``scattering`` teachers are linear on; wavelets if
            it is ``None``.
        parts: a folder in which finished members of a long training are stored, and from which they
            are read.
        advance: a function to call with the number of members that were just finished.
        training: arguments of :func:`dpsd.training.classifier.train_teacher`; none for
            ``scattering``.

    Returns:
        Every weight by name, ``(teachers, …)``, on the CPU.

    Raises:
        ConfigError: ``views`` is below 0, or ``views`` or ``features`` are given for another
            architecture.
        TeacherError: training diverged, ``parts`` belongs to another training, or ``features`` are
            not frozen.
    """
    if model == CLOSED_FORM:
        views = VIEWS if views is None else views
        if views < 0:
            raise ConfigError(Setting("views"), f" is {views}, but must be at least 0")
        return _ridge_heads(
            data, shards, views=views, seed=seed, features=features, advance=advance
        )
    if features is not None:
        check_features(features.name, model=model)
    if views is not None:
        raise ConfigError(
            Setting("views"), f" is {views}, but only {CLOSED_FORM} teachers see distorted copies"
        )
    if parts is not None:
        dealt = fingerprint_tensors(
            {
                **{"shard": shards.shard, "kept": shards.kept},
                **{"images": data.images, "labels": data.labels},
            }
        )
        _claim(parts, model=model, seed=seed, dealt=dealt, **training)
    members = []
    for index, rows in enumerate(shards.rows()):
        path = None if parts is None else parts / f"{index:06d}.safetensors"
        if path is not None and path.exists():
            state = load_tensors(path)
        else:
            module = _trained(data, rows, model=model, seed=seed + index, **training)
            state = {name: part.detach().cpu() for name, part in module.state_dict().items()}
            if path is not None:
                save_tensors(path, state)
        members.append(state)
        advance(1)
    return {name: torch.stack([state[name] for state in members]) for name in members[0]}


def _trained(
    data: LabelledImages, rows: Tensor, *, model: str, seed: int, **training: Any
) -> nn.Module:
    """Train one teacher on the records in some rows."""
    if not len(rows):
        return build_classifier(
            model, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
        )
    # Normalisation over a batch needs two images, so a single one is used twice.
    return train_teacher(
        data.subset(rows if len(rows) > 1 else rows.repeat(2)), model=model, seed=seed, **training
    )


def _claim(parts: Path, **training: object) -> None:
    """Mark a folder of parts as belonging to a training, or refuse that of another one."""
    mark = {name: repr(value) for name, value in training.items()}
    path = parts / "training.json"
    try:
        if not path.exists():
            parts.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(mark) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")) != mark:
            raise TeacherError(
                f"{parts} holds teachers of another training; remove it, or give another --out"
            )
    except (OSError, ValueError) as error:
        raise unwritable(
            error, f"{path} cannot be used", mend=f"remove {parts}", kind=TeacherError
        ) from None


def _ridge_heads(
    data: LabelledImages,
    shards: Shards,
    *,
    views: int,
    seed: int,
    features: Backbone | None,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    """Fit linear heads by ridge regression on one-hot labels, all in closed form.

    Raises:
        TeacherError: the features changed on the way, and may carry records to other shards.
    """
    backbone = None if features is None else features.module

    def untrained(seed: int) -> nn.Module:
        return build_classifier(
            CLOSED_FORM,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            seed=seed,
            features=backbone,
        )

    module = untrained(seed)
    # In eval mode, nothing in the body depends on the other records of a batch.
    body = nn.Sequential(*list(module.eval().children())[:-1])
    before = fingerprint_module(body)
    count = module.get_submodule("head").state_dict()["weight"].shape[1]
    centre, scale = torch.zeros(count), torch.ones(count)
    if features is None:  # those of a backbone are normalised image by image
        centre, scale = _public_scale(body, data.input_shape)
    weight = torch.empty(shards.teachers, data.num_classes, count)
    bias = torch.empty(shards.teachers, data.num_classes)
    maps = _distortions(shards, views=views, channels=data.input_shape[0], seed=seed)
    for index, rows in enumerate(shards.rows()):
        if len(rows):
            images = to_unit_range(data.images[rows])
            inputs = torch.cat(
                [(_features(body, part) - centre) / scale for part in _seen(images, maps[index])]
            )
            targets = F.one_hot(data.labels[rows], data.num_classes).float()
            head, offset = _ridge(inputs, targets.repeat(1 + views, 1))
            # The scaling is folded into the weights, so that the stored model needs none.
            head = head / scale.unsqueeze(-1)
            weight[index] = _LOGIT_SCALE * head.mT
            bias[index] = _LOGIT_SCALE * (offset - centre @ head)
        else:
            head_only = untrained(seed + index).get_submodule("head").state_dict()
            weight[index], bias[index] = head_only["weight"], head_only["bias"]
        advance(1)
    if fingerprint_module(body) != before:
        raise TeacherError(
            "the features changed while they were computed, by which a record would reach other "
            "teachers: let the forward of their module change no buffer"
        )
    return {"head.weight": weight, "head.bias": bias}


def _public_scale(body: nn.Module, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return the centre and the scale of features, from public images alone.

    Statistics of the private ones would be shared by all teachers, and a record would then reach
    every one of them.
    """
    noise = StructuredNoise(shape).sample(
        _PUBLIC_IMAGES, generator=torch.Generator().manual_seed(0)
    )
    public = _features(body, to_unit_range(noise))
    return public.mean(0), public.std(0).clamp_min(1e-4)


def _seen(images: Tensor, maps: Tensor) -> Iterator[Tensor]:
    """Yield a shard's images, and copies of them under maps ``(views, N, 2, 3)``, in batches."""
    yield images
    if len(maps):
        for some in torch.split(maps, max(1, _IMAGES_AT_ONCE // len(images))):
            yield moved(images.repeat(len(some), 1, 1, 1), some.flatten(0, 1))


def _distortions(shards: Shards, *, views: int, channels: int, seed: int) -> list[Tensor]:
    """Draw the distortions of each shard's records, ``(views, records, 2, 3)`` per shard.

    If records are dealt by position, the sizes of shards, before duplicates are dropped, follow
    from the number of records, so all shards may share one random stream. Otherwise, a record's
    name would decide where in the stream another shard begins, so each shard has its own stream.
    """
    dealt = shards.rows(with_dropped=True)
    drawn: dict[int, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    groups: list[tuple[int, list[int]]] = []
    if shards.dealt_by == "position":
        by_size: dict[int, list[int]] = defaultdict(list)
        for index, rows in enumerate(dealt):
            by_size[len(rows)].append(index)
        for size, members in by_size.items():
            at_once = min(_TEACHERS_AT_ONCE, max(1, _DRAWN_AT_ONCE // (size * (1 + views))))
            groups += [
                (size, members[start : start + at_once])
                for start in range(0, len(members), at_once)
            ]
    else:
        groups = [(len(rows), [index]) for index, rows in enumerate(dealt)]
    for size, members in groups:
        if shards.dealt_by != "position":
            generator = torch.Generator().manual_seed(stream_seed(seed, members[0], "views"))
        maps = [
            draw_distortions(len(members) * size, channels=channels, generator=generator).view(
                len(members), size, 2, 3
            )
            for _ in range(views)
        ]
        for place, index in enumerate(members):
            kept = shards.kept[dealt[index]]
            own = [part[place][kept] for part in maps]
            drawn[index] = torch.stack(own) if own else torch.empty(0, int(kept.sum()), 2, 3)
    return [drawn[index] for index in range(shards.teachers)]


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Solve a ridge regression with an intercept: ``(N, F), (N, K) -> (F, K), (K,)``.

    It is solved in the smaller of its two forms, by records or by features.
    """
    mean, base = inputs.mean(0, keepdim=True), targets.mean(0, keepdim=True)
    centred, wanted = inputs - mean, targets - base
    records, features = centred.shape
    penalty = _RIDGE * centred.square().sum(-1).mean().clamp_min(1e-6)
    if records <= features:
        kernel = centred @ centred.mT + penalty * torch.eye(records)
        heads = centred.mT @ torch.linalg.solve(kernel, wanted)
    else:
        covariance = centred.mT @ centred + penalty * torch.eye(features)
        heads = torch.linalg.solve(covariance, centred.mT @ wanted)
    return heads, (base - mean @ heads).squeeze(0)


@torch.inference_mode()
def _features(body: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = in_batches(body, images)
    return features
