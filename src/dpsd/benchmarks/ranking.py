"""Whether a number that needs no real images ranks rows as their accuracy does.

>>> rank_correlation([(0.1, 0.5), (0.2, 0.7), (0.3, 0.6)])
0.5
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

from scipy import stats

from dpsd.benchmarks.tables import MISSING, Summary

#: A number that is known of a row, or not.
Estimate: TypeAlias = Callable[[Summary], float | None]

#: The fewest rows of which a ranking means anything.
_FEWEST = 3


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation, in [-1, 1].

    The result is ``None`` for fewer than three pairs, and where one of the two never varies.

    >>> rank_correlation([(0.1, 0.5), (0.1, 0.7), (0.1, 0.6)]) is None
    True
    """
    if len(pairs) < _FEWEST or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return round(float(stats.spearmanr(pairs).statistic), 12)  # its last digits are noise


def ranking(
    what: str,
    estimate: Estimate,
    summaries: Sequence[Summary],
    *,
    within: Mapping[str, Callable[[Summary], Hashable]],
) -> str:
    """Say how the ranks of rows by an estimate and by accuracy correlate.

    Args:
        what: the name of the estimate.
        estimate: returns its value for a row, or ``None``.
        summaries: the rows; those without a value or an accuracy are left out.
        within: for each kind of group, by its name, the group that a row is in. The correlation is
            also given as the mean over the groups of at least three rows.
    """
    known = [
        (one, value, one.mean)
        for one in summaries
        if one.mean is not None and (value := estimate(one)) is not None
    ]
    overall = rank_correlation([(value, mean) for _, value, mean in known])
    parts = [f"{signed(overall)} over {len(known)} of {len(summaries)} rows"]
    for name, group_of in within.items():
        groups: dict[Hashable, list[tuple[float, float]]] = {}
        for one, value, mean in known:
            groups.setdefault(group_of(one), []).append((value, mean))
        each = [rank for pairs in groups.values() if (rank := rank_correlation(pairs)) is not None]
        parts.append(f"{signed(statistics.mean(each) if each else None)} in {len(each)} {name}")
    return f"{what} {', '.join(parts)}"


def signed(correlation: float | None) -> str:
    """Return a correlation in words: with its sign, or :data:`MISSING`."""
    return MISSING if correlation is None else f"{correlation:+.2f}"
