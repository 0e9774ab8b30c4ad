"""A client shows its operator whether its server is there, and what it spent and may spend."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.federated.client.asking import TARGET, Shown, request, respondent, teacher_of

import dpsd
from dpsd.cli.attending import ClientObserver
from dpsd.cli.console import STATUS
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.standing import Standing
from dpsd.federated.requests import Code
from dpsd.runs.budgets import budget_of
from dpsd.teachers.silence import silenced


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_lines_say_when_the_server_is_there_and_when_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = ClientObserver()
    client = respondent(tmp_path, observer=observer)
    with observer.attending("hub:443", lambda: Standing.of(client)):
        assert not shown(capsys), "nothing is known yet"
        observer.connected(True)
        said = shown(capsys)
        assert said.startswith("connected to hub:443; 0 rounds answered; ε = 0 spent under")
        assert said.endswith("of the limit ε = 2 under 'response', 2 is left; 40 images left")
        assert client.answer(request(1, 2, 3)).code is Code.ANSWERED
        assert shown(capsys).startswith("round 1: 3 images answered, and 0 known; ε = 2 is spent")
        observer.connected(False)
        said = shown(capsys)
        assert said.startswith("waiting for the server at hub:443; 1 round answered, the last at ")
        assert said.endswith(
            "ε = 2 spent under 'response' at δ = 1e-05; further images stay within the limit ε = 2 "
            "under 'response'; 37 images left"
        )
        assert client.answer(request(*range(4, 21))).code is Code.ANSWERED
        assert client.answer(request(*range(21, 41), number=2)).code is Code.ANSWERED
        assert Standing.of(client).describe().endswith("0 is left; 0 images left")


def test_the_operator_is_told_why_an_answer_failed_even_quietly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = ClientObserver(quiet=True)
    client = respondent(tmp_path, observer=observer)
    with observer.attending("hub:443", lambda: Standing.of(client)):
        observer.connected(True)
        assert client.answer(request(1, 2)).code is Code.ANSWERED
        assert not shown(capsys)
        client.teacher.fingerprint = "sha256:other"
        client.folder.answers.path.unlink()
        assert client.answer(request(3)).code is Code.FAILED
        assert "warning: failed: " in shown(capsys)


def test_lines_are_shown_while_the_teacher_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    observer = ClientObserver()
    client = respondent(tmp_path, observer=observer)
    with observer.attending("hub:443", lambda: Standing.of(client)), silenced():
        observer.connected(False)
        observer.warn("something is odd")
    said = shown(capfd)
    assert said.startswith("waiting for the server at hub:443; 0 rounds answered")
    assert said.endswith("warning: something is odd")


def test_in_a_terminal_one_line_follows_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STATUS, "_force_terminal", True)
    monkeypatch.setattr(STATUS, "_file", screen := io.StringIO())
    observer = ClientObserver()
    client = respondent(tmp_path, observer=observer)
    with observer.attending("hub:443", lambda: Standing.of(client)):
        assert observer._line is not None
        texts = []
        for act in (
            lambda: observer.connected(True),
            lambda: client.answer(request(1, 2)),
            lambda: observer.connected(False),
        ):
            act()
            texts.append(str(observer._line.status))
    assert [text.partition(";")[0] for text in texts] == [
        *["connected to hub:443"] * 2,
        "waiting for the server at hub:443",
    ]
    assert "1 round answered" in texts[1]
    assert "round 1: 2 images answered" in screen.getvalue()
    assert observer._line is None, "the line goes away with the client"


def test_a_client_that_has_answered_everything_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = ClientObserver()
    client = respondent(tmp_path, observer=observer, plan=AnswerPlan(rounds=1, queries=2))
    assert client.answer(request(1, 2)).code is Code.ANSWERED
    with observer.attending("hub:443", lambda: Standing.of(client)):
        observer.connected(False)
    said = shown(capsys)
    assert "nothing more may be answered, and Ctrl-C ends this client; 1 round" in said
    assert "waiting" not in said


def test_what_the_teacher_spent_elsewhere_counts_against_the_cap(tmp_path: Path) -> None:
    teacher = teacher_of(Shown())
    cap = dpsd.Budget(epsilon=20.0, delta=1e-6, adjacency="round")
    target = dpsd.Budget(epsilon=25.0, delta=1e-6, adjacency="response")
    account = budget_of(teacher, tmp_path / "budget.jsonl")
    assert account is not None
    shared: dict[str, Any] = {"account": account, "cap": cap}
    for place in ("here", "elsewhere"):
        client = respondent(tmp_path / place, teacher, **shared)
        assert client.answer(request(1, 2)).code is Code.ANSWERED
    standing = Standing.of(client)
    assert standing.spent == pytest.approx(2.0, abs=1e-3)
    assert (standing.limit, standing.target) == (TARGET, TARGET), "nothing is left of the target"
    client.allowance = replace(client.allowance, target=target)
    standing = Standing.of(client)
    assert standing.limit == cap
    assert standing.limit_left == pytest.approx(16.0, abs=1e-3)
    assert "of the limit ε = 20 under 'round', " in standing.describe()
    recorded = dpsd.Budget(epsilon=5.0, delta=1e-5, adjacency="round")
    account.set_cap(recorded)
    standing = Standing.of(client)
    assert standing.limit == recorded
    assert standing.limit_left == pytest.approx(1.0, abs=1e-3)
    assert "of the limit ε = 5 under 'round' at δ = 1e-05, " in standing.describe()
    client.allowance = replace(client.allowance, account=None)  # then its own spending alone counts
    assert Standing.of(client).limit_left == pytest.approx(18.0, abs=1e-3)
