"""Making the next item in another thread while one is used.

>>> list(ahead(iter([1, 2, 3])))
[1, 2, 3]
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, each of which is made while the one before is used.

    All are made by one thread, so that whatever they draw from a generator, they draw in order; no
    other thread may draw from it meanwhile.

    Raises:
        Exception: what making an item raised, where it would have come.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
