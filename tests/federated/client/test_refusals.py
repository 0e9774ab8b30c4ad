"""Whatever is refused changes no record, and the server learns a code alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.federated.client.respondent import Respondent
from dpsd.federated.requests import Code, Reply

from .asking import (
    NOW,
    Listens,
    Shown,
    images,
    masks,
    records,
    released,
    request,
    respondent,
    teacher_of,
)

#: What is wrong with a request, and the code that it gets.
WRONG: dict[str, tuple[Code, dict[str, Any]]] = {
    "another federation": (Code.MALFORMED, {"federation": "beef"}),
    "no federation": (Code.MALFORMED, {"federation": None}),
    "late": (Code.LATE, {"deadline": NOW - 1}),
    "long over": (Code.LATE, {"deadline": -math.pi * 1e9}),
    "no deadline": (Code.MALFORMED, {"deadline": math.nan}),
    "endless": (Code.MALFORMED, {"deadline": math.inf}),
    "a number without end": (Code.MALFORMED, {"deadline": 10**400}),
    "words for a deadline": (Code.MALFORMED, {"deadline": "tomorrow"}),
    "no images": (Code.MALFORMED, {"images": images()}),
    "nothing for images": (Code.MALFORMED, {"images": None}),
    "a list for images": (Code.MALFORMED, {"images": [[[[0]]]]}),
    "floats": (Code.MALFORMED, {"images": images(1, 2).float()}),
    "another size": (Code.MALFORMED, {"images": torch.zeros((2, 1, 8, 9), dtype=torch.uint8)}),
    "colour": (Code.MALFORMED, {"images": torch.zeros((2, 3, 8, 8), dtype=torch.uint8)}),
    "an image alone": (Code.MALFORMED, {"images": torch.zeros((1, 8, 8), dtype=torch.uint8)}),
    "an image twice": (Code.MALFORMED, {"images": images(1, 2, 1)}),
    "round 0": (Code.MALFORMED, {"number": 0}),
    "a boolean round": (Code.MALFORMED, {"number": True}),
    "half a round": (Code.MALFORMED, {"number": 1.5}),
    "one candidate": (Code.MALFORMED, {"candidates": masks("110", "100")}),
    "no candidate": (Code.MALFORMED, {"candidates": masks("110", "000")}),
    "numbers for candidates": (Code.MALFORMED, {"candidates": masks("110", "011").float()}),
    "too few candidates": (Code.MALFORMED, {"candidates": masks("110")}),
    "candidates of four classes": (Code.MALFORMED, {"candidates": masks("1100", "0110")}),
    "more than the plan": (Code.BUDGET, {"images": images(*range(50))}),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Respondent:
    """A client that has answered something; a refusal leaves it as it is."""
    made = respondent(tmp_path_factory.mktemp("refusing"))
    made.answer(request(30, 31))
    return made


def untouched(client: Respondent, act: Callable[[], Reply]) -> Reply:
    """Do something, which changes neither ledger nor budget, nor what is answered already."""
    folder = client.folder.path.parent
    before = records(folder), client.folder.answers.rounds()
    reply = act()
    assert (records(folder), client.folder.answers.rounds()) == before
    return reply


@pytest.mark.parametrize(("code", "changed"), WRONG.values(), ids=WRONG)
def test_a_refusal_is_a_code_and_changes_nothing(
    client: Respondent, code: Code, changed: dict[str, Any]
) -> None:
    reply = untouched(client, lambda: client.answer(request(1, 2, **changed)))
    assert reply == Reply(code=code)


@given(
    number=st.sampled_from([1, 0, -1, None, "1"]),
    deadline=st.one_of(st.floats(), st.integers(), st.none()),
    federation=st.sampled_from(["f00d", "", 7]),
    kind=st.sampled_from([torch.uint8, torch.int8, torch.float64, torch.bool]),
    shape=st.lists(st.integers(0, 8), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_nonsense_is_refused_whatever_it_is(client: Respondent, **drawn: Any) -> None:
    shape, kind = drawn.pop("shape"), drawn.pop("kind")
    strange = request(**drawn, images=torch.zeros(shape, dtype=kind))
    reply = untouched(client, lambda: client.answer(strange))
    assert reply.code in (Code.MALFORMED, Code.LATE)


def test_a_deadline_that_passes_meanwhile_is_seen_before_anything_is_reserved(
    tmp_path: Path,
) -> None:
    times = iter([NOW, NOW + 100])
    shown = Shown()
    client = respondent(tmp_path, teacher_of(shown), clock=lambda: next(times))
    reply = untouched(client, lambda: client.answer(request(1, 2)))
    assert reply == Reply(code=Code.LATE)
    assert not shown.images
    with pytest.raises(StopIteration):
        next(times)


def test_known_images_are_answered_at_whatever_time_the_first_look_allows(tmp_path: Path) -> None:
    first = respondent(tmp_path).answer(request(1, 2))
    times = iter([NOW])
    again = respondent(tmp_path, clock=lambda: next(times)).answer(request(1, 2))
    assert released(again).equal(released(first))


def test_the_operator_is_told_what_the_server_is_not(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    client.answer(request(1, 2, deadline=NOW - 1))
    client.answer(request(1, 2))
    assert isinstance(client.observer, Listens)
    assert client.observer.told == [
        "refused as late: the deadline of round 1 has passed",
        "round 1: 2 images answered, and 0 known; ε = 2 is spent under 'response' at δ = 1e-05",
    ]
