"""A server that is trusted to add up: it keeps sums, and refuses whoever others cannot count on."""

from __future__ import annotations

import re
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
    Linear,
    Network,
    accuracy,
    go_on,
    hospitals,
    in_round,
    run,
)
from torch import Tensor

from dpsd import RandomizedResponse, ReproducibleNoise, RunError
from dpsd.config.federation import FederationConfig
from dpsd.errors import ConfigError
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request
from dpsd.federated.server.pooling import Pool
from dpsd.federated.server.reading import GarbageError
from dpsd.federated.server.roster import Roster
from dpsd.federated.server.starting import begin
from dpsd.privacy.mechanisms import SharedNoiseVotes

POOL = Pool(fewest=3, num_classes=CLASSES)


def share(noise: float = 1.0, *, teachers: int = 1, clients: int = 3) -> SharedNoiseVotes:
    return SharedNoiseVotes(noise_multiplier=noise, teachers=teachers, clients=clients)


def sharing(count: int, **how: Any) -> list[Hospital]:
    mechanism = replace(share(), noise=ReproducibleNoise(seed=0))
    return hospitals(count, mechanism=mechanism, **how)


def test_a_student_learns_from_sums_alone(tmp_path: Path) -> None:
    several = sharing(4)
    made = run(several, tmp_path / "run", trusted_aggregator=3, queries=600, epochs=3.0)
    assert accuracy(made.student) > 0.8
    for number in (1, 2, 3):
        stored = load_file(made.directory.releases_path(number))
        assert stored["release"].shape == (600, 1, CLASSES)
    assert [client.answers for client in made.directory.clients()] == [1800] * 4
    clients = made.metrics[-1]["clients"].values()
    assert [said["clarity"] for said in clients] == [0.0] * 4, "nothing is said of one client"


def test_no_share_reaches_the_disk(tmp_path: Path) -> None:
    """Every number that a client released is looked for in every file of the server."""
    several = sharing(3)
    made = run(several, tmp_path / "run", trusted_aggregator=3, rounds=1)
    files = [path.read_bytes() for path in made.directory.path.rglob("*") if path.is_file()]
    rows = [row for one in several for row in one.known.values()]
    assert len(rows) == 3 * 96
    for row in rows:
        for number in (row, row.double(), row.half()):
            assert not any(number.numpy().tobytes() in content for content in files)


def test_a_round_waits_for_as_many_as_the_noise_needs(tmp_path: Path) -> None:
    several = sharing(3)
    several[1].spoil = in_round(2, None)
    with pytest.raises(RunError, match="round 2 needs 3 clients, and 2 answered"):
        run(several, tmp_path / "run", trusted_aggregator=3)
    assert not list((tmp_path / "run" / "releases").glob("round-0002*"))
    several[1].spoil = lambda request, own: own
    made = go_on(several, tmp_path / "run")
    assert len(made.metrics) == 3
    assert all(len(one.known) == 3 * 96 for one in several), "no image is charged twice"


def test_fewer_clients_than_the_noise_needs_cannot_be_chosen_later(tmp_path: Path) -> None:
    several = sharing(3)
    several[1].spoil = in_round(2, None)
    with pytest.raises(RunError):
        run(several, tmp_path / "run", trusted_aggregator=3)
    with pytest.raises(ConfigError, match="sums over fewer clients than trusted_aggregator"):
        go_on(several, tmp_path / "run", at_least=2)


def test_the_server_waits_for_as_many_clients_unless_it_is_told_otherwise() -> None:
    config = FederationConfig(**{**SETTINGS, "trusted_aggregator": 5})
    assert (config.federation.clients, config.federation.at_least) == (5, 5)
    more = FederationConfig(**{**SETTINGS, "trusted_aggregator": 5, "clients": 7})
    assert (more.federation.clients, more.federation.at_least) == (7, 5)
    with pytest.raises(ConfigError, match="at_least is 4"):
        FederationConfig(**{**SETTINGS, "trusted_aggregator": 5, "at_least": 4})


REFUSED = {
    "without a share": (RandomizedResponse(epsilon=4.0), "does not add a share of the noise"),
    "of other sums": (share(clients=4), "does not add a share of the noise on sums over 3"),
    "with other noise": (share(0.5), "its noise is 0.5 votes, and that of the others"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_whoever_others_cannot_count_on_does_not_take_part(tmp_path: Path, kind: str) -> None:
    mechanism, words = REFUSED[kind]
    several, heard = sharing(3), Heard()
    noise = ReproducibleNoise(seed=9)
    several.append(Hospital("9", mechanism=mechanism.with_noise(noise)))
    made = run(several, tmp_path / "run", trusted_aggregator=3, clients=3, observer=heard)
    assert [client.key for client in made.directory.clients()] == ["0", "1", "2"]
    assert not several[3].asked
    assert any(
        re.search(f"hospital-9 does not take part now: .*{words}", said) for said in heard.notices
    )


def test_a_mistake_that_was_corrected_keeps_nobody_out(tmp_path: Path) -> None:
    """The first to greet took part with other noise, has answered nothing, and has gone."""
    several = sharing(4)
    own, several[0].mechanism = several[0].mechanism, replace(share(0.5))
    config = FederationConfig(**{**SETTINGS, "trusted_aggregator": 3})
    plan, directory = begin(config, tmp_path / "run", student=Linear())
    hello = Hello(federation=directory.identity, shape=plan.shape, num_classes=plan.num_classes)
    roster = Roster(
        directory=directory,
        exchange=Network(several),
        hello=hello,
        observer=Heard(),
        deadline=60.0,
        pool=POOL,
    )
    assert roster.present() == ["0"]
    assert {said.code for said in directory.journal.refusals().values()} == {"unlike"}
    several[0].is_connected = False
    assert roster.present() == ["1", "2", "3"]
    several[0].is_connected = True
    assert roster.present() == ["1", "2", "3"], "what it stated before is not believed"
    several[0].mechanism = own
    assert roster.present() == ["0", "1", "2", "3"]


def test_a_round_goes_on_without_what_a_client_has_lost_for_good(tmp_path: Path) -> None:
    """A crash lost a client's answers; asking for them again would never end."""
    several, heard = sharing(3), Heard()

    def lost(request: Request, own: Reply) -> Reply:
        if request.number != 2:
            return own
        assert own.release is not None
        answered = torch.zeros(len(request), dtype=torch.bool)
        return replace(own, release=torch.zeros_like(own.release), answered=answered)

    several[1].spoil = lost
    made = run(several, tmp_path / "run", trusted_aggregator=3, observer=heard)
    assert len(made.metrics) == 3
    assert not load_file(made.directory.releases_path(2))["release"].any()
    assert load_file(made.directory.releases_path(3))["release"].any()
    words = (
        "96 of the 96 images of round 2 have no sum, as answers were lost for good by hospital-1"
    )
    assert words in heard.warnings
    assert all(torch.isfinite(value).all() for value in made.student.state_dict().values())


def test_less_noise_than_was_stated_is_garbage(tmp_path: Path) -> None:
    several = sharing(4)
    honest = several[2].mechanism
    several[2].mechanism = share(0.5).with_noise(honest.noise)
    stated = Greeting(code=Code.ANSWERED, mechanism=honest.parameters(), answers_left=10_000)
    several[2].greet = lambda hello: stated  # type: ignore[method-assign]
    made = run(several, tmp_path / "run", trusted_aggregator=3, rounds=1, queries=600)
    clients = made.metrics[0]["clients"]
    assert {key: said["code"] for key, said in clients.items()} == {
        **dict.fromkeys("013", "answered"),
        "2": "garbage",
    }


def test_a_client_that_counts_on_sums_is_refused_where_there_are_none(tmp_path: Path) -> None:
    several, heard = [*hospitals(1), *sharing(1, key="1")], Heard()
    made = run(several, tmp_path / "run", clients=1, observer=heard)
    assert [client.key for client in made.directory.clients()] == ["0"]
    assert any("started without trusted_aggregator" in said for said in heard.notices)
    assert not several[1].asked


def said(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


NONE = [float("nan")] * CLASSES


def test_an_image_with_too_few_shares_has_no_sum() -> None:
    first, second = [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]
    shares = {"a": said(first, second), "b": said(first, NONE), "c": said(first, second)}
    found = POOL.summed(shares, dict.fromkeys(shares, share()))
    assert found.shape == (2, 1, CLASSES)
    assert found[0, 0].argmax() == 0
    assert not found[1].any()


def test_the_noise_of_a_sum_is_that_of_those_who_answered() -> None:
    """An image that more clients answered alike is clearer."""
    row = [1.0, 0.0, 0.0]
    shares = {key: said(*[row] * 50, *[row if key < "d" else NONE] * 50) for key in "abcdefghi"}
    found = POOL.summed(shares, dict.fromkeys(shares, share())).float()[:, 0]
    assert found[:, 0].eq(0).all()
    assert found[0, 1] < found[-1, 1] < 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 30.0, -27.0])
def test_a_share_that_no_mechanism_makes_is_garbage(value: float) -> None:
    images = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
    request = Request(federation="f00d", number=1, deadline=1e12, images=images)
    for number, is_possible in ((value, False), (24.0, True)):
        reply = Reply(
            code=Code.ANSWERED,
            release=said([number, 0.0, 0.0]),
            answered=torch.ones(1, dtype=torch.bool),
        )
        if is_possible:
            assert POOL.read(reply, request, share()).equal(said([number, 0.0, 0.0]))
        else:
            with pytest.raises(GarbageError, match="no votes with such noise"):
                POOL.read(reply, request, share())
