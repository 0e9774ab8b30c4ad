"""`dpsd audit`: every claim and what was proven of it, deaf mechanisms and tails among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import Result

from dpsd.attacks.games import CAPPED, Game, worst_case
from dpsd.attacks.tails import TailGame, far_case
from dpsd.cli.console import RESULTS
from dpsd.privacy.mechanisms import Gaussian, RandomizedResponse
from dpsd.privacy.targets import Adjacency

Invoke = Callable[..., Result]


@pytest.fixture
def few_games(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the command play one game of each kind, tails at a given ε."""

    def play(epsilon: float) -> None:
        heard = worst_case(RandomizedResponse(), Adjacency.ROUND, epsilon=1.0)
        capped = worst_case(CAPPED, Adjacency.RESPONSE, epsilon=1.0)
        games: list[Game] = [heard, capped, replace(heard, is_null=True)]
        tails: list[TailGame] = [far_case(Gaussian(top_k=2), epsilon=epsilon)]
        monkeypatch.setattr("dpsd.attacks.games.standard_games", lambda **_: games)
        monkeypatch.setattr("dpsd.attacks.tails.tail_games", lambda **_: tails)

    return play


def test_every_row_says_what_it_is(
    invoke: Invoke, few_games: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RESULTS, "_width", 200)  # no name is cut or broken
    few_games(8.0)
    result = invoke("audit", "--draws", 20_000)
    assert result.exit_code == 0, result.stderr
    heard, capped, null, tail = (
        next(line for line in result.stdout.splitlines() if line.startswith(name))
        for name in ("randomized-response", "confident-votes, 50%", "null: ", "tail: gaussian")
    )
    assert "1.000" in heard
    assert heard.split()[-1] == "holds"
    assert "response" in capped
    # Of the last two there is no share: they hold, or they do not.
    assert null.split()[-3:] == ["0.000", "0.000", "holds"]
    assert tail.split()[-3:] == ["8.000", "0.000", "holds"]


def test_noise_that_runs_out_fails_and_is_said_in_json_too(
    invoke: Invoke,
    few_games: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    assert_error: Callable[[Result, int, str], None],
) -> None:
    few_games(8.0)
    monkeypatch.setattr(TailGame, "impossible", lambda self, world, draws: draws // 100)
    result = invoke("audit", "--draws", 1_000, "--json")
    assert_error(result, 1, "1 of 4 claims are false; the first is the claim of tail: gaussian")
    *_, tail = json.loads(result.stdout)
    assert (tail["lower_bound"], tail["holds"]) == ("infinity", False)
    assert "∞" in invoke("audit", "--draws", 1_000).stdout


def test_help_says_what_the_rows_are(invoke: Invoke) -> None:
    text = invoke("audit", "--help").stdout
    assert all(word in text for word in ('"null"', '"tail"', "1e-6"))
