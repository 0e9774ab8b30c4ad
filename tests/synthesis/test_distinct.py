"""Digests tell images apart, and a set of them tells which were asked."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpsd.synthesis import distinct
from dpsd.synthesis.distinct import AskedImages, image_digests


def by_hand(image: bytes) -> int:
    """The digest in Python's whole numbers, as the module describes it."""
    padded = image + bytes(-len(image) % 4)
    words = [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]
    stream = hashlib.shake_256(b"dpsd: digests of images").digest(16 * (1 + len(words)))
    numbers = [int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8)]
    halves = []
    for which in (0, 1):
        base, *factors = numbers[which::2]
        total = base + sum(factor * word for factor, word in zip(factors, words, strict=True))
        halves.append(total % 2**64 // 2**32)
    digest = halves[0] * 2**32 + halves[1]
    return digest - 2**64 if digest >= 2**63 else digest


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 2**31),
)
def test_digests_are_the_sums_that_they_are_said_to_be(
    count: int, shape: tuple[int, int, int], seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=random, dtype=torch.uint8)
    expected = [by_hand(image.numpy().tobytes()) for image in images]
    assert image_digests(images).tolist() == expected


def test_digests_stay_what_they_are() -> None:
    """Stored runs hold them: a change here would let a resumed run ask its images again."""
    images = torch.arange(2 * 75).remainder(251).to(torch.uint8).view(2, 3, 5, 5)
    assert image_digests(images).tolist() == [3650083861255881563, -7822865451789673919]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    turned = images.transpose(2, 3)  # not contiguous
    whole = image_digests(images)
    assert not image_digests(turned).equal(whole)
    monkeypatch.setattr(distinct, "_BLOCK", 3 * 64)
    assert image_digests(images).equal(whole)
    assert image_digests(turned).equal(image_digests(turned.clone()))


def faint_images() -> Tensor:
    """All images of 8x8 pixels of which at most two are not black; each of one of six greys."""
    places = [(one, other) for one in range(64) for other in range(one)]
    greys = [1, 2, 64, 128, 192, 255]
    pixels = torch.zeros((len(places), 36, 64), dtype=torch.uint8)
    for row, pair in enumerate(places):
        pixels[row, :, list(pair)] = torch.cartesian_prod(*[torch.tensor(greys)] * 2).byte()
    return pixels.view(-1, 1, 8, 8)


def test_images_that_differ_little_have_other_digests() -> None:
    """Also where they differ in the high bits of words alone, which a plain sum would lose."""
    images = faint_images()
    assert len(images) == 72_576
    digests = image_digests(images)
    assert len(digests.unique()) == len(images)
    # And so have halves: among 72,576 of 32 bits, 0.6 pairs are equal by chance.
    for half in (digests >> 32, digests & 0xFFFFFFFF):
        assert len(images) - len(half.unique()) < 8


@settings(max_examples=200, deadline=None)
@given(batches=st.lists(st.lists(st.integers(-6, 6), max_size=12), max_size=6))
def test_asked_images_are_a_set(batches: list[list[int]]) -> None:
    asked, model = AskedImages(), set[int]()
    # The ends of the range as well, as digests are any 64 bits.
    ends = {-6: -(2**63), 6: 2**63 - 1}
    for batch in batches:
        values = [ends.get(value, value) for value in batch]
        digests = torch.tensor(values, dtype=torch.int64)
        expected = [
            value not in model and value not in values[:row] for row, value in enumerate(values)
        ]
        assert asked.fresh(digests).tolist() == expected
        assert asked.holds(digests).tolist() == [value in model for value in values]
        asked.add(digests)
        model |= set(values)
