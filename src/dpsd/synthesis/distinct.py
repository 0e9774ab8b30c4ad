"""Which images a run has asked: each at most once, and known again by a 64-bit digest.

ε under ``response`` and ``round`` is about the teacher's answer about one image. An image that was
asked twice would give away two noisy copies of that answer, so one that comes again is not asked.

An image is its bytes. Equal images have equal digests, so none is ever asked twice. Two different
images have the same digest with probability 2⁻⁶⁴, and then the second is not asked: a query less,
which costs no privacy. Among eight million images that happens with a chance of two in a million.

>>> images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
>>> asked = AskedImages()
>>> asked.add(image_digests(images[:2]))
>>> asked.fresh(image_digests(images[[0, 3, 3, 4]])).tolist()  # asked before, new, again, new
[False, True, False, True]
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Bytes of images that are worked on at once: they stay in a processor's cache.
_BLOCK = 1 << 18

#: What the coefficients are made from. Another text would make other digests of stored queries.
_SEED = b"dpsd: digests of images"


def image_digests(images: Tensor) -> Tensor:
    """A 64-bit number for each image, the same on every machine.

    Args:
        images: uint8 ``(N, …)`` on the CPU; digests of images of one shape can be compared.

    Returns:
        int64 ``(N,)``.

    >>> image_digests(torch.zeros((2, 1, 8, 8), dtype=torch.uint8)).tolist()
    [6893206930078923126, 6893206930078923126]
    """
    # An image is a vector of 32-bit words x, and half of its digest are the upper 32 bits of
    # b + Σ a_i x_i modulo 2⁶⁴. With random 64-bit a and b the halves of any two images are
    # uniform and independent (Dietzfelbinger, 1996), so they are equal with probability 2⁻³²; a
    # second a and b make the other half. All 64 bits of one such sum would be no good digest: its
    # lowest k bits depend on the lowest k bits of the words alone. Images that differ in the
    # highest byte of a word have sums that agree in 24 bits for certain.
    size = math.prod(images.shape[1:])
    pixels = images.reshape(len(images), size).contiguous().numpy()
    (base, factors), (second_base, second_factors) = _coefficients(-(-size // 4))
    digests = np.empty(len(pixels), np.uint64)
    rows = max(1, _BLOCK // max(1, size))
    for start in range(0, len(pixels), rows):
        block = pixels[start : start + rows]
        padded = np.pad(block, ((0, 0), (0, -size % 4))) if size % 4 else block
        words = padded.view("<u4").astype(np.uint64)
        upper = np.einsum("ij,j->i", words, factors) + base
        lower = np.einsum("ij,j->i", words, second_factors) + second_base
        digests[start : start + rows] = (upper >> 32 << 32) | (lower >> 32)
    return torch.from_numpy(digests.view(np.int64))


@lru_cache(maxsize=8)
def _coefficients(words: int) -> list[tuple[np.uint64, npt.NDArray[np.uint64]]]:
    """For each half of a digest, what is added and what each of so many words is multiplied by."""
    # Fixed and public, as digests are stored. Nobody gains by images that collide: they are not
    # asked.
    stream = hashlib.shake_256(_SEED).digest(2 * 8 * (1 + words))
    columns = np.frombuffer(stream, "<u8").astype(np.uint64).reshape(-1, 2).T.copy()
    return [(column[0], column[1:]) for column in columns]


class AskedImages:
    """The digests of images that were asked; eight bytes an image."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)

    def add(self, digests: Tensor) -> None:
        """Count images as asked, by their digests int64 ``(n,)``."""
        merged = np.concatenate([self._sorted, np.sort(digests.numpy())])
        merged.sort(kind="stable")  # which merges what is sorted already
        self._sorted = merged

    def holds(self, digests: Tensor) -> Tensor:
        """Which were asked, bool ``(n,)``, by their digests int64 ``(n,)``."""
        return torch.from_numpy(self._held(digests.numpy()))

    def fresh(self, digests: Tensor) -> Tensor:
        """Which may be asked, bool ``(n,)``: the first of equal ones, if it never was before."""
        values = digests.numpy()
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        is_new = ~self._held(ranked)
        is_new[1:] &= ranked[1:] != ranked[:-1]
        fresh = np.empty(len(values), np.bool_)
        fresh[order] = is_new
        return torch.from_numpy(fresh)

    def _held(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        if not self._sorted.size:
            return np.zeros(len(values), np.bool_)
        places = np.searchsorted(self._sorted, values)
        # What is larger than all of them has no place; any will do, as none there is equal.
        np.minimum(places, self._sorted.size - 1, out=places)
        held: npt.NDArray[np.bool_] = self._sorted[places] == values
        return held
