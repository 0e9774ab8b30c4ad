"""Students that are taught on all sources but one, and compared on that one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dpsd.devices.execution import Execution
from dpsd.distillation.leaving_out import LeftOut, leave_out
from dpsd.distillation.objectives import Marginal, Objective, VoteShares
from dpsd.distillation.releases import Replay, RoundReleases
from dpsd.distillation.student import StudentTraining
from dpsd.privacy.answers import RawAnswers
from dpsd.privacy.mechanisms import Gaussian, Mechanism, NoisyVotes, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise

CLASSES = 3
NOISE = ReproducibleNoise(seed=11)
RESPONSE = RandomizedResponse(epsilon=3.0, noise=NOISE)
VOTES = NoisyVotes(noise_multiplier=2.0, teachers=9, noise=NOISE)
NAMES = ["noise", "mixed", "strokes", "glyphs", "generator"]
ODD = "glyphs"
PLAIN = {"noise", "strokes", ODD}


def said_of(queries: Tensor, source: Tensor) -> Tensor:
    """The class of an image is its brightest third, but the odd source has classes of its own."""
    bright = queries.float()[:, 0, :6].reshape(-1, CLASSES, 16).mean(-1).argmax(-1)
    return torch.where(source == NAMES.index(ODD), (bright + 1) % CLASSES, bright)


def released(mechanism: Mechanism, said: Callable[[Tensor, Tensor], Tensor]) -> RoundReleases:
    random = torch.Generator().manual_seed(1)
    count = 3000
    queries = torch.randint(0, 120, (count, 1, 8, 8), generator=random, dtype=torch.uint8)
    bright = torch.randint(CLASSES, (count,), generator=random)
    for number in range(CLASSES):
        queries[bright == number, :, 2 * number : 2 * number + 2] += 120
    source = torch.randint(len(NAMES), (count,), generator=random, dtype=torch.uint8)
    scores = nn.functional.one_hot(said(queries, source), CLASSES).float()
    members = getattr(mechanism, "teachers", 1)
    answers = RawAnswers.seal(
        scores.expand(members, -1, -1) if members > 1 else scores,
        batch=count,
        num_classes=CLASSES,
        scores="probabilities",
        members=members,
    )
    prior = torch.full((count, CLASSES), 1 / CLASSES).half()
    return RoundReleases(
        index=1,
        queries=queries,
        prior=prior,
        predicted=torch.zeros(count, dtype=torch.int32),
        source=source,
        release=mechanism.privatize(answers, prior.float()),
    )


def left_out(
    releases: RoundReleases,
    *,
    mechanism: Mechanism = RESPONSE,
    objective: Objective | None = None,
    is_balanced: bool = True,
    steps: int = 60,
) -> tuple[LeftOut, list[nn.Module], int]:
    """Leave out each source; returns the students, too, and the number of steps."""
    torch.manual_seed(0)
    untaught = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, CLASSES))
    students: list[nn.Module] = []
    done: list[None] = []

    def fresh() -> nn.Module:
        students.append(copy.deepcopy(untaught))
        return students[-1]

    found = leave_out(
        Replay([releases]),
        names=NAMES,
        mechanism=mechanism,
        objective=objective or Marginal(),
        training=StudentTraining(steps=steps, batch_size=64, learning_rate=0.02),
        is_balanced=is_balanced,
        fresh=fresh,
        execution=Execution.of("cpu", "float32"),
        random=torch.Generator().manual_seed(0),
        advance=lambda: done.append(None),
    )
    return found, students, len(done)


@pytest.mark.parametrize(
    ("mechanism", "objective"),
    [
        (RESPONSE, Marginal()),
        (Gaussian(noise_multiplier=0.5, noise=NOISE), Marginal()),
        (VOTES, VoteShares()),
    ],
    ids=["labels", "data", "ensemble"],
)
def test_a_source_that_is_unlike_the_others_shows(
    mechanism: Mechanism, objective: Objective
) -> None:
    releases = released(mechanism, said_of)
    informed = mechanism.informed(releases.release, releases.prior)
    is_balanced = isinstance(objective, Marginal)
    found, students, steps = left_out(
        releases, mechanism=informed, objective=objective, is_balanced=is_balanced
    )
    assert (len(students), steps) == (3, 180)
    means = {name: one.mean for name, one in found.sources.items() if one is not None}
    assert means.keys() == PLAIN  # neither blends nor what the generator made
    assert means[ODD] < 0.15
    # Half of what the others' students learn is about the odd source.
    assert min(means["noise"], means["strokes"]) > means[ODD] + 0.2
    assert found.agreement is not None
    assert found.agreement.mean == pytest.approx(sum(means.values()) / 3)
    assert found.agreement.standard_error < 0.1


def test_sources_that_are_alike_agree() -> None:
    found, _, _ = left_out(
        released(RESPONSE, lambda queries, _: said_of(queries, torch.zeros(len(queries))))
    )
    assert all(one is not None and one.mean > 0.85 for one in found.sources.values())


@pytest.mark.parametrize("changed", NAMES)
def test_a_student_never_learns_from_the_source_left_out_nor_from_blends(changed: str) -> None:
    """Other releases about the source change no bit of its student, but of each other student."""
    one = released(RESPONSE, said_of)
    is_changed = one.source == NAMES.index(changed)
    other = replace(one, release=torch.where(is_changed, (one.release + 1) % CLASSES, one.release))
    (_, before, _), (_, after, _) = left_out(one, steps=3), left_out(other, steps=3)
    for name, *students in zip(("noise", "strokes", ODD), before, after, strict=True):
        weights = [nn.utils.parameters_to_vector(each.parameters()) for each in students]
        assert weights[0].equal(weights[1]) == (changed == name or changed not in PLAIN)


def test_a_source_with_too_few_releases_has_no_estimate() -> None:
    releases = released(RESPONSE, said_of)
    is_odd = releases.source == NAMES.index(ODD)
    is_second = is_odd & (is_odd.cumsum(0) > 1)
    found, students, _ = left_out(
        replace(releases, source=releases.source.where(~is_second, NAMES.index("noise"))), steps=2
    )
    assert found.sources[ODD] is None
    assert len(students) == 2
    assert found.agreement is not None
    none, _, _ = left_out(
        replace(releases, source=torch.full_like(releases.source, NAMES.index("mixed")))
    )
    assert none == LeftOut(None, dict.fromkeys(("noise", "strokes", ODD)))
