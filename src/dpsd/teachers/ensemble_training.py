"""Training one small teacher on every shard.

``scattering`` teachers, linear on fixed wavelet features, are ridge regressions: one batched linear
solve fits them all. Any other architecture is trained shard by shard as a single teacher is, and a
run that was interrupted goes on where it stopped.

>>> from dpsd.datasets import load_dataset
>>> data = load_dataset("digits", "train")
>>> shards = Shards.assign(data.images, teachers=20, seed=0)
>>> stacked = train_ensemble(data, shards)
>>> stacked["head.weight"].shape
torch.Size([20, 10, 81])
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from dpsd.augmentation import distort_images
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError, TeacherError
from dpsd.files import save_tensors, write_text
from dpsd.models import build_classifier
from dpsd.synthesis.sources import StructuredNoise
from dpsd.teachers.batches import in_batches
from dpsd.teachers.fingerprint import fingerprint_tensors
from dpsd.teachers.sharding import Shards
from dpsd.teachers.training import to_unit_range, train_teacher

CLOSED_FORM = "scattering"
#: Distorted copies of each record that closed-form teachers see, if nobody says how many.
VIEWS = 8

#: Ridge penalty, as a share of the mean squared length of a shard's feature vectors.
_RIDGE = 0.03
#: Ridge regressions answer between 0 and 1; logits are spread wider.
_LOGIT_SCALE = 10.0
#: Public images that features are scaled by.
_PUBLIC_IMAGES = 2048
#: Images whose features are held at once, and the most teachers that are solved for at once.
_HELD_AT_ONCE = 16_384
_SOLVED_AT_ONCE = 64


def train_ensemble(
    data: LabelledImages,
    shards: Shards,
    *,
    model: str = CLOSED_FORM,
    views: int | None = None,
    seed: int = 0,
    parts: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
    **training: Any,
) -> dict[str, Tensor]:
    """Train a teacher on each shard, from that shard's records alone.

    Args:
        data: the private training split.
        shards: which record belongs to which teacher.
        model: an architecture's name.
        views: distorted copies of each record that its teacher sees beside it, at least 0;
            :data:`VIEWS` if not given. For ``scattering`` alone.
        seed: of initial weights and orders; member ``i`` gets ``seed + i``.
        parts: a folder where finished members of a long training are kept, and taken from.
        advance: called with the number of members that were just finished.
        training: for :func:`dpsd.teachers.training.train_teacher`; not for ``scattering``.

    Returns:
        Every weight by name, ``(teachers, …)``, on the CPU.

    Raises:
        ConfigError: ``views`` below 0, or for another architecture.
        TeacherError: training diverged, or ``parts`` belongs to another training.
    """
    if model == CLOSED_FORM:
        views = VIEWS if views is None else views
        if views < 0:
            raise ConfigError(f"views is {views}, but must be at least 0")
        return _ridge_heads(data, shards, views=views, seed=seed, advance=advance)
    if views is not None:
        raise ConfigError(f"views is {views}, but only {CLOSED_FORM} teachers see distorted copies")
    if parts is not None:
        dealt = fingerprint_tensors(
            {"shard": shards.shard, "images": data.images, "labels": data.labels}
        )
        _claim(parts, model=model, seed=seed, dealt=dealt, **training)
    members = []
    for index, rows in enumerate(shards.rows()):
        path = None if parts is None else parts / f"{index:06d}.safetensors"
        if path is not None and path.exists():
            state = load_file(path)
        else:
            module = train_teacher(
                LabelledImages(
                    images=data.images[rows],
                    labels=data.labels[rows],
                    class_names=data.class_names,
                    name=data.name,
                    split=data.split,
                ),
                model=model,
                seed=seed + index,
                **training,
            )
            state = {name: part.detach().cpu() for name, part in module.state_dict().items()}
            if path is not None:
                save_tensors(path, state)
        members.append(state)
        advance(1)
    return {name: torch.stack([state[name] for state in members]) for name in members[0]}


def _claim(parts: Path, **training: object) -> None:
    """Mark a folder of parts as one training's, or refuse another's."""
    mark = {name: repr(value) for name, value in training.items()}
    path = parts / "training.json"
    try:
        if not path.exists():
            parts.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(mark) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")) != mark:
            raise TeacherError(
                f"{parts} holds teachers of another training; remove it or give another --out"
            )
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path} cannot be used ({error}); remove {parts}") from None


def _ridge_heads(
    data: LabelledImages, shards: Shards, *, views: int, seed: int, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """Linear heads by ridge regression on one-hot labels, all in closed form."""
    module = build_classifier(
        CLOSED_FORM, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed
    )
    # In eval mode nothing in the body depends on the records, as it would on their batch.
    body = nn.Sequential(*list(module.eval().children())[:-1])
    # Features are scaled by public images: statistics of the private ones would be shared by all
    # teachers, and a record would then reach every one of them.
    noise = StructuredNoise(data.input_shape).sample(
        _PUBLIC_IMAGES, generator=torch.Generator().manual_seed(0)
    )
    public = _features(body, to_unit_range(noise))
    centre, scale = public.mean(0), public.std(0).clamp_min(1e-4)
    weight = torch.empty(shards.teachers, data.num_classes, len(centre))
    bias = torch.empty(shards.teachers, data.num_classes)
    generator = torch.Generator().manual_seed(seed)
    by_size: dict[int, list[int]] = defaultdict(list)
    rows = shards.rows()
    for index, chosen in enumerate(rows):
        by_size[len(chosen)].append(index)
    for size, members in by_size.items():
        together = min(_SOLVED_AT_ONCE, max(1, _HELD_AT_ONCE // (size * (1 + views))))
        for some in torch.split(torch.tensor(members), together):
            chosen = torch.stack([rows[int(index)] for index in some])
            images = to_unit_range(data.images[chosen.flatten()])
            seen = [images, *(distort_images(images, generator=generator) for _ in range(views))]
            features = [(_features(body, view) - centre) / scale for view in seen]
            inputs = torch.cat([part.view(*chosen.shape, -1) for part in features], dim=1)
            targets = F.one_hot(data.labels[chosen], data.num_classes).float()
            heads, offsets = _ridge(inputs, targets.repeat(1, len(seen), 1))
            # What the scaling does is folded into the weights: the stored model is plain.
            heads = heads / scale.unsqueeze(-1)
            weight[some] = _LOGIT_SCALE * heads.mT
            bias[some] = _LOGIT_SCALE * (offsets - centre @ heads)
            advance(len(some))
    return {"head.weight": weight, "head.bias": bias}


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Batched ridge regression with an intercept: ``(B, N, F), (B, N, K) -> (B, F, K), (B, K)``.

    Solved in whichever of the two forms, by records or by features, is smaller.
    """
    mean, base = inputs.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    centred, wanted = inputs - mean, targets - base
    records, features = centred.shape[1:]
    penalty = _RIDGE * centred.square().sum(-1).mean(-1).clamp_min(1e-6).view(-1, 1, 1)
    if records <= features:
        kernel = centred @ centred.mT + penalty * torch.eye(records)
        heads = centred.mT @ torch.linalg.solve(kernel, wanted)
    else:
        covariance = centred.mT @ centred + penalty * torch.eye(features)
        heads = torch.linalg.solve(covariance, centred.mT @ wanted)
    return heads, (base - mean @ heads).squeeze(1)


@torch.inference_mode()
def _features(body: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = in_batches(body, images)
    return features
