"""What clients say of their mechanisms is believed only if it describes one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import ConfigError
from dpsd.federated.mechanisms import rebuilt
from dpsd.privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SharedNoiseVotes,
    SummedGradients,
)

MECHANISMS: list[Mechanism] = [
    RandomizedResponse(epsilon=1.3),
    RandomizedResponse(epsilon=0.5, candidates="all"),
    RandomizedResponse(epsilon=2.0, candidates=3),
    Gaussian(noise_multiplier=2.5),
    Gaussian(noise_multiplier=0.3, bound=3, scaling="none"),  # type: ignore[arg-type]
    Gaussian(noise_multiplier=7.0, harden=False, widen=False),
    NoisyVotes(noise_multiplier=12.0, teachers=40),
    SummedGradients(noise_multiplier=3.0, teachers=7),
    SharedNoiseVotes(noise_multiplier=3.0, teachers=1, clients=5),
    SharedNoiseVotes(noise_multiplier=12.0, teachers=40, clients=3),
]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=str)
def test_what_a_mechanism_states_makes_it_again(mechanism: Mechanism) -> None:
    travelled = json.loads(json.dumps(mechanism.parameters()))
    again = rebuilt(travelled, num_classes=10)
    assert type(again) is type(mechanism)
    assert again.parameters() == mechanism.parameters()


WRONG = [
    {},
    {"name": 7},
    {"name": ["gaussian"]},
    {"name": "confident-votes"},
    ConfidentVotes(noise_multiplier=5.0, teachers=9).parameters(),
    Gaussian(noise_multiplier=2.0, top_k=4).parameters(),
    *(
        {**RandomizedResponse(epsilon=1.0).parameters(), **changed}
        for changed in (
            {"epsilon_per_answer": 0},
            {"epsilon_per_answer": -1.0},
            {"epsilon_per_answer": 1e9},
            {"epsilon_per_answer": math.nan},
            {"epsilon_per_answer": math.inf},
            {"epsilon_per_answer": "1.0"},
            {"epsilon_per_answer": True},
            {"epsilon_per_answer": None},
            {"candidates": 1},
            {"candidates": 11},
            {"candidates": True},
            {"candidates": 2.0},
            {"candidates": "some"},
            {"note": "and more"},
        )
    ),
    *(
        {
            **SharedNoiseVotes(noise_multiplier=3.0, teachers=1, clients=5).parameters(),
            **changed,
        }
        for changed in (
            {"clients": 2},
            {"clients": 5.0},
            {"clients": 10**9},
            {"teachers": 0},
            {"teachers": 20_000},
            {"noise_multiplier": 0.05},
        )
    ),
    *(
        {**Gaussian(noise_multiplier=1.0).parameters(), **changed}
        for changed in (
            {"noise_multiplier": 0.0},
            {"noise_multiplier": 1e-30},
            {"noise_multiplier": 1e300},
            {"bound": math.inf},
            {"sensitivity": 1.0},
            {"scaling": "louder"},
            {"scaling": "none", "harden": False},
            {"harden": 1},
            {"top_k": 5},
        )
    ),
    *(
        {**NoisyVotes(noise_multiplier=1.0, teachers=5).parameters(), **changed}
        for changed in (
            {"teachers": 1},
            {"teachers": 2.5},
            {"teachers": 10**30},
            {"sensitivity": 0.1},
            {"noise_multiplier": math.nan},
        )
    ),
]


@pytest.mark.parametrize("parameters", WRONG, ids=str)
def test_what_describes_no_mechanism_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rebuilt(parameters, num_classes=10)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(
    mechanism=st.sampled_from(MECHANISMS),
    place=st.integers(0, 20),
    value=_VALUES,
)
@settings(max_examples=50)
def test_a_lie_is_refused_or_describes_a_channel(
    mechanism: Mechanism, place: int, value: object
) -> None:
    """Whatever is put in the place of a parameter, likelihoods stay numbers."""
    stated = mechanism.parameters()
    stated[list(stated)[place % len(stated)]] = value
    try:
        found = rebuilt(stated, num_classes=10)
    except ConfigError:
        return
    release = torch.tensor([3]) if isinstance(found, RandomizedResponse) else torch.ones(1, 10)
    likelihood = found.log_likelihood(release, torch.full((1, 10), 0.1))
    assert likelihood.shape == (1, 10)
    assert not likelihood.isnan().any()
