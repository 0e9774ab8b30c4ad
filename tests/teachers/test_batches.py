"""Models are asked in batches that suit them, and nobody can tell from what they answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpsd.devices.execution import forward_batch
from dpsd.teachers.batches import in_batches


@given(count=st.integers(1, 40), size=st.none() | st.integers(1, 17))
def test_every_image_has_the_row_it_would_have_alone(count: int, size: int | None) -> None:
    seen: list[int] = []

    def run(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1).cumsum(1)

    # So large that a core's cache holds nine of them.
    images = torch.rand(count, 1, 1, 1).expand(-1, -1, 120, 120)
    assert in_batches(run, images, size=size).equal(images.flatten(1).cumsum(1))
    if size is None:
        assert max(seen) <= forward_batch((1, 120, 120), torch.device("cpu")) == 9
        assert sum(seen) == count
    else:
        assert set(seen) == {size}


@pytest.mark.parametrize("answer", [None, torch.zeros(3), torch.zeros(1, 2), torch.zeros(2, 2, 2)])
def test_what_is_no_row_for_each_image_is_left_for_the_caller_to_refuse(answer: object) -> None:
    assert in_batches(lambda images: answer, torch.zeros(5, 1, 200, 200)) is answer
