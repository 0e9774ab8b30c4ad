"""dpsd's own backbones: trained once on public images, kept, and found again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dpsd.datasets import LabelledImages
from dpsd.errors import MissingDataError
from dpsd.synthesis.glyphs import Glyphs
from dpsd.training import pretraining
from dpsd.training.pretraining import Pretraining, find_backbone, kept_at

TINY = Pretraining(images=200, epochs=1)


@contextmanager
def counted(passes: int) -> Iterator[Callable[[int], None]]:
    done.append(0)
    assert passes == TINY.epochs

    def advance(count: int) -> None:
        done[-1] += count

    yield advance


done: list[int] = []


def test_a_backbone_is_trained_once_and_read_the_next_time() -> None:
    done.clear()
    first, second = (
        find_backbone("glyphs", input_shape=(1, 28, 28), started=counted, training=TINY)
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert done == [1]
    assert first.stated() == second.stated()
    assert "public" in first.trained_on
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        assert first.module(images).equal(second.module(images))


def test_a_damaged_backbone_is_trained_again() -> None:
    found = find_backbone("glyphs", input_shape=(1, 28, 28), training=TINY)
    path = kept_at("glyphs", TINY)
    path.write_bytes(path.read_bytes()[:100])
    again = find_backbone("glyphs", input_shape=(1, 28, 28), training=TINY)
    assert found is not None
    assert again is not None
    assert again.fingerprint == found.fingerprint


def test_one_backbone_has_one_hash_for_images_of_any_shape() -> None:
    shapes = [(1, 28, 28), (3, 64, 64)]
    found = [find_backbone("glyphs", input_shape=shape, training=TINY) for shape in shapes]
    assert len({one.fingerprint for one in found if one is not None}) == 1


def test_other_settings_are_kept_elsewhere() -> None:
    assert kept_at("glyphs", TINY) != kept_at("glyphs", Pretraining(images=200, epochs=2))


def test_wavelets_are_no_backbone() -> None:
    assert find_backbone("wavelets", input_shape=(1, 28, 28)) is None


def test_cifar100_is_refused_where_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cifar100"):
        find_backbone("cifar100", input_shape=(3, 32, 32), root=tmp_path, training=TINY)


def test_cifar100_is_learned_in_the_form_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    data = LabelledImages(
        images=torch.randint(0, 256, (300, 3, 32, 32), generator=random, dtype=torch.uint8),
        labels=torch.arange(300) % 100,
        class_names=tuple(map(str, range(100))),
        name="cifar100-jpeg",
        split="train",
    )

    def load(name: str, split: str, *, root: Path | None) -> LabelledImages:
        if name == "cifar100":
            raise MissingDataError("not here")
        return data

    monkeypatch.setattr(importlib.import_module(pretraining.__name__), "load_dataset", load)
    found = find_backbone("cifar100", input_shape=(3, 64, 64), training=TINY)
    assert found is not None
    assert "JPEG" in found.trained_on
    assert kept_at("cifar100-jpeg", TINY).exists()
    assert not kept_at("cifar100", TINY).exists()
    again = find_backbone("cifar100", input_shape=(3, 64, 64), training=TINY)
    assert again is not None
    assert again.stated() == found.stated()
    with torch.no_grad():
        assert found.module(torch.rand(2, 3, 64, 64)).shape == (2, 1152)


def test_labelled_glyphs_are_of_every_kind_and_say_so() -> None:
    random = torch.Generator().manual_seed(0)
    images, codes = Glyphs((1, 28, 28), kinds=("digits", "letters")).labelled(800, generator=random)
    assert images.shape == (800, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert set(map(chr, codes.tolist())) == set("0123456789abcdefghijklmnopqrstuvwxyz")


def test_labels_of_glyphs_are_those_of_what_is_drawn() -> None:
    """A one is narrow, as printed, and a zero is not; so their ink differs on average."""
    random = torch.Generator().manual_seed(0)
    source = Glyphs((1, 28, 28), kinds=("digits",))
    images, codes = source.labelled(1_500, generator=random)
    upright = images.float().flatten(1)
    upright = upright - upright.mean(1, keepdim=True)
    means = torch.stack([upright[codes == ord(digit)].mean(0) for digit in "0123456789"])
    found = (upright @ means.T - means.square().sum(1) / 2).argmax(1)
    assert (found == codes - ord("0")).double().mean() > 0.3
