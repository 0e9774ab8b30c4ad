"""The attacker: a prior of public images, and the attacks that use it.

Every target meets the same prior and the same random starts, so differences between targets are
not those of luck alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpsd.attacks.inversion.attacked import Attacked
from dpsd.attacks.inversion.generative import adapted, gmi, plg_mi
from dpsd.attacks.inversion.label_only import label_only
from dpsd.attacks.inversion.prior import Prior, fit_prior
from dpsd.attacks.inversion.prior_free import prior_free
from dpsd.attacks.inversion.public import PublicImages
from dpsd.attacks.inversion.reconstructions import Reconstructions, intended
from dpsd.attacks.inversion.settings import Inversion
from dpsd.attacks.inversion.shelf import Shelf
from dpsd.attacks.target import Progress
from dpsd.devices.execution import Execution
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels
from dpsd.streams import stream, stream_seed
from dpsd.teachers.fingerprint import fingerprint_tensors

#: The version of each attack and measure; findings of different versions are not compared.
VERSIONS = {
    "gmi": 1,
    "plg-mi": 1,
    "label-only": 1,
    "prior-free": 1,
    "success": 1,
    "nearer-to-training": 1,
    "frechet": 1,
    "precision-recall": 1,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacker:
    """An attacker with a trained prior.

    Args:
        settings: the settings of the attacks.
        public: the public images.
        prior: the prior, which was trained on them.
        execution: the device and precision.
        shelf: keeps reconstructions.
        progress: is told of every part.
        seed: the seed of all attacks.
        key: a hash of the public images.
    """

    settings: Inversion
    public: PublicImages
    prior: Prior
    execution: Execution
    shelf: Shelf
    progress: Progress
    seed: int
    key: str

    @classmethod
    def trained(
        cls,
        settings: Inversion,
        public: PublicImages,
        *,
        execution: Execution,
        shelf: Shelf,
        priors: Shelf,
        progress: Progress,
        seed: int,
    ) -> Attacker:
        """Train the prior, or take the one that was kept, and return the attacker.

        Args:
            settings: the settings of the attacks.
            public: the public images.
            execution: the device and precision.
            shelf: keeps reconstructions.
            priors: keeps priors.
            progress: is told of every part.
            seed: the seed of the prior and of all attacks.
        """
        channels, height, width = public.pixels.shape[1:]
        key = fingerprint_tensors({"images": public.pixels})
        prior = execution.place(
            Prior(
                (channels, height, width),
                latent_dim=settings.latent_dim,
                width=settings.width,
                seed=stream_seed(seed, 0, "inversion prior"),
            )
        )
        steps = settings.prior_steps

        def make() -> dict[str, Tensor]:
            fit_prior(
                prior,
                public.pixels,
                steps=steps,
                execution=execution,
                random=stream(seed, 1, "inversion prior"),
                advance=lambda done: progress.step("inversion: the prior", done, steps),
            )
            return dict(prior.state_dict())

        facts = {
            "public": key,
            "latent_dim": settings.latent_dim,
            "width": settings.width,
            "steps": steps,
            "seed": seed,
            "device": execution.device.type,
        }
        prior.load_state_dict(priors.kept("prior", facts, make))
        return cls(
            settings=settings,
            public=public,
            prior=prior.eval().requires_grad_(False),
            execution=execution,
            shelf=shelf,
            progress=progress,
            seed=seed,
            key=key,
        )

    def can_attack(self, target: Attacked, name: str) -> bool:
        """Whether a target shows what an attack needs to see."""
        return name == "label-only" or target.module is not None

    def attack(self, target: Attacked, name: str, *, each: int) -> Reconstructions:
        """Attack a target, or return what was kept of the same attack.

        Args:
            target: the target, which :meth:`can_attack` does not exclude.
            name: the name of the attack.
            each: the number of reconstructions of each class.
        """
        settings = self.settings
        facts = {
            "attack": name,
            "attack_version": VERSIONS[name],
            "target": target.key,
            "public": self.key,
            "classes": self.public.classes.tolist(),
            "each": each,
            "seed": self.seed,
            "device": self.execution.device.type,
            **{
                setting: getattr(settings, setting)
                for setting in (
                    *("restarts", "steps", "rounds", "points", "width", "latent_dim"),
                    *("prior_steps", "conditional_steps"),
                )
            },
        }
        kept = self.shelf.kept(
            "images", facts, lambda: self._attacked(target, name, each).tensors()
        )
        return Reconstructions.of(kept)

    def unguided(self, each: int) -> Reconstructions:
        """Return images of the prior that no target guided, as if they were reconstructions."""
        classes = intended(self.public.classes, each)
        latents = self.prior.latents(len(classes), stream(self.seed, 2, "inversion prior"))
        with torch.no_grad():
            images = [
                to_pixels(self.prior.images(part)).cpu() for part in torch.split(latents, 256)
            ]
        return as_reconstructions(torch.cat(images), classes)

    def _attacked(self, target: Attacked, name: str, each: int) -> Reconstructions:
        classes = intended(self.public.classes, each)
        restarts, random = self.settings.restarts, stream(self.seed, 0, f"inversion {name}")
        steps, execution = self.settings.steps, self.execution
        advance = self._reporting(f"inversion: {name} of {target.name}", len(classes))
        if name == "label-only":
            rounds = self.settings.rounds
            return label_only(
                target.labels,
                self.prior,
                classes,
                restarts=restarts,
                rounds=rounds,
                points=self.settings.points,
                random=random,
                advance=self._reporting(f"inversion: {name} of {target.name}", rounds),
            )
        assert target.module is not None  # can_attack
        if name == "prior-free":
            channels, height, width = self.public.pixels.shape[1:]
            shape: Shape = (channels, height, width)
            return prior_free(
                target.module, shape, classes, restarts=restarts, steps=steps,
                execution=execution, random=random, advance=advance,
            )  # fmt: skip
        if name == "gmi":
            return gmi(
                target.module, self.prior, classes, restarts=restarts, steps=steps,
                execution=execution, random=random, advance=advance,
            )  # fmt: skip
        training = self.settings.conditional_steps
        prior = adapted(
            self.prior,
            target.module,
            self.public.pixels,
            classes=self.public.classes,
            steps=training,
            execution=execution,
            random=random,
            advance=self._reporting(f"inversion: the prior for {target.name}", training),
        ).requires_grad_(False)
        return plg_mi(
            target.module, prior, classes, pixels=self.public.pixels, restarts=restarts,
            steps=steps, execution=execution, random=random, advance=advance,
        )  # fmt: skip

    def _reporting(self, what: str, total: int) -> Callable[[int], None]:
        return lambda done: self.progress.step(what, done, total)


def as_reconstructions(images: Tensor, classes: Tensor) -> Reconstructions:
    """Return images that no attack made in the form of reconstructions.

    Args:
        images: the images, uint8 ``(N, C, H, W)``.
        classes: their classes, int64 ``(N,)``.
    """
    return Reconstructions(
        images=images,
        classes=classes,
        is_picked=torch.zeros_like(classes, dtype=torch.bool),
        is_found=torch.ones_like(classes, dtype=torch.bool),
        cost=torch.zeros(len(classes)),
    )
