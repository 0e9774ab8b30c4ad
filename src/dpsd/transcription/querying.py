"""Making queries: distinct images worth asking about, with the student's predictions for them.

The images come from the public sources and the generator. The predictions serve as the priors with
which answers are privatised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from dpsd.config.recipe import Recipe
from dpsd.devices.execution import Execution, inference_batch
from dpsd.distillation.diffusion import Diffusion
from dpsd.distillation.generator import image_batches, sample_images
from dpsd.distillation.quality import RoundQuality
from dpsd.distillation.releases import PROBE, RoundReleases
from dpsd.errors import RunError
from dpsd.images.names import Shape
from dpsd.privacy.mechanisms import Channel
from dpsd.runs.observing import Phases
from dpsd.streams import stream
from dpsd.synthesis.distinct import AskedImages, image_digests
from dpsd.synthesis.mixture import Mixture, build_mixture
from dpsd.synthesis.queries import Queries, Spool, flat_prior, instructive, scarcity
from dpsd.transcription.public import PublicImages

#: A round makes do with fewer queries once it has synthesised this many times the number wanted.
_PATIENCE = 4

#: The number of the generator's images that are kept from each round for inspection.
_SAMPLES = 16


@dataclass(kw_only=True)
class Querying:
    """Makes queries from the public sources and the generator.

    Args:
        recipe: the settings, which say how many queries to make, and of which kinds.
        shape: the shape of an image.
        num_classes: the number of classes of the teacher.
        student: the student, whose predictions are the priors.
        generator: the generator of images.
        sources: the public sources, whose shares may adapt to the releases.
        execution: the device and precision that models run in.
        phases: report the progress of each phase.
        probe: the images of the probe, uint8 ``(M, C, H, W)``, which the first round also asks
            about and no query repeats; ``None`` for none.
    """

    recipe: Recipe
    shape: Shape
    num_classes: int
    student: nn.Module
    generator: nn.Module
    sources: Mixture
    execution: Execution
    phases: Phases
    probe: Tensor | None = None
    _asked: AskedImages = field(default_factory=AskedImages)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        public: PublicImages,
        *,
        shape: Shape,
        num_classes: int,
        student: nn.Module,
        generator: nn.Module,
        execution: Execution,
        phases: Phases,
    ) -> Querying:
        """Make queries as a recipe says, with its sources and its public images.

        Args:
            recipe: the settings.
            public: the public images, which are a source, and the probe.
            shape: the shape of an image.
            num_classes: the number of classes of the teacher.
            student: the student, whose predictions are the priors.
            generator: the generator of images.
            execution: the device and precision that models run in.
            phases: report the progress of each phase.
        """
        sources = build_mixture(
            recipe.asked_sources,
            shape,
            value_range=recipe.value_range,
            public=public.source,
            diffusion=partial(Diffusion, seed=recipe.seed, execution=execution),
        )
        return cls(
            recipe=recipe,
            shape=shape,
            num_classes=num_classes,
            student=student,
            generator=generator,
            sources=sources,
            execution=execution,
            phases=phases,
            probe=public.probe,
        )

    def __post_init__(self) -> None:
        if self.probe is not None:
            self._asked.add(image_digests(self.probe))

    @property
    def source_names(self) -> list[str]:
        """The names of the sources in the order of their numbers; the generator comes last."""
        return [source.name for source in self.sources.sources] + ["generator"]

    def never_again(self, releases: RoundReleases) -> None:
        """Record the images that a round asked, as an image is asked only once in a run."""
        self._asked.add(releases.digests() if releases.asked is None else releases.asked)

    def follow(self, quality: RoundQuality, *, likeness: Sequence[float] | None = None) -> None:
        """Shift the sources' shares towards those that the student learns most from.

        Args:
            quality: what the releases of a round say of each source.
            likeness: how much each source's images look like those of the probe, which then
                decides; ``None`` without a probe.
        """
        if not self.recipe.adaptive:
            return
        if likeness is None:
            self.sources = self.sources.adapted(quality.surprise, quality.spread)
        else:
            self.sources = self.sources.towards(likeness)

    def facts(self) -> dict[str, str]:
        """Return what a run records of the sources besides their names."""
        return {
            name: fact for source in self.sources.sources for name, fact in source.facts().items()
        }

    def prepare(self, round_index: int) -> None:
        """Prepare the sources before the first round that is played, such as by training one."""
        for source in self.sources.sources:
            started = partial(self._started, source.name, round_index)
            if warning := source.prepare(started):
                self.phases.observer.warn(warning)

    def _started(
        self, name: str, round_index: int, steps: int
    ) -> AbstractContextManager[Callable[[int], None]]:
        return self.phases(name, total=steps, round_index=round_index)

    def guide(self, quality: RoundQuality) -> None:
        """Let the student, and what the releases show, steer the sources that can be steered."""
        for source in self.sources.sources:
            source.guided_by(self.student, quality.label_shares)

    def synthesise(self, round_index: int, spool: Spool, *, mechanism: Channel) -> Queries:
        """Synthesise queries worth asking, of distinct images that were not asked before.

        All images that are made are stored in the spool. The probe comes after the queries of the
        first round.

        Raises:
            RunError: no image was made that had not been asked before.
        """
        asked = self.recipe.queries_in(round_index)
        # The student is untrained in the first round, so there is nothing to select by.
        wanted = asked if round_index == 1 else round(asked * self.recipe.selection)
        random = stream(self.recipe.seed, round_index, "queries")
        # Before the first round, all priors are flat, and the generator is untrained.
        exploration = 1.0 if round_index == 1 else self.recipe.exploration
        share = 0.0 if round_index == 1 else self.recipe.generator_share
        queries = Queries.empty(spool, wanted, classes=self.num_classes)
        doubt = torch.empty(wanted)
        own = AskedImages()
        found = repeated = 0
        batch = inference_batch(spool.shape)
        # Without this, if images repeat, the last few missing ones would be made one by one.
        least = max(min(wanted, batch), wanted // 64)
        with self.phases("synthesis", total=wanted, round_index=round_index) as advance:
            while found < wanted and len(spool) < _PATIENCE * wanted:
                first, before, count = len(spool), found, max(wanted - found, least)
                source, digest = self._spooled(
                    count, generator_share=share, random=random, spool=spool
                )
                fresh = (self._asked.fresh(digest) & own.fresh(digest)).nonzero().flatten()
                repeated += count - len(fresh)
                explored = torch.rand((count, 1), generator=random) < exploration
                for some in torch.split(fresh, batch):
                    logits = self._logits(spool, first + some, round_index, random)
                    prior = (logits / self.recipe.prior_temperature).softmax(-1)
                    unsure = torch.special.entr(prior).sum(-1)
                    prior = torch.where(explored[some], flat_prior(prior, random), prior).half()
                    worth = mechanism.needs_answer(prior.float()).nonzero().flatten()
                    worth = worth[: wanted - found]
                    kept = slice(found, found + len(worth))
                    queries.rows[kept] = (first + some)[worth]
                    queries.prior[kept] = prior[worth]
                    queries.predicted[kept] = logits.argmax(-1).to(torch.int32)[worth]
                    queries.source[kept] = source[some][worth]
                    queries.digest[kept] = digest[some][worth]
                    doubt[kept] = unsure[worth]
                    advance(len(worth))
                    found = kept.stop
                own.add(queries.digest[before:found])
        queries = queries.only(slice(found))
        if len(queries) > asked:
            chosen = instructive(doubt[:found], queries.predicted, asked, random)
            queries = queries.only(chosen)
        if problem := scarcity(len(queries), wanted=asked, made=len(spool), repeated=repeated):
            if len(queries) == 0:
                raise RunError(f"round {round_index}: {problem}")
            self.phases.observer.warn(f"round {round_index}: {problem}")
        if self.probe is not None and round_index == 1:
            return queries.joined(self._probing(self.probe, spool))
        return queries

    def _probing(self, images: Tensor, spool: Spool) -> Queries:
        """The probe as queries, all with a flat prior, so that every class is a candidate."""
        first, count = len(spool), len(images)
        spool.append(images)
        random = stream(self.recipe.seed, 1, "probe")
        prior = flat_prior(torch.empty((count, self.num_classes)), random).half()
        return Queries(
            spool=spool,
            rows=torch.arange(first, first + count),
            prior=prior,
            predicted=prior.argmax(-1).to(torch.int32),  # a guess, as there is no student yet
            source=torch.full((count,), PROBE, dtype=torch.uint8),
            digest=image_digests(images),
        )

    def images(
        self, count: int, *, generator_share: float, random: torch.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        """Make images from the public sources and the generator, in blocks.

        Each block is uint8 ``(n, C, H, W)`` and comes with the number of its source; the
        generator's number is the last.
        """
        generated = round(count * generator_share) if self.sources.sources else count
        made = image_batches(
            self.generator,
            generated,
            shape=self.shape,
            execution=self.execution,
            random=random,
        )
        own = len(self.sources.sources)
        return chain(
            self.sources.blocks(count - generated, generator=random),
            ((images, own) for images in made),
        )

    def samples(self) -> Tensor:
        """Make some of the generator's images, from the same noise in every round."""
        # More are made than kept, as BatchNorm needs a batch like those that it was trained on.
        images = sample_images(
            self.generator,
            4 * _SAMPLES,
            shape=self.shape,
            execution=self.execution,
            random=stream(self.recipe.seed, 0, "samples"),
        )
        return images[:_SAMPLES]

    def _logits(
        self, spool: Spool, rows: Tensor, round_index: int, random: torch.Generator
    ) -> Tensor:
        """The student's logits for some images, ``(n, K)``."""
        if round_index == 1:
            # An untrained student would predict one class throughout: a guess is as good, and free.
            return torch.rand((len(rows), self.num_classes), generator=random)
        return self.execution.predict(self.student, spool[rows]).cpu()

    def _spooled(
        self, count: int, *, generator_share: float, random: torch.Generator, spool: Spool
    ) -> tuple[Tensor, Tensor]:
        """Spool images, and return the source, uint8 ``(count,)``, and digest, int64, of each."""
        # Allocated once: small blocks between large short-lived ones would fragment the memory.
        source = torch.empty(count, dtype=torch.uint8)
        digest = torch.empty(count, dtype=torch.int64)
        found = 0
        for images, number in self.images(count, generator_share=generator_share, random=random):
            spool.append(images)
            source[found : found + len(images)] = number
            digest[found : found + len(images)] = image_digests(images)
            found += len(images)
        return source, digest
