"""Items that are made ahead are the same, in order, and fail where they would have."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import cast

import pytest
import torch

from dpsd.devices.ahead import ahead


def test_what_is_drawn_ahead_is_drawn_in_order() -> None:
    def drawn() -> Iterator[float]:
        random = torch.Generator().manual_seed(0)
        for _ in range(20):
            yield float(torch.rand((), generator=random))

    assert list(ahead(drawn())) == list(drawn())


def test_the_next_is_made_while_one_is_used_and_no_more_than_that() -> None:
    made: list[int] = []
    second = threading.Event()

    def noted() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    items = cast("Generator[int, None, None]", ahead(noted()))
    assert next(items) == 0
    assert second.wait(10)
    assert made == [0, 1]
    items.close()
    assert made == [0, 1]


def test_a_failure_comes_where_the_item_would_have() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("cut off")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(OSError, match="cut off"):
        next(items)
