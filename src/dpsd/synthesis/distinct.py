"""The images that a run has asked, recognised by 64-bit digests so that none is asked twice.

ε under ``response`` and ``round`` protects the teacher's answer about one image. An image that was
asked twice would reveal two noisy copies of that answer, so an image that recurs is not asked.

An image is identified by its bytes. Equal images have equal digests, so none is ever asked twice.
Two different images have the same digest with probability 2⁻⁶⁴. Then the second is not asked, which
loses a query and costs no privacy. Among eight million images, the chance of this is two in a
million.

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

#: The bytes of images that are processed at once, few enough to stay in a processor's cache.
_BLOCK = 1 << 18

#: The seed of the coefficients; another text would change the digests of stored queries.
_SEED = b"dpsd: digests of images"


def image_digests(images: Tensor) -> Tensor:
    """Return a 64-bit digest for each image, the same on every machine.

    Args:
        images: the images, uint8 ``(N, …)`` on the CPU; only digests of images of the same shape
            can be compared.

    Returns:
        The digests, int64 ``(N,)``.

    >>> image_digests(torch.zeros((2, 1, 8, 8), dtype=torch.uint8)).tolist()
    [6893206930078923126, 6893206930078923126]
    """
    # An image is a vector of 32-bit words x, and one half of its digest is the upper 32 bits of
    # b + Σ a_i x_i modulo 2⁶⁴. With random 64-bit a and b, these halves of any two images are
    # uniform and independent (Dietzfelbinger, 1996), so they are equal with probability 2⁻³²; a
    # second a and b make the other half. All 64 bits of one such sum would not be a good digest, as
    # its lowest k bits depend on the lowest k bits of the words alone: the sums of images that
    # differ only in the highest byte of a word are certain to agree in 24 bits.
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
    """Return, for each half of a digest, the summand b and the factors a of ``words`` words."""
    # They are fixed and public, as digests are stored. Nobody gains from images that collide, as
    # these are not asked.
    stream = hashlib.shake_256(_SEED).digest(2 * 8 * (1 + words))
    columns = np.frombuffer(stream, "<u8").astype(np.uint64).reshape(-1, 2).T.copy()
    return [(column[0], column[1:]) for column in columns]


class AskedImages:
    """The digests of the images that were asked, at eight bytes per image."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)

    def add(self, digests: Tensor) -> None:
        """Record images as asked, by their digests, int64 ``(n,)``."""
        merged = np.concatenate([self._sorted, np.sort(digests.numpy())])
        merged.sort(kind="stable")  # merges the two sorted parts
        self._sorted = merged

    def holds(self, digests: Tensor) -> Tensor:
        """Return which images were asked, bool ``(n,)``, by their digests, int64 ``(n,)``."""
        return torch.from_numpy(self._held(digests.numpy()))

    def fresh(self, digests: Tensor) -> Tensor:
        """Return which images may be asked, bool ``(n,)``: those not asked before, each once."""
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
        # A digest larger than all others has no place; any place will do, as none holds an equal.
        np.minimum(places, self._sorted.size - 1, out=places)
        held: npt.NDArray[np.bool_] = self._sorted[places] == values
        return held
