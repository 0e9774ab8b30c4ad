"""Diffusion as a source: like every source, kept once it is trained, and steered by the student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.denoising import DenoiserTraining
from dpsd.distillation.diffusion import Diffusion, kept_at
from dpsd.images.names import Shape
from dpsd.images.pixels import to_pixels, to_unit_range
from dpsd.synthesis.mixture import Mixture, build_mixture
from dpsd.synthesis.public import Public
from dpsd.synthesis.sources import CHUNK, is_blank, unseen

EXECUTION = Execution.of("cpu", "float32")
TRAINING = DenoiserTraining(images=200, steps=4, batch_size=16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    shape: Shape = (1, 8, 8),
    *,
    names: tuple[str, ...] = ("noise", "strokes"),
    seed: int = 0,
    training: DenoiserTraining = TRAINING,
) -> Diffusion:
    basis = build_mixture(names, shape)
    return Diffusion(basis, seed=seed, execution=EXECUTION, training=training)


class Counts:
    """Reports steps to nobody, and counts trainings and steps."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0

    @contextmanager
    def __call__(self, steps: int) -> Iterator[Callable[[int], None]]:
        self.totals.append(steps)
        yield self._advance

    def _advance(self, steps: int) -> None:
        self.done += steps


class Bright(nn.Module):
    """Two classes, dark and bright; a batch that it is trained on would change its BatchNorm."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        light = self.norm(images).mean((1, 2, 3)) - 0.5
        return torch.stack([-light, light], dim=1) * 20


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 20), (1, 28, 28)])
def test_images_are_in_range_varied_and_never_blank(shape: Shape) -> None:
    source = make(shape)
    source.guided_by(Bright(shape[0]), [0.5, 0.5])
    images = source.sample(20, generator=seeded())
    assert images.shape == (20, *shape)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    pixels = to_pixels(images)
    assert len(pixels.flatten(1).unique(dim=0)) == 20
    assert not is_blank(to_unit_range(pixels)).any()


@pytest.mark.parametrize("count", [0, 1, CHUNK + 3])
def test_any_count(count: int) -> None:
    source = make()
    source.guided_by(Bright(), [0.5, 0.5])
    assert source.pixels(count, generator=seeded()).shape == (count, 1, 8, 8)


def test_until_it_is_guided_it_makes_images_of_the_other_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("dpsd.distillation.diffusion.draw_images")
    source = make(names=("strokes",))
    images = source.sample(50, generator=seeded())
    assert 0.01 < float(images.mean()) < 0.5  # lines on black
    assert not kept_at(source.fingerprint).exists()


@pytest.mark.parametrize("is_guided", [False, True])
def test_seeds_decide_and_nothing_else(is_guided: bool) -> None:
    def sampled(seed: int) -> Tensor:
        source = make()
        if is_guided:
            source.guided_by(Bright(), [0.5, 0.5])
        return source.sample(12, generator=seeded(seed))

    before = torch.get_rng_state()
    images = sampled(1)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(99)
    assert sampled(1).equal(images)
    assert not sampled(2).equal(images)


def test_blank_images_give_way_to_those_of_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    black = torch.zeros((10, 1, 8, 8))
    monkeypatch.setattr("dpsd.distillation.diffusion.draw_images", lambda *_, **__: black)
    source = make()
    source.guided_by(Bright(), [0.5, 0.5])
    assert not is_blank(source.sample(10, generator=seeded())).any()


def test_a_denoiser_is_trained_once_and_kept() -> None:
    first, again = Counts(), Counts()
    source = make()
    assert source.prepare(first) is None
    assert source.prepare(first) is None
    assert (first.totals, first.done) == ([4], 4)
    other = make()
    assert other.prepare(again) is None
    assert again.totals == []
    for found in (source, other):
        found.guided_by(Bright(), [0.5, 0.5])
    images = source.sample(5, generator=seeded())
    assert other.sample(5, generator=seeded()).equal(images)


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_damaged_file_is_replaced(content: bytes) -> None:
    source = make()
    path = kept_at(source.fingerprint)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    trained = Counts()
    assert source.prepare(trained) is None
    assert trained.totals == [4]
    assert path.read_bytes() != content


def test_a_folder_that_cannot_be_written_to_is_warned_about() -> None:
    source = make()
    folder = kept_at(source.fingerprint).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    warning = source.prepare(unseen)
    assert warning is not None
    assert warning.startswith("the denoiser of the source 'diffusion' is not kept for other runs")
    source.guided_by(Bright(), [0.5, 0.5])
    assert len(source.sample(3, generator=seeded())) == 3


def test_the_hash_depends_on_all_that_determines_the_denoiser() -> None:
    public = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    of_public = Diffusion(Mixture([Public(public)]), seed=0, execution=EXECUTION, training=TRAINING)
    longer = DenoiserTraining(images=200, steps=5, batch_size=16)
    found = [
        make(),
        make((1, 8, 9)),
        make(names=("noise",)),
        make(seed=1),
        make(training=longer),
        of_public,
    ]
    assert len({source.fingerprint for source in found}) == len(found)
    assert make().fingerprint == found[0].fingerprint


def test_large_images_are_fewer() -> None:
    source = make((3, 512, 512), training=DenoiserTraining())
    assert source._training.images * 3 * 512 * 512 <= 1 << 28


def test_images_are_steered_towards_rare_classes_and_doubt() -> None:
    source, student = make(), Bright()
    student.train()

    def light(shares: list[float]) -> Tensor:
        source.guided_by(student, shares)
        return source.sample(200, generator=seeded()).mean((1, 2, 3))

    dark_is_rare, bright_is_rare = light([0.01, 0.99]), light([0.99, 0.01])
    assert float(bright_is_rare.mean()) > float(dark_is_rare.mean()) + 0.05
    moved = (bright_is_rare - dark_is_rare).abs() > 1e-3
    assert 0.35 < float(moved.float().mean()) < 0.65  # half; the same noise made both
    assert student.norm.num_batches_tracked == 0
