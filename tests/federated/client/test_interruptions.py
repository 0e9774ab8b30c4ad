"""Whatever is sent and whenever a client dies, an image is asked once and everything is charged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpsd.federated.client.answers import AnswerTable
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.requests import Code, Reply, Request
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.teachers import CallableTeacher

from .asking import (
    HELLO,
    NOW,
    Shown,
    answered,
    masks,
    records,
    released,
    request,
    respondent,
    teacher_of,
)

#: What an answer consists of; a crash may come before and after each.
STEPS = [
    (AnswerTable, "begin"),
    (AnswerTable, "forget"),
    (AnswerTable, "store"),
    (Ledger, "reserve"),
    (Ledger, "commit"),
    (TeacherBudget, "reserve"),
    (CallableTeacher, "ask"),
    (Certificate, "save"),
]
#: At least as many as an answer has, before and after.
MOST_MOMENTS = 20


class Crash(BaseException):
    """The end of a process, as far as it can be had without ending it."""


@contextmanager
def dying(at: int) -> Iterator[list[str]]:
    """Crash at this moment of what is done meanwhile; yields the moments that came."""
    moments: list[str] = []

    def passed(name: str) -> None:
        moments.append(name)
        if len(moments) == at:
            raise Crash(name)

    def guarded(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            passed(f"before {name}")
            result = original(*arguments, **options)
            passed(f"after {name}")
            return result

        return call

    patches = [
        patch.object(owner, name, guarded(getattr(owner, name), name)) for owner, name in STEPS
    ]
    for one in patches:
        one.start()
    try:
        yield moments
    finally:
        for one in patches:
            one.stop()


def answers_in_budget(folder: Path) -> int:
    """The number of answers that the budget of a client in a folder records."""
    budget = TeacherBudget(folder / "budget.jsonl", teacher="callable:thirds")
    return sum(run.spending.exposure.teacher for run in budget.runs())


class ClientMachine(RuleBasedStateMachine):
    """A server that sends what it likes to a client that may die at any moment."""

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.shown = Shown()
        self.teacher = teacher_of(self.shown)
        self.got: dict[int, tuple[str | None, int]] = {}
        self.known: set[int] = set()
        self.is_clean = True
        self.crashes = 0  # since the client was started
        self.client = self.started()

    def started(self) -> Respondent:
        return respondent(self.folder, self.teacher, plan=AnswerPlan(rounds=5, queries=4))

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.cleanup()

    def request(self, numbers: list[int], mask: str | None, number: int) -> Request:
        candidates = None if mask is None else masks(*[mask] * len(numbers))
        return request(*numbers, candidates=candidates, number=number)

    def receive(self, numbers: list[int], mask: str | None, reply: Reply) -> None:
        """What a server has got about an image never changes."""
        if reply.code is not Code.ANSWERED:
            assert reply == Reply(code=reply.code)
            return
        rows = zip(numbers, answered(reply), released(reply).tolist(), strict=True)
        for number, is_answered, release in rows:
            if is_answered:
                assert self.got.setdefault(number, (mask, release)) == (mask, release)

    asked = st.lists(st.integers(0, 24), min_size=1, max_size=6, unique=True)
    candidates = st.sampled_from([None, "110", "011"])

    @rule(numbers=asked, mask=candidates, number=st.integers(1, 3))
    def ask(self, numbers: list[int], mask: str | None, number: int) -> None:
        before = records(self.folder)
        reply = self.client.answer(self.request(numbers, mask, number))
        # Without a restart, a client that has lost three answers stops.
        stopped = {Code.FAILED} if self.crashes >= 3 else set()
        assert reply.code in {Code.ANSWERED, Code.BUDGET} | stopped
        if self.is_clean and (reply.code is not Code.ANSWERED or set(numbers) <= self.known):
            assert records(self.folder) == before
        if reply.code is Code.ANSWERED:
            self.known |= set(numbers)
        self.is_clean = True
        self.receive(numbers, mask, reply)

    @rule(
        numbers=asked,
        mask=candidates,
        at=st.integers(1, MOST_MOMENTS),
        restarts=st.booleans(),
    )
    def ask_and_die(self, numbers: list[int], mask: str | None, at: int, restarts: bool) -> None:
        with dying(at):
            try:
                reply = self.client.answer(self.request(numbers, mask, 1))
            except Crash:
                self.is_clean = False
                self.crashes += 1
            else:
                self.receive(numbers, mask, reply)
        if restarts:
            self.restart()

    @rule()
    def restart(self) -> None:
        self.client = self.started()
        self.is_clean = True
        self.crashes = 0

    @rule(numbers=asked)
    def ask_late(self, numbers: list[int]) -> None:
        before = records(self.folder)
        late = request(*numbers, deadline=NOW - 1)
        assert self.client.answer(late) == Reply(code=Code.LATE)
        assert records(self.folder) == before

    @invariant()
    def no_image_was_asked_twice(self) -> None:
        if hasattr(self, "shown"):
            assert max(self.shown.images.values(), default=0) <= 1

    @invariant()
    def everything_is_charged(self) -> None:
        if not hasattr(self, "client"):
            return
        asked = sum(self.shown.images.values())
        in_ledger = sum(answers for _, answers in self.client.folder.asked())
        in_budget = answers_in_budget(self.folder)
        assert in_ledger >= in_budget >= asked >= len(self.got)
        assert in_ledger <= 20
        if self.is_clean:
            assert in_ledger == in_budget
        if in_ledger:
            assert self.client.folder.ledger.exposure().response == 1


TestClients = ClientMachine.TestCase
TestClients.settings = settings(max_examples=8, stateful_step_count=10, deadline=None)


def test_every_moment_of_an_answer_is_survived(tmp_path: Path) -> None:
    """One crash at each moment, so that none depends on what Hypothesis draws."""
    client = respondent(tmp_path / "peace", greeted=False)
    with dying(0) as moments:
        client.greet(HELLO)
        assert client.answer(request(1, 2)).code is Code.ANSWERED
    assert 10 < len(moments) <= MOST_MOMENTS
    for at in range(1, len(moments) + 1):
        shown, folder = Shown(), tmp_path / str(at)
        client = respondent(folder, teacher_of(shown), greeted=False)
        with dying(at), suppress(Crash):
            client.greet(HELLO)
            client.answer(request(1, 2))
        again = respondent(folder, teacher_of(shown))
        before = records(folder)
        charged = sum(answers for _, answers in again.folder.asked())
        assert charged == answers_in_budget(folder) >= sum(shown.images.values())
        rounds = again.folder.answers.rounds()
        assert again.folder.committed() == {at for at, rows in rounds.items() if rows.released}
        reply = again.answer(request(1, 2))
        assert reply.code is Code.ANSWERED
        assert all(answered(reply)) or (charged == 2 and not any(answered(reply)))
        assert records(folder) == before or not charged
        assert max(shown.images.values(), default=0) <= 1
        assert again.certificate().events["response"] == 1
