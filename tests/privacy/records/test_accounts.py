"""What a teacher spent is added up over all files that record it, and every cap holds for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import BudgetError
from dpsd.privacy.accounting import PrivacySpent, Spending
from dpsd.privacy.mechanisms import Mechanism, NoisyVotes, RandomizedResponse
from dpsd.privacy.records.accounts import Account, Accounts
from dpsd.privacy.records.ledger import reservation
from dpsd.privacy.records.teacher_budget import TeacherBudget, lacking, united
from dpsd.privacy.targets import Adjacency, Budget

DELTA = 1e-5
RESPONSE = RandomizedResponse(epsilon=1.0)
VOTES = NoisyVotes(noise_multiplier=4.0, teachers=3)


def reserve(
    budget: TeacherBudget | Accounts, run: str, *rounds: int, mechanism: Mechanism = RESPONSE
) -> None:
    for index in rounds:
        entry = reservation(
            round_index=index,
            answers=100,
            mechanism=mechanism,
            teacher="sha256:ab",
        )
        budget.reserve(entry, run=run, directory=f"runs/{run}")


def admit(accounts: Accounts, run: str, *rounds: int, cap: Budget | None = None) -> None:
    planned = [(index, 100) for index in rounds]
    accounts.admit(run=run, mechanism=RESPONSE, planned=planned, delta=DELTA, cap=cap)


@pytest.fixture
def budget(tmp_path: Path) -> TeacherBudget:
    return TeacherBudget(tmp_path / "budget.jsonl", teacher="sha256:ab")


@pytest.fixture
def other(tmp_path: Path) -> TeacherBudget:
    return TeacherBudget(tmp_path / "other.jsonl", teacher="sha256:ab")


def of(*budgets: TeacherBudget, **more: object) -> Accounts:
    return Accounts([Account(budgets, name="the teacher", **more)])  # type: ignore[arg-type]


@pytest.mark.parametrize("on_record", [True, False])
def test_a_run_beyond_the_cap_is_refused(budget: TeacherBudget, on_record: bool) -> None:
    reserve(budget, "one", 1, 2)
    cap = Budget(epsilon=4.0, delta=0, adjacency=Adjacency.ROUND)
    if on_record:
        budget.set_cap(cap)
    own = None if on_record else cap
    admit(of(budget), "new", 1, 2, cap=own)
    with pytest.raises(BudgetError, match=r"spent ε = 5 under 'round'.*cap is 4, and ε = 2 is"):
        admit(of(budget), "new", 1, 2, 3, cap=own)


def test_what_crashes_wasted_counts_when_a_run_goes_on(budget: TeacherBudget) -> None:
    cap = Budget(epsilon=3.0, delta=0, adjacency=Adjacency.ROUND)
    admit(of(budget), "one", 1, 2, 3, cap=cap)
    reserve(budget, "one", 1)
    admit(of(budget), "one", 2, 3, cap=cap)
    reserve(budget, "one", 2)  # and a crash before it was committed
    with pytest.raises(BudgetError, match="Raise the cap, or leave this run as it is"):
        admit(of(budget), "one", 2, 3, cap=cap)


def test_without_a_cap_anything_goes(budget: TeacherBudget) -> None:
    of(budget).admit(run="one", mechanism=RESPONSE, planned=[(1, 10**9)] * 100, delta=DELTA)


@pytest.mark.parametrize("capped", [0, 1])
def test_the_cap_of_each_file_holds_for_what_all_record(
    budget: TeacherBudget, other: TeacherBudget, capped: int
) -> None:
    reserve(budget, "one", 1)
    reserve(other, "two", 1)
    (budget, other)[capped].set_cap(Budget(epsilon=2.5, delta=0, adjacency=Adjacency.ROUND))
    with pytest.raises(BudgetError, match=f"ε = 2 is spent .*{(budget, other)[capped].path.name}"):
        admit(of(budget, other), "new", 1)


def test_a_run_in_two_files_counts_once_and_in_neither_alone_goes_missing(
    budget: TeacherBudget, other: TeacherBudget
) -> None:
    both = of(budget, other)
    reserve(both, "one", 1, 2)
    reserve(budget, "one", 2)  # a crash came before the second file
    assert [run.spending.exposure.round for run in both.accounts[0].runs()] == [3]
    assert [run.spending.exposure.round for run in of(other).accounts[0].runs()] == [2]
    both.catch_up(both.asked("one"), run="one", directory="runs/one")
    assert [run.spending.exposure.round for run in of(other).accounts[0].runs()] == [3]
    lines = other.path.read_bytes()
    both.catch_up(both.asked("one"), run="one", directory="runs/one")
    assert other.path.read_bytes() == lines


asked = st.lists(st.integers(1, 3), max_size=6).map(
    lambda rounds: [
        {"run": "r", "round": index, "answers": 9, "event": {}, "mean_event": {}, "time": str(at)}
        for at, index in enumerate(rounds)
    ]
)


@given(st.lists(asked, min_size=1, max_size=3))
def test_what_is_united_lacks_nothing_of_any_record_and_is_no_more_than_all(
    records: list[list[dict[str, object]]],
) -> None:
    whole = united(records)
    for record in records:
        assert not lacking(whole, record)
    assert not lacking([entry for record in records for entry in record], whole)
    again = united([whole, *records])
    assert len(again) == len(whole)
    assert not lacking(whole, again)
    assert len(lacking([], whole)) == len(whole)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=6),
    st.floats(0.5, 8),
)
def test_a_run_is_let_in_only_where_every_member_has_enough_left(
    runs: list[tuple[int, int]], epsilon: float
) -> None:
    with TemporaryDirectory() as folder:
        budgets = [
            TeacherBudget(Path(folder) / f"{member}.jsonl", teacher=f"sha256:{member}")
            for member in range(3)
        ]
        for number, (member, rounds) in enumerate(runs):
            reserve(budgets[member], f"run {number}", *range(1, rounds + 1))
        for budget in budgets:
            budget.set_cap(Budget(epsilon=epsilon, delta=0, adjacency=Adjacency.ROUND))
        together = Accounts([Account([budget], name=budget.teacher) for budget in budgets])
        most = max(sum(rounds for one, rounds in runs if one == member) for member in range(3))
        is_refused = False
        try:
            together.admit(run="new", mechanism=RESPONSE, planned=[(1, 100)], delta=0)
        except BudgetError:
            is_refused = True
        assert is_refused == (most + 1 > epsilon * (1 + 1e-6))
        assert together.most_spent(delta=0).spent(delta=0).round == pytest.approx(most)


def test_a_committee_is_charged_to_each_member_and_adds_to_what_it_was_asked_alone(
    budget: TeacherBudget, tmp_path: Path
) -> None:
    second = TeacherBudget(tmp_path / "second.jsonl", teacher="sha256:cd")
    reserve(budget, "alone", 1)
    committee = Accounts([Account([budget], name="a"), Account([second], name="b")])
    reserve(committee, "together", 1, mechanism=VOTES)
    first, other = (account.spent(delta=DELTA) for account in committee.accounts)
    for kind in Adjacency:
        assert 0 < other.under(kind) < first.under(kind)
    assert committee.most_spent(delta=DELTA).name == "a"
    history = committee.history(delta=DELTA)
    assert history is not None
    assert (history["runs"], history["accounts"]) == (2, 2)
    assert "sha256" not in str(history)
    assert "file" not in history


def test_nobody_knows_what_a_member_without_content_has_spent(budget: TeacherBudget) -> None:
    assert Accounts([Account([budget], name="a")], unknown=["b"]).history(delta=DELTA) is None


def test_two_copies_of_a_run_that_ask_the_same_count_twice(
    budget: TeacherBudget, other: TeacherBudget
) -> None:
    first, second = (
        reservation(
            round_index=1, answers=100, mechanism=RESPONSE, teacher=budget.teacher, asking=asking
        )
        | {"run": "one", "time": asking}
        for asking in ("a1", "b2")
    )
    for entry, file in ((first, budget), (first, other), (second, other)):
        file.reserve(entry, run="one", directory="runs/one")
    account = of(budget, other).accounts[0]
    assert [entry["asking"] for entry in account.asked("one")] == ["a1", "b2"]
    assert account.spent(delta=DELTA).round == pytest.approx(2.0, abs=1e-3)
    assert lacking([first], [first, second]) == [second]


def test_another_teachers_runs_count_once_they_are_said_to_be_its(
    budget: TeacherBudget, other: TeacherBudget
) -> None:
    earlier = TeacherBudget(budget.path, teacher="sha256:before")
    reserve(earlier, "before", 1, 2)
    earlier.set_cap(Budget(epsilon=4.0, delta=0, adjacency=Adjacency.ROUND))
    accounts = of(other, budget, beside=budget.path)
    ((account, found),) = accounts.uncounted()
    assert found.is_all
    assert "records 1 run against" in found.describe(delta=DELTA, adjacency=Adjacency.ROUND)
    assert "ε = 2 under 'round'" in found.describe(delta=DELTA, adjacency=Adjacency.ROUND)
    assert account.runs() == []
    accounts.count_uncounted()
    assert not accounts.uncounted()
    for again in (of(budget, beside=budget.path), of(budget)):
        assert [run.run for run in again.accounts[0].runs()] == ["before"]
        with pytest.raises(BudgetError, match="the cap is 4, and ε = 2 is spent"):
            admit(again, "new", 1, 2, 3)
    # And the other way round, should the file be put back as it was.
    reserve(budget, "after", 1)
    assert len(of(earlier).accounts[0].runs()) == 2


def test_a_file_that_was_named_may_serve_several_teachers(
    budget: TeacherBudget, other: TeacherBudget
) -> None:
    reserve(TeacherBudget(budget.path, teacher="sha256:of-another"), "another", 1)
    assert not of(budget, other, beside=other.path).uncounted()


def test_a_run_of_two_costs_counts_both(budget: TeacherBudget) -> None:
    reserve(budget, "one", 1)
    reserve(budget, "one", 1, mechanism=VOTES)
    account = of(budget).accounts[0]
    assert len(account.runs()) == 2
    whole = account.with_run("one", mechanism=RESPONSE, planned=[(2, 100)])
    assert [spending.exposure.round for spending in whole] == [1, 2]


def test_a_run_by_which_less_would_be_spent_is_an_error_of_ours(
    budget: TeacherBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An accountant that forgets, as one that rounds a weak response down to nothing did."""

    def forgetful(runs: Sequence[Spending], *, delta: float) -> PrivacySpent:
        epsilon = 1.0 if len(runs) == 1 else 0.0
        return PrivacySpent(
            delta=delta, response=1.0, round=epsilon, teacher=1.0, rdp={}, accountant=""
        )

    monkeypatch.setattr("dpsd.privacy.records.accounts.spent_together", forgetful)
    forgetful_delta = 0.123456789  # nothing is remembered of it
    reserve(budget, "one", 1)
    with pytest.raises(
        BudgetError, match=r"under 'round' .* ε = 0\.0 where a part of it costs 1\.0"
    ):
        of(budget).admit(
            run="new", mechanism=RESPONSE, planned=[(1, 100)], delta=forgetful_delta, cap=None
        )


def test_a_run_that_costs_next_to_nothing_is_let_in(budget: TeacherBudget) -> None:
    """Bounds on sums are loose by more than what such a run adds, in either direction."""
    for run, epsilon, answers in (("one", 1.26, 20_000), ("two", 1.72, 100)):
        mechanism = RandomizedResponse(epsilon=epsilon)
        entry = reservation(
            round_index=1, answers=answers, mechanism=mechanism, teacher=budget.teacher
        )
        budget.reserve(entry, run=run, directory=run)
    accounts = of(budget)
    weak = RandomizedResponse(epsilon=1e-6)
    before = accounts.accounts[0].spent(delta=DELTA).teacher
    limit = Budget(epsilon=before + 1e-3, delta=DELTA, adjacency=Adjacency.TEACHER)
    accounts.admit(run="new", mechanism=weak, planned=[(1, 1)], delta=DELTA, cap=limit)
    after = accounts.needed("new", mechanism=weak, planned=[(1, 1)], limit=limit)
    assert after < before, "this is the case in which the two bounds cross"


def test_a_cap_is_set_for_every_member_and_lifts_an_old_one_of_the_committee(
    budget: TeacherBudget, tmp_path: Path
) -> None:
    old = TeacherBudget(tmp_path / "folder.jsonl", teacher="sha256:names")
    old.set_cap(Budget(epsilon=1.0))
    second = TeacherBudget(tmp_path / "second.jsonl", teacher="sha256:cd")
    accounts = Accounts(
        [Account([one], name=one.teacher, committees=[old]) for one in (budget, second)]
    )
    assert old.path in accounts.paths
    accounts.set_cap(Budget(epsilon=3.0))
    for account in accounts.accounts:
        assert [cap.epsilon for cap, _ in account.caps()] == [3.0]
    accounts.set_cap(None, path=second.path)
    assert [len(account.caps()) for account in accounts.accounts] == [1, 0]
