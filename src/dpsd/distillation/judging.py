"""Whether a probe can judge a student: what its images, and the releases about them, leave open.

The warnings follow from the number of public images and from releases, so they cost no privacy.

>>> next(size_warnings(given=200, distinct=5, asked=5))
'the probe has 200 images, 5 of them distinct: each is asked once'
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dpsd.distillation.probe import ProbeQuality
from dpsd.distillation.quality import TELLING

#: From this share of its largest class on, a probe shows nearly one class.
_NEARLY_ONE = 0.9

#: The fewest images of a probe that raise no warning.
FEWEST = 100

#: The agreement for which the error of a small probe is stated.
_USUAL = 0.9

#: The most classes that a warning names.
_MOST_NAMED = 5


def size_warnings(*, given: int, distinct: int, asked: int) -> Iterator[str]:
    """Yield what the number of a probe's images leaves open.

    Args:
        given: the number of images that were given.
        distinct: the number of different images among them.
        asked: the number of images of the probe.

    >>> list(size_warnings(given=500, distinct=500, asked=100))
    []
    """
    if distinct < given:
        yield (
            f"the probe has {given:,} images, {distinct:,} of them distinct: each is asked once"
            if asked == distinct
            else f"of {given:,} public images, {distinct:,} are distinct: {asked:,} of these are "
            "the probe"
        )
    if asked < FEWEST:
        error = 100 * math.sqrt(_USUAL * (1 - _USUAL) / asked)
        yield (
            f"the probe has {asked:,} distinct images, fewer than {FEWEST}: an agreement of "
            f"{_USUAL:.0%} is known to ± {error:.0f} points at best, and less well under noise; "
            "bring more images"
        )


def class_warning(quality: ProbeQuality, *, names: Sequence[str] | None = None) -> str | None:
    """Return which classes a probe says little about, as a warning; ``None`` if it tells of all.

    Args:
        quality: how any student does on the probe.
        names: the names of the classes, if they have any.
    """
    constant = quality.constant
    if constant is None or constant.standard_error > TELLING:
        return None
    if constant.mean >= _NEARLY_ONE:
        return (
            "the probe shows nearly one class to the teacher, which says "
            f"{_named([quality.constant_class], names)} for {min(1.0, constant.mean):.1%} ± "
            f"{constant.standard_error:.1%} of its images (estimated): agreement on it says little "
            "on the others; bring images of all classes"
        )
    unknown = [number for number, recall in enumerate(quality.recall) if recall is None]
    if not unknown:
        return None
    return (
        f"the probe does not tell how a student does on {_named(unknown, names)}: the teacher says "
        "so for too few of its images to stand out from the noise; bring more images of all classes"
    )


def _named(numbers: Sequence[int], names: Sequence[str] | None) -> str:
    """Classes in words, the first of many."""
    shown = numbers[:_MOST_NAMED]
    words = ", ".join(repr(names[number]) if names else str(number) for number in shown)
    more = len(numbers) - len(shown)
    kind = "class" if len(numbers) == 1 else "classes"
    return f"{kind} {words}{f' and {more:,} more' if more else ''}"
