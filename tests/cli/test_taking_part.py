"""A client knows what it is invited to before it joins, and joins nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.federated.client.asking import FEDERATION, request
from tests.federated.client.asking import respondent as taking_part

from dpsd.cli import taking_part as joining
from dpsd.cli.console import STATUS, say
from dpsd.cli.taking_part import agreed_plan
from dpsd.errors import ConfigError
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.client.stored import read_rounds
from dpsd.federated.flower.invitations import Invitation, invitation_text
from dpsd.federated.flower.places import ServerPlace
from dpsd.federated.requests import Code, Hello

Invoke = Callable[..., Result]
Told = Callable[[bool], None]

FACTS: dict[str, Any] = {"input_shape": [1, 8, 8], "num_classes": 4, "rounds": 2, "queries": 300}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = ServerPlace(tmp_path_factory.mktemp("server"))
    place.prepare(["hub.example"])
    return place.authority.read_text("utf-8")


def invited(authority: str, **facts: Any) -> Invitation:
    return Invitation("hub.example:443", authority, "f00d", FACTS | facts)


@pytest.fixture
def client(odd_teachers: Path, authority: str, invoke: Invoke) -> Callable[..., Result]:
    """Run the command of a client that has an invitation."""
    (odd_teachers / "invitation.toml").write_text(invitation_text(invited(authority)))
    return lambda *more: invoke(
        *("federate", "client", "odd_teachers:factory", "--input-shape", "1,8,8", "--out", "own"),
        *("--invitation", "invitation.toml", *more),
    )


def test_an_invitation_is_shown_before_epsilon_is_given(
    client: Callable[..., Result], authority: str
) -> None:
    result = client()
    assert result.exit_code == 0
    for words in (invited(authority).fingerprint, '"rounds": 2', '"f00d"', "by another way"):
        assert words in result.stdout
    assert not Path("own").exists()


@pytest.mark.parametrize("more", [(), ("--quiet",)])
def test_a_client_shows_its_costs_and_joins_the_federation_of_its_invitation(
    client: Callable[..., Result],
    authority: str,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[Respondent] = []

    def join(place: object, invitation: object, made: Respondent, *, told: Told) -> None:
        joined.append(made)
        told(True)

    monkeypatch.setattr(joining, "join", join)
    result = client("--epsilon", 2, "--adjacency", "response", *more)
    assert result.exit_code == 0, result.stderr
    assert invited(authority).fingerprint in result.stderr
    said = "at most 600 images for 'hub.example:443', for which ε is 2 under 'response', "
    assert (said in result.stderr) is not bool(more)
    stands = "connected to hub.example:443; 0 rounds answered; ε = 0 spent under 'response' at δ"
    assert (stands in result.stderr) is not bool(more)
    for adjacency in ("round", "teacher"):
        assert (f" under '{adjacency}'" in result.stderr) is not bool(more)
    (respondent,) = joined
    for federation, code in (("beef", Code.MALFORMED), ("f00d", Code.ANSWERED)):
        hello = Hello(federation=federation, shape=(1, 8, 8), num_classes=4)
        assert respondent.greet(hello).code is code


def test_an_owner_chooses_more_than_an_invitation_may(authority: str) -> None:
    most = invited(authority, rounds=1000, queries=1000)
    assert agreed_plan(most, {}) == AnswerPlan(rounds=1000, queries=1000)
    assert agreed_plan(most, {"rounds": 3}) == AnswerPlan(rounds=3, queries=1000)
    more = invited(authority, rounds=1001, queries=1000)
    for asked in ({}, {"rounds": 1001}, {"queries": 1000}):
        with pytest.raises(ConfigError, match="Say with --rounds and --queries how many"):
            agreed_plan(more, asked)
    assert agreed_plan(more, {"queries": 3}) == AnswerPlan(rounds=1001, queries=3)
    chosen = {"rounds": 5000, "queries": 5000}
    assert agreed_plan(more, chosen) == AnswerPlan(**chosen)


@pytest.mark.parametrize("stated", [None, 0, True, "9"])
def test_an_invitation_need_not_state_what_the_owner_chose(authority: str, stated: Any) -> None:
    invitation = Invitation("hub.example:443", authority, "f00d", {"rounds": stated, "queries": 7})
    assert agreed_plan(invitation, {"rounds": 3}) == AnswerPlan(rounds=3, queries=7)
    with pytest.raises(ConfigError, match="does not state rounds: say how many with --rounds"):
        agreed_plan(invitation, {})


def test_an_invitation_to_other_images_is_refused_before_connecting(
    odd_teachers: Path, authority: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "join", lambda *_, **__: pytest.fail("it connected"))
    other = invited(authority, input_shape=[1, 28, 28])
    (odd_teachers / "invitation.toml").write_text(invitation_text(other))
    result = invoke(
        *("federate", "client", "odd_teachers:factory", "--input-shape", "1,8,8", "--out", "own"),
        *("--invitation", "invitation.toml", "--epsilon", 1),
    )
    assert result.exit_code == 2
    assert "whose input shape is [1, 28, 28], and the teacher's is [1, 8, 8]" in result.stderr


def test_a_server_is_trusted_only_if_the_owner_and_the_invitation_say_so(
    client: Callable[..., Result], authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[Respondent] = []
    monkeypatch.setattr(joining, "join", lambda _, __, made, **___: joined.append(made))
    own = ("--epsilon", 2, "--adjacency", "response")
    result = client(*own, "--trusted-aggregator")
    assert result.exit_code == 2
    assert "does not state trusted_aggregator: leave out --trusted-aggregator" in result.stderr
    invitation = Path("invitation.toml")
    invitation.write_text(invitation_text(invited(authority, trusted_aggregator=5)))
    result = client(*own)
    assert result.exit_code == 2
    assert "whose server adds up answers" in result.stderr
    assert not joined
    assert '"trusted_aggregator": 5' in client().stdout, "it is shown before anything is agreed to"
    result = client(*own, "--trusted-aggregator")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "for which ε is 2 under 'response'" in said
    assert "against those who see sums alone, as you trust the server, ε is 0.93" in said
    assert joined[0].mechanism.parameters()["clients"] == 5
    invitation.write_text(invitation_text(invited(authority, trusted_aggregator=2)))
    result = client(*own, "--trusted-aggregator", "--out", "other")
    assert result.exit_code == 2
    assert "sums over 2 clients, and fewer than 3 hide nothing" in result.stderr


def test_no_key_is_made_for_a_teacher_that_is_not_there(tmp_path: Path, invoke: Invoke) -> None:
    own = tmp_path / "own"
    result = invoke("federate", "client", str(tmp_path / "nothing"), "--out", str(own))
    assert result.exit_code == 4
    assert "there is no" in result.stderr
    assert not own.exists()


def test_a_fingerprint_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    fingerprint = "90:8b:ab:42:id:cool:00"  # a console may take names between colons for pictures
    say(fingerprint)
    STATUS.print(fingerprint)
    shown = capsys.readouterr()
    assert fingerprint in shown.out
    assert fingerprint in shown.err


@pytest.mark.parametrize("within", ["", "client"])
def test_certify_states_what_a_client_spent_from_its_own_ledger(
    within: str, tmp_path: Path, invoke: Invoke
) -> None:
    client = taking_part(tmp_path)
    assert client.answer(request(1, 2, 3)).code is Code.ANSWERED
    result = invoke("certify", tmp_path / within)
    assert result.exit_code == 0, result.stderr
    for words in ("ε = 2 at δ = 1e-05, adjacency `response`", FEDERATION, "the noise is local"):
        assert words in result.stdout
    assert "the answers, the settings and the stored certificate belong together" in result.stderr
    assert str(tmp_path / "budget.jsonl") not in result.stderr  # nothing tells where it is
    printed = invoke("certify", tmp_path / within, "--format", "json")
    assert printed.stdout == client.folder.certificate.read_text("utf-8")


def test_certify_finds_what_was_changed_in_a_clients_folder(tmp_path: Path, invoke: Invoke) -> None:
    client = taking_part(tmp_path)
    nothing = invoke("certify", tmp_path)
    assert nothing.exit_code == 5
    assert "nothing was asked yet" in nothing.stderr
    client.answer(request(1, 2, 3))
    first = client.folder.certificate.read_text("utf-8")
    client.folder.certificate.write_text(first.replace("replace-one", "add-or-remove"), "utf-8")
    changed = invoke("certify", tmp_path)
    assert changed.exit_code == 1
    assert "certificate.json, line" in changed.stderr
    client.answer(request(4, 5, number=2))
    client.folder.certificate.write_text(first, "utf-8")  # as a crash before it was written leaves
    older = invoke("certify", tmp_path)
    assert older.exit_code == 0, older.stderr
    assert "not about the last line of the ledger" in older.stderr
    with client.folder.answers._opened() as table:
        table.execute("UPDATE answers SET release = NULL")
    assert "say different things of round 1" in invoke("certify", tmp_path).stderr


@pytest.mark.parametrize("is_consistent", [False, True])
def test_certify_finds_a_ledger_that_was_cut_short(
    is_consistent: bool, tmp_path: Path, invoke: Invoke
) -> None:
    client = taking_part(tmp_path)
    for number in (1, 2):
        client.answer(request(number, number=number))
    ledger = client.folder.ledger.path
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[: -2 if is_consistent else -1]))
    if is_consistent:
        client.folder.answers.forget(2)  # so that the answers fit the ledger
    for command in (("certify",), ("federate", "status")):
        result = invoke(*command, tmp_path)
        assert result.exit_code == 1
        assert "lines were cut off the ledger" in result.stderr
        assert not result.stdout


def test_certify_warns_only_of_what_a_crash_leaves(tmp_path: Path, invoke: Invoke) -> None:
    client = taking_part(tmp_path)
    client.answer(request(1))
    client.folder.certificate.unlink()
    result = invoke("certify", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "not about the last line of the ledger" in result.stderr
    client.answer(request(2, number=2))
    client.folder.certificate.unlink()
    assert invoke("certify", tmp_path).exit_code == 1


def test_a_client_that_has_a_key_alone_is_told_how_to_start(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "flower").mkdir()
    (tmp_path / "flower" / "client.key.pub").touch()
    result = invoke("federate", "status", tmp_path)
    assert result.exit_code == 5
    assert "holds a client's key, and no client yet: start it with --invitation" in result.stderr


@pytest.mark.parametrize("command", [("certify",), ("federate", "status")])
def test_a_folder_that_somebody_sent_is_only_read(
    command: tuple[str, ...], tmp_path: Path, invoke: Invoke
) -> None:
    client = taking_part(tmp_path)
    client.answer(request(1))
    folder = client.folder.path
    folder.chmod(0o500)
    there = {path: path.read_bytes() for path in folder.iterdir()}
    assert invoke(*command, tmp_path).exit_code == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == there
    folder.chmod(0o700)
    for path in (client.folder.answers.path, client.folder.certificate, client.folder.ledger.path):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        result = invoke(*command, tmp_path)
        assert result.exit_code == 5
        assert "no link" in result.stderr
        path.unlink()
        (tmp_path / path.name).rename(path)
    client.folder.answers.path.unlink()
    assert "cannot be read: No such file" in invoke(*command, tmp_path).stderr
    assert not client.folder.answers.path.exists()


@pytest.mark.parametrize("command", [("certify",), ("federate", "status")])
def test_a_folder_that_is_a_link_is_not_followed(
    command: tuple[str, ...], tmp_path: Path, invoke: Invoke
) -> None:
    taking_part(tmp_path).answer(request(1))
    (tmp_path / "client").rename(tmp_path / "elsewhere")
    (tmp_path / "client").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    result = invoke(*command, tmp_path)
    assert result.exit_code == 5
    assert "is a symbolic link" in result.stderr
    assert invoke(*command, tmp_path / "elsewhere").exit_code == 0


@pytest.mark.parametrize("folder", ["client", "flower"])
def test_a_client_writes_nothing_through_a_link(
    folder: str, client: Callable[..., Result], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("own").mkdir()
    Path("own", folder).symlink_to(elsewhere, target_is_directory=True)
    result = client("--epsilon", 2, "--adjacency", "response")
    assert result.exit_code == 5
    assert "is a symbolic link" in result.stderr
    assert not list(elsewhere.iterdir())


def test_a_folder_in_a_run_is_not_taken_for_the_run(tmp_path: Path, invoke: Invoke) -> None:
    taking_part(tmp_path).answer(request(1))
    (tmp_path / "config.toml").write_text("")
    assert "the noise is local" not in invoke("certify", tmp_path).stdout


@pytest.mark.parametrize("moments", [1, 9])
def test_certify_beside_a_client_that_answers(
    moments: int, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = taking_part(tmp_path)
    client.answer(request(1))
    real, numbers = read_rounds, iter(range(2, 2 + moments))

    def meanwhile(path: Path) -> Any:
        found = real(path)
        for number in numbers:
            assert client.answer(request(number, number=number)).code is Code.ANSWERED
            break
        return found

    monkeypatch.setattr("dpsd.federated.client.folder.read_rounds", meanwhile)
    client.plan = AnswerPlan(rounds=20, queries=10)
    result = invoke("certify", tmp_path, "--format", "json")
    if moments == 1:
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["ledger"] == client.folder.ledger.head
        assert "while the client answers" in result.stderr
    else:
        assert result.exit_code == 5
        assert "the client answers meanwhile" in result.stderr


def test_certify_compares_a_budget_that_the_clients_owner_named(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = taking_part(tmp_path, budget_file="budget.jsonl")
    client.answer(request(1))
    monkeypatch.chdir("/")
    budget = tmp_path / "budget.jsonl"
    assert f"compared with the teacher's budget {budget}" in invoke("certify", tmp_path).stderr
    budget.unlink()
    os.mkfifo(budget)  # which a reader would wait for
    assert "was not compared" in invoke("certify", tmp_path).stderr


def test_certify_compares_a_clients_ledger_with_its_teachers_budget(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = taking_part(tmp_path)
    client.answer(request(1, 2, 3))
    (budgets := tmp_path / "budgets").mkdir()
    shutil.copy(tmp_path / "budget.jsonl", budgets)
    monkeypatch.setattr("dpsd.runs.budgets._own_folder", lambda: budgets)
    assert f"compared with the teacher's budget {budgets}" in invoke("certify", tmp_path).stderr
    assert client.answer(request(4, 5, number=2)).code is Code.ANSWERED
    assert "does not record all that ledger" in invoke("certify", tmp_path).stderr
