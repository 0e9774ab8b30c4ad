"""A server knows who takes part, and says who does not."""

from __future__ import annotations

from pathlib import Path

from tests.federated.server.hospitals import SETTINGS, Heard, Hospital, Linear, Network

from dpsd.config.federation import FederationConfig
from dpsd.federated.requests import Hello
from dpsd.federated.server.roster import Roster
from dpsd.federated.server.starting import begin
from dpsd.privacy.mechanisms import RandomizedResponse


def test_every_start_of_a_server_says_once_who_does_not_take_part(tmp_path: Path) -> None:
    odd = Hospital("0", mechanism=RandomizedResponse(epsilon=4.0, candidates=7))
    config = FederationConfig(**SETTINGS, clients=1)
    plan, directory = begin(config, tmp_path / "run", student=Linear())
    hello = Hello(federation=directory.identity, shape=plan.shape, num_classes=plan.num_classes)
    written = []
    for _ in range(2):
        heard = Heard()
        roster = Roster(
            directory=directory,
            exchange=Network([odd]),
            hello=hello,
            observer=heard,
            deadline=60.0,
        )
        assert roster.present() == roster.present() == []
        (said,) = heard.notices
        assert said.startswith("client hospital-0 does not take part now: garbage (no mechanism")
        written.append(directory.journal.entries())
    assert written[0] == written[1], "the journal has it once"
