"""A client answers each image once, from its own budget, and remembers what it released."""

from __future__ import annotations

import json
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from threading import Timer
from typing import Any

import jsonschema
import pytest
import torch

import dpsd
from dpsd.errors import BudgetError, ConfigError, DpsdError, RunError, TeacherError
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.mechanisms import rebuilt
from dpsd.federated.requests import Code, Hello, Reply
from dpsd.privacy.records.ledger import Ledger
from dpsd.runs.budgets import budget_of
from dpsd.storage.locks import exclusively

from .asking import (
    CLASSES,
    HELLO,
    NOW,
    PLAN,
    SHAPE,
    Listens,
    Shown,
    answered,
    committee_of,
    images,
    masks,
    records,
    released,
    request,
    respondent,
    teacher_of,
)


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def teacher(shown: Shown) -> dpsd.Teacher:
    return teacher_of(shown)


def test_a_greeting_says_what_the_client_offers(tmp_path: Path) -> None:
    client = respondent(tmp_path, greeted=False)
    greeting = client.greet(HELLO)
    assert greeting.code is Code.ANSWERED
    assert greeting.answers_left == PLAN.answers
    assert greeting.spent == {"response": 0, "round": 0, "teacher": 0, "delta": 1e-5}
    assert greeting.ledger == client.folder.ledger.head
    mechanism = rebuilt(greeting.mechanism, num_classes=CLASSES)
    assert mechanism.parameters() == client.mechanism.parameters()
    assert mechanism.parameters()["epsilon_per_answer"] == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize(
    "hello",
    [
        Hello(federation="f00d", shape=(3, 8, 8), num_classes=CLASSES),
        Hello(federation="f00d", shape=SHAPE, num_classes=CLASSES + 1),
        Hello(federation="", shape=SHAPE, num_classes=CLASSES),
        Hello(federation="f" * 1000, shape=SHAPE, num_classes=CLASSES),
        Hello(federation="f00d\n# Trusted", shape=SHAPE, num_classes=CLASSES),
    ],
)
def test_a_federation_about_something_else_is_refused(tmp_path: Path, hello: Hello) -> None:
    client = respondent(tmp_path, greeted=False)
    greeting = client.greet(hello)
    assert greeting.code is Code.MALFORMED
    assert not greeting.mechanism
    assert records(tmp_path) == (b"", b"")


def test_a_client_takes_part_in_one_federation(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    other = Hello(federation="beef", shape=SHAPE, num_classes=CLASSES)
    assert client.greet(other).code is Code.MALFORMED
    assert client.answer(request(1, federation="beef")).code is Code.MALFORMED
    again = respondent(tmp_path, greeted=False)
    assert again.greet(other).code is Code.MALFORMED
    assert again.answer(request(1)).code is Code.ANSWERED


def test_a_client_that_knows_its_federation_takes_part_in_that_one(tmp_path: Path) -> None:
    client = respondent(tmp_path, greeted=False, federation="beef")
    assert client.greet(HELLO).code is Code.MALFORMED
    assert records(tmp_path) == (b"", b"")
    beef = Hello(federation="beef", shape=SHAPE, num_classes=CLASSES)
    assert client.greet(beef).code is Code.ANSWERED
    with pytest.raises(RunError, match="takes part in another federation, beef"):
        respondent(tmp_path, greeted=False, federation="f00d")


def test_a_teacher_that_fails_on_noise_takes_no_part(tmp_path: Path) -> None:
    shown = Shown()
    teacher = teacher_of(shown)
    shown.fails, teacher.is_free = True, True
    with pytest.raises(TeacherError, match="asked about 64 images of noise"):
        respondent(tmp_path, teacher)
    assert not (tmp_path / "client").exists()


def test_nothing_is_answered_before_a_greeting(tmp_path: Path) -> None:
    client = respondent(tmp_path, greeted=False)
    assert client.answer(request(1)).code is Code.MALFORMED
    assert records(tmp_path) == (b"", b"")


def test_answers_are_charged_and_released(
    tmp_path: Path, teacher: dpsd.Teacher, shown: Shown
) -> None:
    client = respondent(tmp_path, teacher)
    reply = client.answer(request(1, 2, 3))
    assert reply.code is Code.ANSWERED
    assert released(reply).dtype == torch.int64
    assert all(answered(reply))
    assert reply.spent["response"] == pytest.approx(2.0, abs=1e-3)
    assert reply.ledger == client.folder.ledger.head
    assert shown.images == {row.numpy().tobytes(): 1 for row in images(1, 2, 3)}
    assert client.folder.asked() == [(1, 3)]
    assert client.certificate().events == {"response": 1, "round": 1, "teacher": 3}
    budget = budget_of(teacher, tmp_path / "budget.jsonl")
    assert budget is not None
    assert budget.accounts[0].spent(delta=1e-5).response == pytest.approx(2.0, abs=1e-3)


def test_releases_follow_the_teacher(tmp_path: Path) -> None:
    """At a large ε, nearly no release is a lie."""
    target = dpsd.Budget(epsilon=20.0, adjacency="response")
    client = respondent(tmp_path, target=target)
    reply = client.answer(request(*range(9)))
    assert released(reply).tolist() == [number % 3 for number in range(9)]


def test_a_request_that_is_sent_again_costs_nothing(
    tmp_path: Path, teacher: dpsd.Teacher, shown: Shown
) -> None:
    client = respondent(tmp_path, teacher)
    asked = request(1, 2, 3, 4, 5)
    first = client.answer(asked)
    before = records(tmp_path)
    again = respondent(tmp_path, teacher).answer(asked)
    assert released(again).equal(released(first))
    assert again.spent == first.spent
    assert records(tmp_path) == before
    assert max(shown.images.values()) == 1


def test_known_and_new_images_may_be_mixed_in_any_order(
    tmp_path: Path, teacher: dpsd.Teacher, shown: Shown
) -> None:
    client = respondent(tmp_path, teacher)
    first, mixed = client.answer(request(1, 2, 3)), client.answer(request(7, 3, 8, 1))
    assert released(mixed)[[1, 3]].equal(released(first)[[2, 0]])
    assert client.folder.asked() == [(1, 3), (2, 2)]
    assert set(shown.images.values()) == {1}


def test_a_known_image_with_other_candidates_gets_no_release(tmp_path: Path, shown: Shown) -> None:
    client = respondent(tmp_path, teacher_of(shown))
    client.answer(request(1, 2, candidates=masks("110", "011")))
    before = records(tmp_path)
    reply = client.answer(request(1, 2, candidates=masks("101", "011")))
    assert answered(reply) == [False, True]
    assert released(reply)[0] == 0
    assert records(tmp_path) == before
    assert set(shown.images.values()) == {1}


def test_all_candidates_are_the_same_as_none(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    first = client.answer(request(1, 2))
    again = client.answer(request(1, 2, candidates=masks("111", "111")))
    assert released(again).equal(released(first))


def test_releases_are_among_the_candidates(tmp_path: Path) -> None:
    chosen = masks(*["110", "011", "101"] * 3)
    reply = respondent(tmp_path).answer(request(*range(9), candidates=chosen))
    assert chosen.gather(1, released(reply).unsqueeze(-1)).all()


@pytest.mark.parametrize("mechanism", [dpsd.Gaussian(), dpsd.Gaussian(harden=False)])
def test_gradients_are_released_as_numbers(tmp_path: Path, mechanism: dpsd.Mechanism) -> None:
    client = respondent(tmp_path, mechanism=mechanism)
    first, again = client.answer(request(1, 2)), client.answer(request(2, 5))
    assert released(first).dtype == torch.float32
    assert released(first).shape == (2, CLASSES)
    assert released(again)[0].equal(released(first)[1])
    assert client.answer(request(9, candidates=masks("111"))).code is Code.MALFORMED


@pytest.mark.parametrize("mechanism", [dpsd.NoisyVotes(), dpsd.SummedGradients()])
def test_an_ensemble_within_a_client_protects_records(
    tmp_path: Path, mechanism: dpsd.Mechanism
) -> None:
    target = dpsd.Budget(epsilon=3.0, adjacency="teacher")
    client = respondent(tmp_path, committee_of(4), mechanism=mechanism, target=target)
    reply = client.answer(request(*range(10)))
    assert released(reply).shape == (10, CLASSES)
    certificate = client.certificate()
    assert 0 < certificate.spent.teacher < 3.0  # a quarter of the plan
    assert "record-level" in certificate.headline
    assert "several clients" in certificate.limits


@pytest.mark.parametrize(
    ("mechanism", "members"),
    [(dpsd.Gaussian(top_k=2), 1), (dpsd.ConfidentVotes(), 3), (dpsd.RandomizedResponse(), 3)],
)
def test_mechanisms_that_do_not_fit_are_refused_at_once(
    tmp_path: Path, mechanism: dpsd.Mechanism, members: int
) -> None:
    teacher = committee_of(members) if members > 1 else teacher_of(Shown())
    with pytest.raises(ConfigError):
        respondent(tmp_path, teacher, mechanism=mechanism)
    assert not (tmp_path / "client").exists()


def test_the_plan_limits_images_and_requests(tmp_path: Path) -> None:
    client = respondent(tmp_path, plan=AnswerPlan(rounds=2, queries=4))
    assert client.answer(request(*range(9))).code is Code.BUDGET
    assert client.answer(request(*range(6))).code is Code.ANSWERED
    assert client.greet(HELLO).answers_left == 2
    assert client.answer(request(6, 7, 8)).code is Code.BUDGET
    assert client.answer(request(6, 0)).code is Code.ANSWERED  # one of them is known
    assert client.greet(HELLO).answers_left == 0
    before = records(tmp_path)
    assert client.answer(request(7)).code is Code.BUDGET  # as both rounds are over
    assert client.answer(request(0, 1, 6)).code is Code.ANSWERED
    assert records(tmp_path) == before


@pytest.mark.parametrize("adjacency", ["response", "round", "teacher"])
def test_a_whole_plan_meets_its_target(tmp_path: Path, adjacency: Any) -> None:
    target = dpsd.Budget(epsilon=3.0, adjacency=adjacency)
    client = respondent(tmp_path, target=target, plan=AnswerPlan(rounds=3, queries=5))
    for start in (0, 5, 10):
        reply = client.answer(request(*range(start, start + 5)))
        assert reply.code is Code.ANSWERED
    assert 2.9 < reply.spent[adjacency] <= 3.0 * (1 + 1e-6)
    assert client.greet(HELLO).answers_left == 0


def test_requests_under_round_are_counted_by_the_client(tmp_path: Path) -> None:
    """A server that calls every round the first cannot have more of them."""
    target = dpsd.Budget(epsilon=3.0, adjacency="round")
    client = respondent(tmp_path, target=target, plan=AnswerPlan(rounds=3, queries=5))
    codes = [client.answer(request(number, number=1)).code for number in range(5)]
    assert codes == [Code.ANSWERED] * 3 + [Code.BUDGET] * 2
    assert client.certificate().events["round"] == 3


def test_two_federations_add_up_in_the_teachers_budget(
    tmp_path: Path, teacher: dpsd.Teacher
) -> None:
    account = budget_of(teacher, tmp_path / "budget.jsonl")
    assert respondent(tmp_path, teacher).answer(request(1)).code is Code.ANSWERED
    settings: dict[str, Any] = {"account": account, "greeted": False}
    with pytest.raises(BudgetError, match="ε = 4 under 'response'"):
        respondent(tmp_path / "second", teacher, **settings)
    assert not (tmp_path / "second/client").exists()
    more = dpsd.Budget(epsilon=4.0, adjacency="response")
    second = respondent(tmp_path / "second", teacher, cap=more, **settings)
    hello = Hello(federation="beef", shape=SHAPE, num_classes=CLASSES)
    assert second.greet(hello).code is Code.ANSWERED
    reply = second.answer(request(1, federation="beef"))
    assert reply.code is Code.ANSWERED
    assert reply.spent["response"] == pytest.approx(2.0, abs=1e-3)  # in this federation
    assert account is not None
    assert account.accounts[0].spent(delta=1e-5).response == pytest.approx(4.0, abs=1e-3)
    assert second.certificate().earlier == {
        "response": pytest.approx(2.0, abs=1e-3),
        "round": pytest.approx(2.0, abs=1e-3),
        "teacher": pytest.approx(2.0, abs=1e-3),
        "runs": 1,
        "file": "budget.jsonl",
    }


def test_a_cap_that_is_lowered_meanwhile_stops_answers(
    tmp_path: Path, teacher: dpsd.Teacher
) -> None:
    account = budget_of(teacher, tmp_path / "budget.jsonl")
    assert account is not None
    client = respondent(tmp_path, teacher, account=account)
    account.set_cap(dpsd.Budget(epsilon=1.0, adjacency="response"))
    before = records(tmp_path)
    assert client.greet(HELLO).answers_left == 0
    assert client.answer(request(1)).code is Code.BUDGET
    assert records(tmp_path) == before


@pytest.mark.parametrize(
    ("cap", "code"),
    [
        (None, Code.BUDGET),
        ("9,1e-5,round", Code.ANSWERED),
        ("9,1e-6,round", Code.BUDGET),
        ("99,1e-5,teacher", Code.BUDGET),
    ],
)
def test_only_a_cap_at_the_targets_adjacency_and_delta_makes_up_for_losses(
    tmp_path: Path, shown: Shown, cap: str | None, code: Code
) -> None:
    client = respondent(
        tmp_path,
        teacher_of(shown),
        target=dpsd.Budget(epsilon=3.0, adjacency="round"),
        plan=AnswerPlan(rounds=2, queries=5),
        cap=dpsd.Budget.of_cap(cap),
    )
    shown.fails = True
    assert client.answer(request(1)).code is Code.FAILED
    shown.fails = False
    assert client.answer(request(2)).code is Code.ANSWERED
    before = records(tmp_path)
    assert client.answer(request(3)).code is code  # the plan has two rounds, and lost one
    assert (records(tmp_path) == before) is (code is Code.BUDGET)


def test_a_lower_cap_is_enforced_beside_the_target(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"and may spend 1\. Raise the cap"):
        respondent(tmp_path, cap=dpsd.Budget(epsilon=1.0, adjacency="response"))
    assert not (tmp_path / "client").exists()


def test_the_cost_of_the_whole_plan_is_known_beforehand(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    planned = client.planned()
    for start in range(0, 40, 10):
        reply = client.answer(request(*range(start, start + 10)))
    assert reply.spent == {
        kind.value: pytest.approx(planned.under(kind)) for kind in dpsd.Adjacency
    } | {"delta": planned.delta}


def test_after_three_losses_nothing_new_is_answered_until_a_restart(
    tmp_path: Path, teacher: dpsd.Teacher, shown: Shown
) -> None:
    client = respondent(tmp_path, teacher)
    assert client.answer(request(0)).code is Code.ANSWERED
    shown.fails = True
    for number in (1, 2, 3):
        assert client.answer(request(number)).code is Code.FAILED
    shown.fails = False
    before = records(tmp_path)
    assert client.answer(request(4)) == Reply(code=Code.FAILED)
    assert isinstance(client.observer, Listens)
    assert client.observer.told[-1].startswith("failed: the answers to 3 requests were lost")
    assert records(tmp_path) == before
    assert client.answer(request(0, 1)).code is Code.ANSWERED  # what is known already
    assert respondent(tmp_path, teacher).answer(request(4)).code is Code.ANSWERED


def test_what_a_teacher_that_fails_was_asked_stays_charged(
    tmp_path: Path, teacher: dpsd.Teacher, shown: Shown
) -> None:
    client = respondent(tmp_path, teacher)
    shown.fails = True
    reply = client.answer(request(1, 2))
    assert (reply.code, reply.release, reply.spent) == (Code.FAILED, None, {})
    assert isinstance(client.observer, Listens)
    assert "withheld" in client.observer.told[-1]
    assert "patient" not in "".join(client.observer.told)
    assert client.folder.asked() == [(1, 2)]
    shown.fails = False
    again = client.answer(request(1, 2, 3))
    assert answered(again) == [False, False, True]
    # Each image is asked once, so ε under `response` is as planned all the same.
    assert client.certificate().events == {"response": 1, "round": 2, "teacher": 3}
    assert set(shown.images.values()) == {1}


def test_only_one_process_answers_at_a_time(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    before = records(tmp_path)
    with exclusively(client.folder.ledger.path):
        assert client.answer(request(1, deadline=NOW + 0.2)).code is Code.FAILED
    assert records(tmp_path) == before
    assert client.answer(request(1)).code is Code.ANSWERED


@pytest.mark.parametrize("file", ["client/ledger.jsonl", "budget.jsonl"])
def test_a_client_waits_for_records_that_are_held_for_a_moment(tmp_path: Path, file: str) -> None:
    client = respondent(tmp_path)
    with ExitStack() as held:
        held.enter_context(exclusively(tmp_path / file))
        end = Timer(0.3, held.pop_all().close)
        end.start()
        assert client.answer(request(1)).code is Code.ANSWERED
        end.join()


@pytest.mark.parametrize(
    "changed",
    [
        {"plan": AnswerPlan(rounds=5, queries=10)},
        {"target": dpsd.Budget(epsilon=2.5, adjacency="response")},
        {"mechanism": dpsd.RandomizedResponse(candidates="all")},
        {"mechanism": dpsd.Gaussian()},
    ],
)
def test_a_client_goes_on_with_what_it_began_with(tmp_path: Path, changed: dict[str, Any]) -> None:
    first = respondent(tmp_path)
    assert respondent(tmp_path).mechanism.parameters() == first.mechanism.parameters()
    with pytest.raises(RunError, match="takes part with"):
        respondent(tmp_path, **changed)


def test_a_client_needs_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client/note.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        respondent(tmp_path)


def test_a_client_that_was_cut_off_as_it_began_begins_again(tmp_path: Path) -> None:
    """A service that starts it again has nobody to empty its directory."""
    (tmp_path / "client").mkdir()
    left = tmp_path / "client/.client.toml.part"
    left.write_text("run = ")
    assert respondent(tmp_path).answer(request(1)).code is Code.ANSWERED
    assert not left.exists()


def test_an_older_copy_of_the_answers_is_refused(tmp_path: Path) -> None:
    """Otherwise images whose answers it lacks would be asked again."""
    client = respondent(tmp_path)
    client.answer(request(1))
    table = client.folder.answers.path
    old = table.read_bytes()
    client.answer(request(2))
    table.write_bytes(old)
    before = records(tmp_path)
    assert client.answer(request(2)).code is Code.FAILED
    assert records(tmp_path) == before
    for check in (client.certificate, lambda: respondent(tmp_path)):
        with pytest.raises(RunError, match="say different things of round 2"):
            check()


@pytest.mark.parametrize("kept", [1, 3, 4])
def test_a_ledger_that_was_cut_short_is_refused(kept: int, tmp_path: Path) -> None:
    client = respondent(tmp_path, account=None)
    for number in (1, 2):
        client.answer(request(number))
    ledger, rows = client.folder.ledger.path, client.folder.answers
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:kept]))
    for index in range(1 + kept // 2, 3):
        rows.forget(index)  # so that the answers fit the ledger
    stored = client.folder.certificate.read_bytes()
    assert client.answer(request(3)).code is Code.FAILED
    with pytest.raises(DpsdError, match="no crash brings about"):
        respondent(tmp_path, account=None, greeted=False)
    assert client.folder.certificate.read_bytes() == stored, "the evidence is kept"
    if kept == 4:
        client.folder.certificate.unlink()
        with pytest.raises(DpsdError, match=r"certificate\.json is lost"):
            respondent(tmp_path, account=None, greeted=False)


def test_answers_by_a_copy_of_the_directory_are_noticed(
    tmp_path: Path, teacher: dpsd.Teacher
) -> None:
    client = respondent(tmp_path, teacher)
    saved = {path: path.read_bytes() for path in (tmp_path / "client").iterdir()}
    client.answer(request(1))
    for path in (tmp_path / "client").iterdir():
        path.unlink()
    for path, content in saved.items():
        path.write_bytes(content)
    with pytest.raises(RunError, match="a copy of the directory answered"):
        respondent(tmp_path, teacher)


def test_changed_settings_are_refused(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    path = client.folder.path / "client.toml"
    path.write_text(path.read_text().replace("rounds = 4", "rounds = 400"))
    with pytest.raises(RunError, match=r"client\.toml was changed"):
        ClientFolder.open(client.folder.path)


def test_the_certificate_says_who_is_protected_from_whom(tmp_path: Path) -> None:
    client = respondent(tmp_path)
    with pytest.raises(RunError, match="nothing was asked yet"):
        client.certificate()
    client.answer(request(1, 2))
    certificate = client.certificate()
    stored = json.loads((client.folder.path / "certificate.json").read_text())
    assert stored == json.loads(certificate.to_json())
    schema = files("dpsd.privacy.records").joinpath("certificate.schema.json").read_text()
    jsonschema.validate(stored, json.loads(schema))
    assert stored["federation"] == "f00d"
    assert stored["unit"] == "the teacher's answer about one image"
    assert "The server is trusted with nothing" in stored["trust"]
    for words in ("nearly equal images", "average the noise away", "`teacher` covers all"):
        assert words in stored["does_not_promise"]
    page = certificate.to_markdown()
    assert "Federation: `f00d`" in page
    assert "Student" not in page
    assert "generator" not in page
    assert ClientFolder.open(client.folder.path).certify() == certificate


def test_noise_that_repeats_itself_is_not_private(tmp_path: Path) -> None:
    noise = dpsd.ReproducibleNoise(seed=1)
    client = respondent(tmp_path, mechanism=dpsd.RandomizedResponse(noise=noise))
    client.answer(request(1, 2))
    assert client.certificate().warning
    assert not any(entry["private"] for entry in Ledger(client.folder.ledger.path).reservations())
