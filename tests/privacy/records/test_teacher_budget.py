"""A teacher's runs add up, and a cap holds for all of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsd.errors import BudgetError, RunError
from dpsd.privacy.accounting import Spending, pld_epsilon, rdp_epsilon, spent, spent_together
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.records.ledger import reservation
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.privacy.targets import Adjacency, Budget, Exposure

DELTA = 1e-5
RESPONSE = RandomizedResponse(epsilon=1.0)
QUIET = Gaussian(noise_multiplier=8.0)


@pytest.fixture
def budget(tmp_path: Path) -> TeacherBudget:
    return TeacherBudget(tmp_path / "budget.jsonl", teacher="sha256:ab")


def reserve(
    budget: TeacherBudget,
    run: str,
    *rounds: int,
    answers: int = 100,
    mechanism: Mechanism = RESPONSE,
) -> None:
    for index in rounds:
        entry = reservation(
            round_index=index,
            answers=answers,
            mechanism=mechanism,
            teacher="sha256:ab",
        )
        budget.reserve(entry, run=run, directory=f"runs/{run}")


def spending(mechanism: Mechanism, *answers: int) -> Spending:
    return Spending(
        event=mechanism.event(),
        mean_event=mechanism.mean_event(),
        exposure=Exposure.of_rounds(answers),
    )


def test_a_teacher_that_was_never_asked_has_spent_nothing(budget: TeacherBudget) -> None:
    assert budget.runs() == []
    assert budget.cap() is None
    assert {budget.spent(delta=DELTA).under(kind) for kind in Adjacency} == {0.0}


def test_runs_add_up_under_every_adjacency(budget: TeacherBudget) -> None:
    reserve(budget, "one", 1, 2)
    reserve(budget, "other", 1, 1)  # interrupted, and asked again
    one, other = budget.runs()
    assert one.spending.exposure == Exposure(response=1, round=2, teacher=200)
    assert other.spending.exposure == Exposure(response=2, round=2, teacher=200)
    together = Exposure(response=3, round=4, teacher=400)
    assert budget.spent(delta=DELTA) == spent(RESPONSE.event(), together, delta=DELTA)


def test_other_teachers_in_the_file_do_not_count(budget: TeacherBudget) -> None:
    other = TeacherBudget(budget.path, teacher="sha256:cd")
    reserve(other, "other", 1, 2, 3)
    other.set_cap(Budget(epsilon=1.0))
    reserve(budget, "one", 1)
    assert [run.run for run in budget.runs()] == ["one"]
    assert budget.cap() is None


def test_the_latest_cap_holds_until_it_is_lifted(budget: TeacherBudget) -> None:
    for epsilon in (2.0, 5.0):
        budget.set_cap(Budget(epsilon=epsilon, delta=1e-6, adjacency=Adjacency.TEACHER))
    assert budget.cap() == Budget(epsilon=5.0, delta=1e-6, adjacency=Adjacency.TEACHER)
    budget.set_cap(None)
    assert budget.cap() is None


def test_reproducible_noise_is_remembered(budget: TeacherBudget) -> None:
    reserve(budget, "one", 1)
    reserve(budget, "seeded", 1, mechanism=RESPONSE.with_noise(ReproducibleNoise(seed=1)))
    assert [run.private for run in budget.runs()] == [True, False]


def test_a_changed_budget_is_named(budget: TeacherBudget) -> None:
    reserve(budget, "one", 1, 2)
    budget.path.write_text(budget.path.read_text().replace('"answers": 100', '"answers": 1', 1))
    with pytest.raises(RunError, match=r"budget .*, line 2: does not follow line 1"):
        budget.runs()


def test_a_budget_of_another_version_is_refused(budget: TeacherBudget) -> None:
    reserve(budget, "one", 1)
    line = json.loads(budget.path.read_text()) | {"version": 2}
    budget.path.write_text(json.dumps(line) + "\n")
    with pytest.raises(RunError, match="line 1: of version 2; this dpsd reads 1"):
        budget.cap()


def test_gaussians_compose_as_one(budget: TeacherBudget) -> None:
    """Two with σ and σ' are one with 1/σ² + 1/σ'² signal."""
    one, other = Gaussian(noise_multiplier=6.0), Gaussian(noise_multiplier=8.0)
    together = spent_together([spending(one, 5), spending(other, 5)], delta=DELTA)
    combined = dp_accounting.GaussianDpEvent(1 / math.hypot(2 / 6, 2 / 8))
    assert together.round == pytest.approx(pld_epsilon(combined, count=1, delta=DELTA))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.2, 3), st.integers(1, 4)), min_size=1, max_size=4)
)
def test_composed_epsilon_is_no_less_than_any_part_and_no_more_than_their_sum(
    runs: list[tuple[bool, float, int]],
) -> None:
    spendings = [
        spending(
            RandomizedResponse(epsilon=level)
            if is_response
            else Gaussian(noise_multiplier=3 / level),
            *[10] * rounds,
        )
        for is_response, level, rounds in runs
    ]
    together = spent_together(spendings, delta=DELTA)
    alone = [spent_together([one], delta=DELTA) for one in spendings]
    # Basic composition at a share of δ each, which is what always holds.
    shared = [spent_together([one], delta=DELTA / len(spendings)) for one in spendings]
    for kind in Adjacency:
        assert together.under(kind) >= max(one.under(kind) for one in alone) * (1 - 1e-6)
        assert together.under(kind) <= sum(one.under(kind) for one in shared) * (1 + 1e-6)


def test_pure_epsilons_add_up_at_no_delta() -> None:
    both = [spending(RESPONSE, 10, 10), spending(RandomizedResponse(epsilon=0.5), 10)]
    assert spent_together(both, delta=0).round == pytest.approx(2.5)
    assert spent_together([*both, spending(QUIET, 10)], delta=0).round == math.inf


def test_rdp_is_looser_for_one_kind() -> None:
    for mechanism in (RESPONSE, QUIET):
        event = mechanism.event()
        assert rdp_epsilon(event, count=9, delta=DELTA) >= pld_epsilon(event, count=9, delta=DELTA)


@pytest.mark.parametrize(
    "text", ["", "three", "1,2,round", "1,1e-5,record", "1,1e-5,round,5", "nan"]
)
def test_a_cap_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(BudgetError):
        Budget.parse(text)


def test_a_cap_is_written_as_it_is_read() -> None:
    cap = Budget(epsilon=8.0, delta=1e-6, adjacency=Adjacency.TEACHER)
    assert Budget.parse(str(cap)) == cap
    assert Budget.parse("8") == Budget(epsilon=8.0)
