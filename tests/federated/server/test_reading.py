"""Replies are read by the mechanism that made them."""

from __future__ import annotations

import pytest
import torch

from dpsd.federated.requests import Code, Reply, Request
from dpsd.federated.server.reading import GarbageError, read_reply
from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse

CLASSES = 20


def test_a_mask_of_nearly_all_classes_lets_every_class_be_reported() -> None:
    """Its prior counts as flat, so an honest client may report the class that was left out."""
    candidates = torch.ones((1, CLASSES), dtype=torch.bool)
    candidates[0, 7] = False
    request = Request(
        federation="f00d",
        number=1,
        deadline=1e12,
        images=torch.zeros((1, 1, 8, 8), dtype=torch.uint8),
        candidates=candidates,
    )
    mechanism = RandomizedResponse(epsilon=1.0)
    assert mechanism.reportable(request.prior(CLASSES)).all()
    answered = torch.ones(1, dtype=torch.bool)
    reply = Reply(code=Code.ANSWERED, release=torch.tensor([7]), answered=answered)
    said = read_reply(reply, request, mechanism=mechanism, num_classes=CLASSES)
    assert said.argmax().item() == 7


@pytest.mark.parametrize("columns", [CLASSES - 1, CLASSES + 1])
def test_scores_of_another_number_of_classes_are_garbage(columns: int) -> None:
    images = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
    request = Request(federation="f00d", number=1, deadline=1e12, images=images)
    answered = torch.ones(1, dtype=torch.bool)
    reply = Reply(code=Code.ANSWERED, release=torch.zeros((1, columns)), answered=answered)
    mechanism = Gaussian(noise_multiplier=1.0)
    with pytest.raises(GarbageError, match=r"its releases are not torch.float32 \(1, 20\)"):
        read_reply(reply, request, mechanism=mechanism, num_classes=CLASSES)
