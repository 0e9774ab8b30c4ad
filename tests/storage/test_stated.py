"""Infinity survives JSON, and what is checked as a whole is refused in one line."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, with_config

from dpsd.storage.stated import as_json, from_json, validated

NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
VALUES = st.recursive(
    NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Size:
    rows: int
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError("rows are negative")


@given(VALUES)
def test_every_number_survives_json(value: Any) -> None:
    written = json.dumps(as_json({"value": value}), allow_nan=False)
    assert from_json(json.loads(written)) == {"value": value}


def test_what_fits_is_returned() -> None:
    assert validated(Size, {"rows": 3, "shares": [1, 0.5]}) == Size(3, (1.0, 0.5))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "rows: field required"),
        ({"rows": True}, "rows: input should be a valid integer (not True)"),
        ({"rows": 1, "shares": [0.5, "1"]}, "shares.1: input should be a valid number (not '1')"),
        ({"rows": 1, "col\numns": 2}, "col umns: there is no such field"),
        ({"rows": -1}, "rows are negative"),
        ({"rows": 1, "shares": [math.inf]}, "Out of range float values"),
        ({"rows": "x" * 500}, f"(not '{'x' * 39}…)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        validated(Size, content)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
