"""Messages that name settings, wherever they are shown and however they travel."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpsd
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError, DpsdError, Setting, UnknownNameError

PARTS = st.lists(st.one_of(st.text(), st.from_regex(r"[a-z_]+", fullmatch=True).map(Setting)))


@given(PARTS)
def test_python_shows_the_names_as_they_are(parts: list[str]) -> None:
    assert str(DpsdError(*parts)) == "".join(parts) == DpsdError(*parts).spelled(str)


@given(PARTS)
def test_settings_alone_are_spelled_anew(parts: list[str]) -> None:
    """A value that reads like a setting's name stays what the user wrote."""
    shown = DpsdError(*parts).spelled(lambda name: f"<{name}>")
    assert shown == "".join(f"<{p}>" if isinstance(p, Setting) else p for p in parts)


@given(PARTS)
def test_an_error_comes_out_of_another_process_as_it_went_in(parts: list[str]) -> None:
    error = pickle.loads(pickle.dumps(ConfigError(*parts)))  # noqa: S301 - of our own making
    assert type(error) is ConfigError
    assert error.spelled(str.upper) == ConfigError(*parts).spelled(str.upper)


def test_an_unknown_name_does_too() -> None:
    error = pickle.loads(pickle.dumps(UnknownNameError("model", "cn", ["cnn"])))  # noqa: S301
    assert str(error) == "unknown model 'cn': did you mean 'cnn'? Known: cnn"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epsilon": -1.0}, "[epsilon] must be positive"),
        (
            {"epsilon": 1.0, "prior_temperature": 0.0},
            "[prior_temperature] must be above 0, not 0.0",
        ),
        ({"epsilon": 1.0, "candidates": 1}, "[candidates] must be"),
        ({"epsilon": 1.0, "protect": "data", "consensus": 0.5}, "[consensus] is tested on votes"),
        (
            {"epsilon": 1.0, "protect": "data", "scaling": "none", "harden": False},
            "[scaling] none needs [harden]",
        ),
        ({"epsilon": 1.0, "cap": "1,2"}, "[cap]: '1,2' is not a privacy target: delta must be"),
        ({"epsilon": 1.0, "mean": (), "input_shape": (1, 8)}, "[input_shape] has too few values"),
        ({"epsilon": 1.0, "epochz": 3}, "[epochz] is not a setting: did you mean epochs?"),
        ({"epsilon": 1.0, "xyzzy": 3}, "[xyzzy] is not a setting"),
        ({}, "[epsilon] is required"),
    ],
)
def test_a_configuration_marks_the_settings_that_it_refuses(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(dpsd.ConfigError) as caught:
        TranscriptionConfig(teacher="some/teacher", **settings)
    assert said in caught.value.spelled("[{}]".format)
    assert str(caught.value) == caught.value.spelled(str)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_together_and_each_once() -> None:
    with pytest.raises(dpsd.ConfigError) as caught:
        TranscriptionConfig(teacher="some/teacher", epsilon=1.0, rounds=0, queries=0)
    assert caught.value.spelled("[{}]".format) == (
        "[rounds] must be at least 1 and at most 10,000, not 0; "
        "[queries] must be at least 1 and at most 100,000,000, not 0"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": 2.0}, "until must be above 0 and below 1, not 2.0"),
        ({"until": "x"}, "until must be a number, not 'x'"),
        ({"rounds": 1.5}, "rounds must be a whole number, not 1.5"),
        ({"adaptive": "perhaps"}, "adaptive must be true or false, not 'perhaps'"),
        ({"augment": "spin"}, "augment must be 'none', 'shift' or 'shift-flip', not 'spin'"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number, not inf"),
        ({"value_range": (1.0, "x")}, "value_range must be a number, not 'x'"),
    ],
)
def test_a_value_that_is_out_of_range_is_refused_in_our_own_words(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(dpsd.ConfigError) as caught:
        dpsd.Recipe(**given)
    assert str(caught.value) == said


def test_no_setting_is_refused_in_the_words_of_a_library() -> None:
    for name in TranscriptionConfig.fields():
        for value in (-1e9, 1e9, object(), "no such word", float("nan"), ("x",)):
            said = ""
            try:
                TranscriptionConfig(**{"teacher": "some/teacher", "epsilon": 1.0, name: value})
            except DpsdError as error:
                said = str(error)
            assert "nput should" not in said, (name, value)
