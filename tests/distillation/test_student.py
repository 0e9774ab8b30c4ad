"""Training the student on releases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.objectives import DKD, Marginal, Objective
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining, fit_student, one_cycle
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise

CLASSES = 3
EXECUTION = Execution.of("cpu", "float32")
NOISE = ReproducibleNoise(seed=11)
RESPONSE = RandomizedResponse(epsilon=2.0, noise=NOISE)


def teacher_classes(queries: Tensor) -> Tensor:
    """The brightest third of an image's rows."""
    return queries.float()[:, 0, :6].reshape(-1, 3, 16).mean(-1).argmax(-1)


def released(
    mechanism: Mechanism, *, count: int = 600, index: int = 1, prior: Tensor | None = None
) -> RoundReleases:
    random = torch.Generator().manual_seed(index)
    queries = torch.randint(0, 256, (count, 1, 8, 8), generator=random, dtype=torch.uint8)
    queries[:, :, :6] //= 4
    bright = torch.randint(CLASSES, (count,), generator=random)
    for number in range(CLASSES):
        queries[bright == number, :, 2 * number : 2 * number + 2] += 120
    flat = torch.full((CLASSES,), 1 / CLASSES) if prior is None else prior
    priors = flat.expand(count, -1).half()
    answers = RawAnswers.seal(
        nn.functional.one_hot(teacher_classes(queries), CLASSES),
        batch=count,
        num_classes=CLASSES,
        scores="probabilities",
    )
    return RoundReleases(
        index=index,
        queries=queries,
        prior=priors,
        predicted=torch.zeros(count, dtype=torch.int32),
        source=torch.zeros(count, dtype=torch.uint8),
        release=mechanism.privatize(answers, priors.float()),
    )


def new_student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, CLASSES))


def fit(
    student: nn.Module,
    replay: Replay,
    *,
    mechanism: Mechanism = RESPONSE,
    objective: Objective | None = None,
    epochs: float = 6,
    seed: int = 0,
) -> tuple[float, int]:
    steps = []
    training = StudentTraining(epochs=epochs, replay=1.0, batch_size=32, learning_rate=0.02)
    loss = fit_student(
        student,
        replay,
        mechanism=mechanism,
        objective=objective or Marginal(),
        training=training,
        execution=EXECUTION,
        rows=training.rows(replay, torch.Generator().manual_seed(seed)),
        random=torch.Generator().manual_seed(seed),
        advance=lambda: steps.append(1),
    )
    return loss, len(steps)


@pytest.mark.parametrize(
    "mechanism", [RESPONSE, Gaussian(noise_multiplier=0.5, noise=NOISE)], ids=["rr", "gaussian"]
)
@pytest.mark.parametrize("objective", [Marginal(), DKD()], ids=["marginal", "dkd"])
def test_the_student_learns_what_the_teacher_knows(
    mechanism: Mechanism, objective: Objective
) -> None:
    student = new_student()
    replay = Replay([released(mechanism)])
    first, _ = fit(student, replay, mechanism=mechanism, objective=objective, epochs=0.1)
    last, _ = fit(student, replay, mechanism=mechanism, objective=objective)
    assert last < first
    fresh = released(mechanism, index=2).queries
    agreement = (EXECUTION.predict(student, fresh).argmax(-1) == teacher_classes(fresh)).float()
    assert float(agreement.mean()) > 0.85  # a third by chance; a release lies every fifth time


def rows_of(
    *counts: int, epochs: float = 1.0, replay: float = 1.0, batch_size: int = 2, seed: int = 0
) -> Tensor:
    history = Replay([released(RESPONSE, count=count, index=i) for i, count in enumerate(counts)])
    training = StudentTraining(epochs=epochs, replay=replay, batch_size=batch_size)
    return training.rows(history, torch.Generator().manual_seed(seed))


def test_new_releases_are_read_in_every_pass() -> None:
    rows = rows_of(10, 6, epochs=3.0, replay=0.0)
    assert torch.bincount(rows, minlength=16).tolist() == [0] * 10 + [3] * 6


def test_a_fraction_of_a_pass_reads_a_fraction() -> None:
    rows = rows_of(10, 8, epochs=1.5, replay=0.0)
    assert sorted(torch.bincount(rows)[10:].tolist()) == [1] * 4 + [2] * 4


@pytest.mark.parametrize(("replay", "earlier"), [(0.0, 0), (0.5, 4), (1.0, 8), (9.0, 20)])
def test_earlier_releases_are_read_again_without_repetition(replay: float, earlier: int) -> None:
    rows = rows_of(12, 8, 8, replay=replay)
    counts = torch.bincount(rows, minlength=28)
    assert int(counts[:20].sum()) == earlier
    assert counts.max() == 1
    assert counts[20:].tolist() == [1] * 8


def test_all_earlier_rounds_are_drawn_from() -> None:
    rows = rows_of(200, 200, 200)
    assert torch.bincount(rows // 200, minlength=3).min() > 50


def test_rows_come_in_whole_batches() -> None:
    assert len(rows_of(100, replay=0.0, batch_size=32)) == 96
    assert len(rows_of(20, replay=0.0, batch_size=32)) == 20  # or in one that is all there is


def test_there_is_always_something_to_learn_from() -> None:
    assert len(rows_of(10, epochs=0.001)) == 2


def test_the_rows_follow_the_seed() -> None:
    assert rows_of(50).equal(rows_of(50))
    assert not rows_of(50).equal(rows_of(50, seed=1))


def test_the_student_sees_the_rows_it_is_given() -> None:
    replay = Replay([released(RESPONSE, count=64, index=index) for index in (1, 2, 3)])
    seen = []
    student = new_student()
    student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    _, steps = fit(student, replay, epochs=1)
    assert steps == len(seen) == 4
    shown = torch.cat(seen).mul(255).round().to(torch.uint8).flatten(1)
    assert set(map(tuple, replay.rounds[2].queries.flatten(1).tolist())) <= set(
        map(tuple, shown.tolist())
    )


def test_training_is_reproducible_bit_for_bit() -> None:
    replay = Replay([released(RESPONSE)])
    students = []
    for global_seed in (1, 2):
        student = new_student()
        torch.manual_seed(global_seed)  # nothing is drawn from the global generator
        fit(student, replay, epochs=1)
        students.append(student.state_dict())
    assert all(students[0][name].equal(students[1][name]) for name in students[0])


def test_the_seed_orders_the_rows() -> None:
    replay = Replay([released(RESPONSE)])
    one, other = new_student(), new_student()
    fit(one, replay, epochs=1, seed=1)
    fit(other, replay, epochs=1, seed=2)
    assert not one.get_parameter("2.weight").equal(other.get_parameter("2.weight"))


def test_batch_normalisation_learns_in_train_mode_and_judges_in_eval_mode() -> None:
    student = new_student().eval()
    modes = []
    student.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    fit(student, Replay([released(RESPONSE)]), epochs=1)
    assert set(modes) == {True}
    assert not student.training
    before = student.get_buffer("1.running_mean").clone()
    assert before.abs().sum() > 0
    EXECUTION.predict(student, released(RESPONSE, index=9).queries)
    assert student.get_buffer("1.running_mean").equal(before)


@pytest.mark.parametrize("was_training", [True, False])
def test_predicting_leaves_the_mode_as_it_was(was_training: bool) -> None:
    student = new_student().train(was_training)
    EXECUTION.predict(student, torch.zeros((4, 1, 8, 8), dtype=torch.uint8))
    assert student.training == was_training


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    peak = rates.index(max(rates))
    assert max(rates) == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] < 0.1
    assert rates[-1] < 0.01


def overlapping(classes: Tensor, *, seed: int) -> RoundReleases:
    """Answers of two classes that differ by less than the images of either do."""
    random = torch.Generator().manual_seed(seed)
    light = 128 + 20 * (2 * classes - 1) + 25 * torch.randn(classes.shape, generator=random)
    prior = torch.full((len(classes), 2), 0.5).half()
    mechanism = RandomizedResponse(epsilon=2.0, noise=ReproducibleNoise(seed=seed))
    answers = RawAnswers.seal(
        nn.functional.one_hot(classes, 2),
        batch=len(classes),
        num_classes=2,
        scores="probabilities",
    )
    return RoundReleases(
        index=1,
        queries=light.clamp(0, 255).byte().view(-1, 1, 1, 1).expand(-1, 1, 4, 4),
        prior=prior,
        predicted=torch.zeros(len(classes), dtype=torch.int32),
        source=torch.zeros(len(classes), dtype=torch.uint8),
        release=mechanism.privatize(answers, prior.float()),
    )


def recalls(shares: list[float] | None) -> list[float]:
    """How much of either class a linear student finds that learned from 95% of one."""
    rare = (torch.arange(2000) % 20 == 0).long()
    replay = Replay()
    replay.append(overlapping(rare, seed=1), shares=shares)
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))
    fit(student, replay)
    classes = torch.arange(2000) % 2
    found = EXECUTION.predict(student, overlapping(classes, seed=2).queries).argmax(-1)
    return [float((found[classes == number] == number).float().mean()) for number in (0, 1)]


def test_shares_of_the_classes_make_the_student_fair_to_rare_ones() -> None:
    unfair, fair = recalls(None), recalls([0.95, 0.05])
    assert unfair[1] < 0.35
    assert min(fair) > 0.65
    assert abs(fair[0] - fair[1]) < 0.2


def test_rare_classes_are_made_up_for_only_as_far_as_answers_tell() -> None:
    def smallest(*worths: float) -> float:
        replay = Replay()
        for worth in worths:
            replay.append(released(RESPONSE), shares=[0.8, 0.15, 0.05], worth=worth)
        (batch,) = replay.batches(torch.arange(2), batch_size=2)
        torch.testing.assert_close(batch.shares.sum(-1), torch.ones(2))
        return float(batch.shares[:, 2].max())

    assert smallest(0.0) == pytest.approx(1 / 3, abs=0.001)
    assert smallest(math.inf) == pytest.approx(0.05)
    assert smallest(500.0) > smallest(5_000.0) > 0.05
    # A later round tells something of an earlier one.
    assert smallest(500.0, 4_500.0) == pytest.approx(smallest(5_000.0))


def test_equal_shares_change_nothing() -> None:
    students = []
    releases = released(RESPONSE)
    for shares in (None, [0.2, 0.2, 0.2]):  # a constant in a row of logits
        replay = Replay()
        replay.append(releases, shares=shares)
        student = new_student()
        fit(student, replay, epochs=1)
        students.append(student.get_parameter("2.weight"))
    torch.testing.assert_close(*students, rtol=1e-3, atol=1e-4)


def test_a_class_that_no_answer_showed_is_not_impossible() -> None:
    replay = Replay()
    replay.append(released(RESPONSE), shares=[1.0, 0.0, 0.0])
    student = new_student()
    loss, _ = fit(student, replay, epochs=1)
    assert math.isfinite(loss)
    assert all(tensor.isfinite().all() for tensor in student.state_dict().values())
