"""Federations in memory: who drops out, comes late, lies or runs out, and a killed server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.federated.server.hospitals import (
    CLASSES,
    SETTINGS,
    Heard,
    Hospital,
    Network,
    accuracy,
    go_on,
    hospitals,
    in_round,
    run,
)
from torch import Tensor, nn

from dpsd import ConfigError, Gaussian, RandomizedResponse, ReproducibleNoise, RunError
from dpsd.config.federation import FederationConfig
from dpsd.federated.exchange import Member
from dpsd.federated.requests import Code, Reply, Request
from dpsd.federated.server import asking, federation
from dpsd.federated.server.starting import begin, begin_again, execute
from dpsd.runs.directory import RunDirectory
from dpsd.runs.federation import FederationDirectory
from dpsd.runs.journal import Journal


def codes(made: Any, key: str) -> list[str]:
    return [line["clients"].get(key, {}).get("code", "-") for line in made.metrics]


def test_a_student_learns_what_clients_of_several_mechanisms_know(tmp_path: Path) -> None:
    noisy = Gaussian(noise_multiplier=0.7, noise=ReproducibleNoise(seed=9))
    several = [*hospitals(2), Hospital("2", mechanism=noisy)]
    made = run(several, tmp_path / "run", queries=600, epochs=3.0)
    assert accuracy(made.student) > 0.8
    stored = load_file(made.directory.releases_path(2))
    assert stored["release"].shape == (600, 3, CLASSES)
    assert stored["release"].dtype == torch.float16
    assert [client.mechanism["name"] for client in made.directory.clients()] == [
        *["randomized-response"] * 2,
        "gaussian",
    ]


def test_no_client_is_asked_about_an_image_twice(tmp_path: Path) -> None:
    several = hospitals(2)
    run(several, tmp_path / "run")
    for one in several:
        shown = Counter(
            image.numpy().tobytes() for request in one.asked for image in request.images
        )
        assert set(shown.values()) == {1}
        assert len(shown) == 3 * 96


def test_candidates_are_asked_of_randomised_response_alone(tmp_path: Path) -> None:
    noisy = Gaussian(noise_multiplier=0.7, noise=ReproducibleNoise(seed=9))
    pairs = RandomizedResponse(epsilon=4.0, candidates=2)
    several = [*hospitals(1), *hospitals(1, key="1", mechanism=pairs)]
    several.append(Hospital("2", mechanism=noisy))
    run(several, tmp_path / "run")
    assert several[0].asked[0].candidates is None, "nothing is known in the first round"
    for request in several[1].asked:
        assert request.candidates is not None
        assert (request.candidates.sum(-1) == 2).all()
    assert all(request.candidates is None for request in several[2].asked)


def test_a_round_goes_on_without_a_client_that_drops_out(tmp_path: Path) -> None:
    several, heard = hospitals(3), Heard()
    several[1].spoil = in_round(2, None)
    made = run(several, tmp_path / "run", observer=heard)
    assert codes(made, "1") == ["answered", "silent", "answered"]
    assert "round 2 goes on without hospital-1: silent" in heard.notices
    assert not load_file(made.directory.releases_path(2))["release"][:, 1].any()
    assert several[1].greeted == 2, "it is greeted again, as it may have been started anew"


def test_too_few_clients_are_asked_again_about_the_same_images(tmp_path: Path) -> None:
    several = hospitals(2)
    times = iter([None, None])
    several[1].spoil = lambda request, own: next(times, own) if request.number == 2 else own
    made = run(several, tmp_path / "run", at_least=2, patience=30.0)
    assert codes(made, "1") == ["answered"] * 3
    assert [request.number for request in several[1].asked] == [1, 2, 2, 2, 3]
    assert [request.number for request in several[0].asked] == [1, 2, 3], "it had answered"
    first, last = several[1].asked[1], several[1].asked[3]
    assert torch.equal(first.images, last.images)
    assert len(several[1].known) == 3 * 96


def test_a_server_that_waited_in_vain_says_how_to_resume(tmp_path: Path) -> None:
    several = hospitals(2)
    several[0].spoil = in_round(2, Reply(code=Code.LATE))
    several[1].spoil = in_round(2, None)
    with pytest.raises(
        RunError, match=r"round 2 needs 1 clients, and 0 .* federate server --resume"
    ):
        run(several, tmp_path / "run")
    for one in several:
        one.spoil = lambda request, own: own
    made = go_on(several, tmp_path / "run")
    assert len(made.metrics) == 3
    assert all(len(one.known) == 3 * 96 for one in several)
    again = several[0].asked[1:3]
    assert [request.number for request in again] == [2, 2]
    assert torch.equal(again[0].images, again[1].images)


def test_a_server_that_is_started_again_waits_for_those_who_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their nodes connect again within a minute, in which the others would go on without them."""
    several = hospitals(2)
    several[0].spoil = several[1].spoil = in_round(2, None)
    with pytest.raises(RunError):
        run(several, tmp_path / "run")
    for one in several:
        one.spoil = lambda request, own: own
    several[1].is_connected = False
    looks, look = [0], Network.members

    def members(network: Network) -> list[Member]:
        looks[0] += 1
        several[1].is_connected = looks[0] > 4
        return look(network)

    monkeypatch.setattr(asking, "_PAUSE", 0.01)
    monkeypatch.setattr(Network, "members", members)
    made = go_on(several, tmp_path / "run", patience=30.0)
    assert looks[0] > 4
    assert codes(made, "1") == ["answered"] * 3


def test_a_client_that_comes_late_gets_a_column_of_its_own(tmp_path: Path) -> None:
    several = hospitals(3)
    several[0].is_connected = False  # its key is the first

    def arrive(request: Request, own: Reply) -> Reply:
        several[0].is_connected = request.number >= 2
        return own

    several[1].spoil = arrive
    made = run(several, tmp_path / "run", clients=2)
    assert [client.key for client in made.directory.clients()] == ["1", "2", "0"]
    widths = [
        load_file(made.directory.releases_path(number))["release"].shape[1] for number in (1, 3)
    ]
    assert widths == [2, 3]
    assert codes(made, "0") == ["-", "-", "answered"]


#: What a reply is changed to, given its release and its marks.
GARBAGE: dict[str, Callable[[Tensor, Tensor], dict[str, Any]]] = {
    "too short": lambda release, answered: {"release": release[1:]},
    "of another type": lambda release, answered: {"release": release.float()},
    "of another shape": lambda release, answered: {"release": release.unsqueeze(-1)},
    "no class": lambda release, answered: {"release": release + CLASSES},
    "a negative class": lambda release, answered: {"release": release - CLASSES},
    "nothing": lambda release, answered: {"release": None},
    "no marks": lambda release, answered: {"answered": None},
    "marks of another type": lambda release, answered: {"answered": answered.int()},
    "marks of another number": lambda release, answered: {"answered": answered[1:]},
    "an ε below zero": lambda release, answered: {"spent": {"response": -1.0}},
    "an ε that is no number": lambda release, answered: {"spent": {"response": float("nan")}},
    "an ε of nothing": lambda release, answered: {"spent": {"epsilon": 1.0}},
    "a hash that is none": lambda release, answered: {"ledger": "<script>"},
}


def spoilt(how: Callable[[Tensor, Tensor], dict[str, Any]]) -> Callable[[Request, Reply], Reply]:
    """Change what a client replies."""

    def changed(request: Request, own: Reply) -> Reply:
        assert own.release is not None
        assert own.answered is not None
        return replace(own, **how(own.release, own.answered))

    return changed


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_noted_and_left_out(kind: str, tmp_path: Path) -> None:
    several = hospitals(2)
    several[1].spoil = spoilt(GARBAGE[kind])
    made = run(several, tmp_path / "run", rounds=1)
    assert codes(made, "1") == ["garbage"]
    assert not load_file(made.directory.releases_path(1))["release"][:, 1].any()


def test_a_class_that_was_no_candidate_is_garbage(tmp_path: Path) -> None:
    pairs = RandomizedResponse(epsilon=4.0, candidates=2)
    several = [*hospitals(1), *hospitals(1, key="1", mechanism=pairs)]

    def report_others(request: Request, own: Reply) -> Reply:
        assert request.candidates is not None
        return replace(own, release=request.candidates.int().argmin(-1))

    several[1].spoil = report_others
    assert codes(run(several, tmp_path / "run", rounds=1), "1") == ["garbage"]


def test_a_reply_without_a_release_does_not_count_as_one_that_answered(tmp_path: Path) -> None:
    several = hospitals(1)
    several[0].spoil = spoilt(
        lambda release, answered: {"release": release * 0, "answered": answered & False}
    )
    with pytest.raises(RunError, match="needs 1 clients, and 0 answered"):
        run(several, tmp_path / "run", rounds=1, clients=1)


def test_noise_that_is_no_number_is_garbage(tmp_path: Path) -> None:
    noisy = Gaussian(noise_multiplier=0.7, noise=ReproducibleNoise(seed=9))
    several = [*hospitals(1), Hospital("1", mechanism=noisy)]
    several[1].spoil = spoilt(lambda release, answered: {"release": release / 0})
    assert codes(run(several, tmp_path / "run", rounds=1), "1") == ["garbage"]


def test_a_mechanism_that_is_none_does_not_take_part(tmp_path: Path) -> None:
    several, heard = hospitals(2), Heard()
    several[1].mechanism = RandomizedResponse(epsilon=4.0, candidates=7)
    made = run(several, tmp_path / "run", rounds=1, clients=1, observer=heard)
    assert [client.key for client in made.directory.clients()] == ["0"]
    words = "client hospital-1 does not take part now: garbage (no mechanism"
    assert any(said.startswith(words) for said in heard.notices)


LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "always one class": torch.zeros_like,
    "at random": lambda label: torch.randint_like(label, CLASSES),
    "the next class": lambda label: (label + 1) % CLASSES,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_third_of_liars_hardly_harms_the_student(lie: str, tmp_path: Path) -> None:
    several = hospitals(3)
    several[0].says = LIES[lie]
    made = run(several, tmp_path / "run", queries=600, epochs=3.0)
    assert accuracy(made.student) > 0.8
    clarity = [one["clarity"] for one in made.metrics[-1]["clients"].values()]
    if lie != "the next class":  # whoever lies by a rule can be read by it
        assert clarity[0] < 0.1 < min(clarity[1:])


def test_a_client_without_budget_is_not_asked_about_new_images(tmp_path: Path) -> None:
    several = hospitals(2)
    several[1].budget = 150
    made = run(several, tmp_path / "run")
    assert codes(made, "1") == ["answered", "budget", "budget"]
    assert [request.number for request in several[1].asked] == [1, 2]
    clients = json.loads((made.directory.path / "clients.json").read_text())
    assert (clients[1]["answers"], clients[1]["code"], clients[1]["round"]) == (96, "budget", 3)
    assert clients[1]["spent"]["response"] == 4.0


class KilledError(BaseException):
    """What a test kills the server with."""


#: The steps after which the server is killed in the second round.
STEPS: list[tuple[Any, str]] = [
    (FederationDirectory, "save_request"),
    (Journal, "note"),
    (Journal, "commit"),
    (FederationDirectory, "store"),
    (FederationDirectory, "append_metrics"),
    (FederationDirectory, "write_clients"),
    (federation, "save_samples"),
    (federation, "save_checkpoint"),
    (FederationDirectory, "conclude"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a federation that nothing went wrong in."""
    return run(hospitals(2), tmp_path_factory.mktemp("undisturbed") / "run").directory.path


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_server_killed_after_any_step_goes_on_as_if_nothing_had_happened(
    owner: Any,
    step: str,
    tmp_path: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several, real = hospitals(2), getattr(owner, step)
    calls = 0

    def killing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*arguments, **options)
        if calls == (1 if step == "conclude" else 2):
            raise KilledError
        return found

    monkeypatch.setattr(owner, step, killing)
    with pytest.raises(KilledError):
        run(several, tmp_path / "run")
    monkeypatch.setattr(owner, step, real)
    made = go_on(several, tmp_path / "run")
    for name in ("student", "generator"):
        there = load_file(undisturbed / f"{name}.safetensors")
        here = load_file(made.directory.path / f"{name}.safetensors")
        assert all(torch.equal(here[part], there[part]) for part in there)
    assert all(len(one.known) == 3 * 96 for one in several), "nothing new was asked"
    assert not list((made.directory.path / "requests").iterdir())


def test_a_client_whose_budget_is_used_up_still_repeats_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = hospitals(1, budget=96)
    real = FederationDirectory.store

    def killed(*arguments: Any) -> Any:
        raise KilledError

    monkeypatch.setattr(FederationDirectory, "store", killed)
    with pytest.raises(KilledError):
        run(several, tmp_path / "run", rounds=1)
    monkeypatch.setattr(FederationDirectory, "store", real)
    assert codes(go_on(several, tmp_path / "run"), "0") == ["answered"]


def test_a_federation_has_no_certificate_and_says_who_has(tmp_path: Path) -> None:
    made = run(hospitals(1), tmp_path / "run", rounds=1)
    opened = RunDirectory.open(tmp_path / "run")
    assert isinstance(opened, FederationDirectory)
    for act in (opened.certify, opened.config):
        with pytest.raises(RunError, match=r"federation's server, which has no .* federate status"):
            act()
    (tmp_path / "run" / "config.toml").write_text("rounds = 9\n")
    with pytest.raises(RunError, match="was changed since the run began"):
        RunDirectory.open(made.directory.path)


def test_a_release_that_was_changed_is_found(tmp_path: Path) -> None:
    several = hospitals(1)
    several[0].spoil = in_round(3, None)
    with pytest.raises(RunError):
        run(several, tmp_path / "run")
    path = FederationDirectory.open(tmp_path / "run").releases_path(1)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match="is not what the run's journal names"):
        go_on(several, tmp_path / "run")


def test_a_student_is_linear_on_a_public_backbone_that_the_server_keeps(tmp_path: Path) -> None:
    several = hospitals(2)
    several[0].spoil = several[1].spoil = in_round(2, None)
    settings = {**SETTINGS, "clients": 2, "features": "torch.nn:Flatten", "generator_steps": 0}
    plan, directory = begin(FederationConfig(**settings), tmp_path / "run")
    assert plan.student == "scattering"
    with pytest.raises(RunError, match="--resume"):
        execute(plan, directory, exchange=Network(several), observer=Heard())
    for one in several:
        one.spoil = lambda request, own: own
    plan, directory = begin_again(tmp_path / "run")  # from its own copy of the backbone
    execute(plan, directory, exchange=Network(several), observer=Heard())
    stated = directory.facts()["features"]["student"]
    assert stated["name"] == "torch.nn:Flatten"
    student = directory.student()
    (head,) = [layer for layer in student.modules() if isinstance(layer, nn.Linear)]
    assert head.in_features == 64
    assert accuracy(student) > 0.5


def test_features_are_for_a_student_that_is_linear_on_them() -> None:
    config = FederationConfig(**{**SETTINGS, "features": "glyphs", "student": "cnn"})
    with pytest.raises(ConfigError, match="features 'glyphs' are for the model 'scattering'"):
        config.check_names()
