"""Each kind is played once for the same student, data, settings and seed, and is kept at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from dpsd.attacks import attacking as module
from dpsd.attacks.attacking import Attacking
from dpsd.attacks.copies import Copies
from dpsd.attacks.names import KINDS, check_kinds
from dpsd.attacks.spent import timed
from dpsd.attacks.target import Target
from dpsd.datasets import load_dataset
from dpsd.errors import ConfigError, WriteError
from dpsd.runs import findings
from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Findings

MEMBERS, OTHERS = (load_dataset("digits", split) for split in ("train", "test"))


@pytest.fixture(scope="module")
def target(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A copy of the run, which was attacked once."""
    folder = tmp_path_factory.mktemp("attacked") / "run"
    whole = Target(
        run=RunDirectory.open(Path(shutil.copytree(run.path, folder))),
        members=MEMBERS,
        others=OTHERS,
        device="cpu",
    )
    Attacking(target=whole, is_quick=True).play("copies")
    return whole


def test_kinds_are_those_of_findings() -> None:
    assert KINDS == findings.KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_played(kind: str) -> None:
    """By its name, with settings that are stated in JSON."""
    module = pytest.importorskip(f"dpsd.attacks.{kind}")
    assert callable(module.attack)
    assert getattr(module, kind.capitalize()).quick() is not None


def test_findings_are_kept_and_found_again(target: Target) -> None:
    found = Attacking(target=target, is_quick=True).earlier("copies")
    assert found is not None
    assert found.is_valid
    assert findings.read_findings(target.run.path) == [found]
    stated = json.loads((target.run.path / "attacks" / "copies.json").read_text())
    assert stated["details"]["attacked"]["teacher"] is None


def test_findings_about_something_else_do_not_count(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacking = Attacking(target=target, is_quick=True)
    fewer = replace(target, members=MEMBERS.subset(torch.arange(1_000)))
    flipped = replace(target, others=replace(OTHERS, labels=OTHERS.labels.flip(0)))
    for other in (
        replace(attacking, seed=1),
        replace(attacking, is_quick=False),
        replace(attacking, target=fewer),
        replace(attacking, target=flipped),
    ):
        assert other.earlier("copies") is None
    assert attacking.earlier("membership") is None
    student = target.run.ledger.ending()["student"]
    monkeypatch.setattr(
        type(target.run.ledger), "ending", lambda _: {"student": f"{student} changed"}
    )
    assert Attacking(target=target, is_quick=True).earlier("copies") is None


@contextmanager
def kept_at_full_size(found: Findings, target: Target) -> Iterator[Findings]:
    """Keep quick findings as if they were of full size; they are put back at the end."""
    full = replace(found, is_quick=False, settings={**found.settings, **asdict(Copies())})
    full.save(target.run.path)
    try:
        yield full
    finally:
        found.save(target.run.path)


def test_a_quick_attack_replaces_none_of_full_size(target: Target) -> None:
    quick = Attacking(target=target, is_quick=True)
    found = quick.earlier("copies")
    assert found is not None
    with kept_at_full_size(found, target) as full:
        assert quick.earlier("copies") == full
        with pytest.raises(ConfigError, match="copies at full size are there"):
            replace(quick, seed=1).require_no_loss("copies")
        replace(quick, is_quick=False, seed=1).require_no_loss("copies")
    # A full one replaces a quick one.
    full_size = replace(quick, is_quick=False)
    assert full_size.earlier("copies") is None
    full_size.require_no_loss("copies")
    replace(quick, seed=1).require_no_loss("copies")


def test_a_damaged_file_of_another_kind_changes_nothing(target: Target) -> None:
    quick = Attacking(target=target, is_quick=True)
    found = quick.earlier("copies")
    assert found is not None
    sibling = target.run.path / "attacks" / "membership.json"
    sibling.write_text("damaged")
    try:
        with kept_at_full_size(found, target) as full:
            assert quick.earlier("copies") == full
            with pytest.raises(ConfigError, match="copies at full size are there"):
                replace(quick, seed=1).require_no_loss("copies")
    finally:
        sibling.unlink()


def test_the_seconds_of_all_attempts_are_added_up(tmp_path: Path) -> None:
    file = tmp_path / "seconds.json"
    file.write_text('{"key": "one", "seconds": 100.5}')
    with pytest.raises(KeyboardInterrupt), timed(file, key="one"):
        raise KeyboardInterrupt
    with timed(file, key="one") as seconds:
        assert 100 < seconds() < 110
    with timed(file, key="another") as seconds:
        assert seconds() < 10


@pytest.mark.parametrize("seconds", ["Infinity", "NaN", "-1.5", '"1"'])
def test_seconds_that_are_none_count_as_none(tmp_path: Path, seconds: str) -> None:
    file = tmp_path / "seconds.json"
    file.write_text(f'{{"key": "one", "seconds": {seconds}}}')
    with timed(file, key="one") as spent:
        assert 0 <= spent() < 10
    assert json.loads(file.read_text())["seconds"] < 10


def test_seconds_that_cannot_be_kept_do_not_hide_why_an_attack_ended(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "seconds.json"
    with pytest.raises(KeyboardInterrupt), timed(file, key="one"):
        raise KeyboardInterrupt
    with pytest.raises(WriteError), timed(file, key="one"):
        pass


def test_findings_of_another_version_of_dpsd_do_not_count(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "version", lambda _: "0.0.1")
    assert Attacking(target=target, is_quick=True).earlier("copies") is None


def test_findings_that_cannot_be_read_are_made_anew(target: Target) -> None:
    path = target.run.path / "attacks" / "copies.json"
    before = path.read_text()
    for damaged in (before.replace('"version": 2', '"version": 1', 1), before[:99]):
        path.write_text(damaged)
        assert Attacking(target=target, is_quick=True).earlier("copies") is None
    path.write_text(before)
    assert Attacking(target=target, is_quick=True).earlier("copies") is not None


def test_an_interrupted_kind_leaves_what_is_known(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        def step(self, what: str, done: int, total: int) -> None:
            if what == "copies: comparing":
                raise KeyboardInterrupt

    attacking = Attacking(target=target, is_quick=True)
    before = attacking.earlier("copies")
    with pytest.raises(KeyboardInterrupt):
        attacking.play("copies", progress=Interrupting())
    assert attacking.earlier("copies") == before


def test_a_kind_is_told_every_part_and_its_end(target: Target) -> None:
    class Listening(dict[str, tuple[int, int]]):
        def step(self, what: str, done: int, total: int) -> None:
            assert done >= self.get(what, (0, 0))[0]
            self[what] = done, total

    heard = Listening()
    Attacking(target=target, is_quick=True, seed=2).play("copies", progress=heard)
    assert all(done == total for done, total in heard.values())
    assert {part.partition(":")[0] for part in heard} == {"copies"}
    assert len(heard) == 4


def test_lists_of_kinds_are_in_order_and_without_repetition() -> None:
    assert check_kinds("copies, inversion,copies") == ("inversion", "copies")
    with pytest.raises(ConfigError, match="kind is empty"):
        check_kinds(" ,")
