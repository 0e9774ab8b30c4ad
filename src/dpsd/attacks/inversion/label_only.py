"""Label-only inversion: the attacker asks the target for classes, and sees nothing else of it.

A latent of the public prior that the target gives the wanted class is moved away from those around
it that get another one, on a sphere whose radius grows whenever all its points get the wanted
class. So it moves towards the middle of the class (BREP-MI: Kahla et al., "Label-Only Model
Inversion Attacks via Boundary Repulsion", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dpsd.attacks.inversion.attacked import Labels
from dpsd.attacks.inversion.prior import Prior
from dpsd.attacks.inversion.reconstructions import Reconstructions, picked
from dpsd.images.pixels import to_pixels

#: The first radius, its growth, and the largest step, in units of latents.
_RADIUS, _GROWTH, _LONGEST = 2.0, 1.3, 3.0
#: The most times that as many images as wanted are drawn in search of latents to begin with.
_SEARCHES = 20
_BATCH = 128


def label_only(
    labels: Labels,
    prior: Prior,
    classes: Tensor,
    *,
    restarts: int,
    rounds: int,
    points: int,
    random: torch.Generator,
    advance: Callable[[int], None],
) -> Reconstructions:
    """Invert a target whose labels alone are seen.

    Args:
        labels: the function that returns the target's classes of images in [0, 1].
        prior: the unconditional prior.
        classes: the intended classes in the order of
            :func:`~dpsd.attacks.inversion.reconstructions.intended`.
        restarts: the number of restarts among which the one with the largest radius is picked.
        rounds: the number of rounds, in each of which the sphere grows or the latent moves.
        points: the number of points on the sphere.
        random: a CPU random generator, the source of all randomness here.
        advance: is called with the number of rounds done.
    """

    def said(latents: Tensor) -> Tensor:
        return torch.cat([labels(images) for images in _images(prior, latents)])

    with torch.no_grad():
        latents, is_found = _starts(said, prior, classes, random)
        radius = torch.full((len(classes),), _RADIUS)
        best, reached = latents.clone(), torch.zeros(len(classes))
        for done in range(rounds):
            around = torch.randn((len(latents), points, prior.latent_dim), generator=random)
            around = around / around.norm(dim=-1, keepdim=True)
            asked = (latents.unsqueeze(1) + radius.view(-1, 1, 1) * around).flatten(0, 1)
            missed = said(asked).view(-1, points) != classes.unsqueeze(1)
            is_inside = ~missed.any(1) & is_found
            best[is_inside], reached[is_inside] = latents[is_inside], radius[is_inside]
            radius[is_inside] *= _GROWTH
            # Latents move away from the points that were missed, unless they would leave the class.
            away = -(missed.unsqueeze(-1) * around).mean(1)
            moved = latents + (radius / 3).clamp_max(_LONGEST).unsqueeze(1) * away / away.norm(
                dim=1, keepdim=True
            ).clamp_min(1e-6)
            stays = (said(moved) == classes) & ~is_inside & is_found
            latents[stays] = moved[stays]
            advance(done + 1)
        # A latent that was never in the middle of its class counts with where it came.
        never = reached == 0
        best[never] = latents[never]
        pixels = torch.cat([to_pixels(images).cpu() for images in _images(prior, best)])
    cost = torch.where(is_found, -reached, 1.0)
    return Reconstructions(
        images=pixels,
        classes=classes,
        is_picked=picked(cost, classes=len(torch.unique(classes)), restarts=restarts),
        is_found=is_found,
        cost=cost,
    )


def most_questions(rounds: int, points: int) -> int:
    """Return the most questions that a reconstruction takes.

    >>> most_questions(12, 12)
    177
    """
    return 1 + _SEARCHES + rounds * (points + 1)


def _images(prior: Prior, latents: Tensor) -> Iterator[Tensor]:
    """Make images of latents ``(N, latent_dim)`` on the CPU, in batches."""
    for part in torch.split(latents, _BATCH):
        yield prior.images(part.to(prior.offsets.device))


def _starts(
    said: Callable[[Tensor], Tensor], prior: Prior, classes: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw latents that the target gives the wanted classes, as far as it ever says them.

    Returns:
        The latents ``(N, latent_dim)``, and whether each has its class, bool ``(N,)``. Those that
        have not are as they were drawn.
    """
    found = prior.latents(len(classes), random).cpu()
    missing = said(found) != classes
    for _ in range(_SEARCHES):
        if not bool(missing.any()):
            break
        drawn = prior.latents(len(classes), random).cpu()
        answers = said(drawn)
        for wanted in torch.unique(classes[missing]):
            open_rows = (missing & (classes == wanted)).nonzero().flatten()
            fitting = (answers == wanted).nonzero().flatten()[: len(open_rows)]
            found[open_rows[: len(fitting)]] = drawn[fitting]
            missing[open_rows[: len(fitting)]] = False
    return found, ~missing
