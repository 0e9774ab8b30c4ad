"""What was asked is on disk before it is answered; the certificate says what the ledger says."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsd.errors import DiskFullError, RunError
from dpsd.privacy.accounting import format_epsilon, spent
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.records.certificate import (
    ADJACENCY_MEANINGS,
    ENSEMBLE_MEANINGS,
    NOT_PRIVATE,
    REPEATED_IMAGES,
    TIMING_LIMIT,
    VERSION,
    Certificate,
    certify,
)
from dpsd.privacy.records.comparison import difference
from dpsd.privacy.records.ledger import Ledger, reservation
from dpsd.privacy.targets import Adjacency, Exposure

MECHANISMS = pytest.mark.parametrize(
    "mechanism",
    [
        RandomizedResponse(epsilon=1.3),
        RandomizedResponse(epsilon=0.7, candidates=5),
        Gaussian(noise_multiplier=2.5, bound=3.0, top_k=4),
    ],
    ids=["per-query", "five", "gaussian"],
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def reserve(ledger: Ledger, *rounds: int, answers: int = 100, mechanism: Mechanism) -> None:
    for index in rounds:
        entry = reservation(
            round_index=index, answers=answers, mechanism=mechanism, teacher="sha256:ab"
        )
        ledger.reserve(entry)


def opened(
    ledger: Ledger, *, epsilon: float = 4.0, delta: float = 1e-5, **changed: object
) -> Ledger:
    ledger.open(
        {
            "run": "r",
            "target": {"epsilon": epsilon, "delta": delta, "adjacency": "round"},
            "rounds": 3,
            "settings": {},
            "sources": ["noise", "crops"],
            "teacher": "sha256:ab",
            "members": 1,
            "disjoint_data": False,
            "distinct_images": True,
            "software": {"dpsd": "1.0"},
            "earlier": None,
            **changed,
        }
    )
    return ledger


@pytest.fixture
def run(ledger: Ledger) -> Ledger:
    """A ledger that says what run it is of."""
    return opened(ledger)


def certificate_of(ledger: Ledger) -> Certificate:
    return certify(ledger, student="sha256:cd")


RESPONSE = RandomizedResponse(epsilon=1.3)


def test_entries_are_one_json_line_each(ledger: Ledger) -> None:
    reserve(ledger, 1, mechanism=RESPONSE)
    ledger.commit(round_index=1, sha256="sha256:ef")
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["entry"] for line in lines] == ["reserve", "commit"]
    assert (lines[0]["round"], lines[0]["answers"], lines[0]["teacher"]) == (1, 100, "sha256:ab")
    assert lines[1]["sha256"] == "sha256:ef"


def test_entries_are_synced_to_disk(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        on_disk.append(ledger.path.stat().st_size)
        fsync(descriptor)

    monkeypatch.setattr("dpsd.privacy.records.chain.os.fsync", seen)
    reserve(ledger, 1, mechanism=RESPONSE)
    # Flushed first, then synced; and then the folder, which a new file's name is in.
    assert on_disk == [ledger.path.stat().st_size] * 2


def test_entries_are_only_ever_added(ledger: Ledger) -> None:
    reserve(ledger, 1, mechanism=RESPONSE)
    before = ledger.path.read_text()
    reserve(Ledger(ledger.path), 2, mechanism=RESPONSE)
    assert ledger.path.read_text().startswith(before)


def test_a_full_disk_stops_the_asking(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dpsd.privacy.records.chain.os.fsync", full)
    with pytest.raises(DiskFullError, match=r"No space left.*the teacher is not asked"):
        reserve(ledger, 1, mechanism=RESPONSE)


def test_rounds_add_up(ledger: Ledger) -> None:
    reserve(ledger, 1, 2, 3, mechanism=RESPONSE)
    assert ledger.exposure() == Exposure(response=1, round=3, teacher=300)


def test_a_round_asked_twice_counts_twice(ledger: Ledger) -> None:
    reserve(ledger, 1, 2, 2, 2, mechanism=RESPONSE)
    assert ledger.exposure() == Exposure(response=3, round=4, teacher=400)


def test_rounds_that_were_each_asked_twice_may_have_asked_one_image_thrice(
    ledger: Ledger,
) -> None:
    reserve(ledger, 1, 1, 2, 2, mechanism=RESPONSE)
    assert ledger.exposure() == Exposure(response=3, round=4, teacher=400)


def test_commitments_spend_nothing(ledger: Ledger) -> None:
    reserve(ledger, 1, mechanism=RESPONSE)
    ledger.commit(round_index=1, sha256="sha256:ef")
    ledger.commit(round_index=1, sha256="sha256:ef")
    assert ledger.exposure() == Exposure(response=1, round=1, teacher=100)


@MECHANISMS
def test_events_survive_the_file(ledger: Ledger, mechanism: Mechanism) -> None:
    reserve(ledger, 1, 2, mechanism=mechanism)
    spending = ledger.spending()
    assert (spending.event, spending.mean_event) == (mechanism.event(), mechanism.mean_event())


def test_contradicting_events_are_refused(ledger: Ledger) -> None:
    reserve(ledger, 1, mechanism=RandomizedResponse(epsilon=1.0))
    reserve(ledger, 2, mechanism=RandomizedResponse(epsilon=2.0))
    with pytest.raises(RunError, match="2 different events"):
        ledger.spending()


@pytest.mark.parametrize(
    "damage",
    ["{", "", "[]", "7", '{"round": 1}', '{"entry": "refund", "round": 1}', '{"entry": "r'],
)
def test_a_damaged_line_is_named(ledger: Ledger, damage: str) -> None:
    reserve(ledger, 1, 2, mechanism=RESPONSE)
    lines = ledger.path.read_text().splitlines()
    ledger.path.write_text("\n".join([lines[0], damage, lines[1]]) + "\n")
    with pytest.raises(RunError, match=r"ledger\.jsonl, line 2: no ledger entry"):
        ledger.exposure()


def test_a_ledger_that_is_no_text_is_refused(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(RunError, match="line 1: no ledger entry"):
        ledger.entries()


@pytest.mark.parametrize("line", [1, 2])
def test_changing_or_removing_a_line_breaks_the_chain(ledger: Ledger, line: int) -> None:
    reserve(ledger, 1, 2, 3, mechanism=RESPONSE)
    lines = ledger.path.read_text().splitlines(keepends=True)
    cheaper = [*lines]
    cheaper[line - 1] = cheaper[line - 1].replace('"answers": 100', '"answers": 10')
    ledger.path.write_text("".join(cheaper))
    with pytest.raises(RunError, match=f"line {line + 1}: does not follow line {line}"):
        ledger.exposure()
    ledger.path.write_text("".join(lines[: line - 1] + lines[line:]))
    with pytest.raises(RunError, match=f"line {line}: does not follow"):
        ledger.exposure()


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_cut_off_by_a_crash_never_counted(ledger: Ledger, cut: int) -> None:
    reserve(ledger, 1, 2, mechanism=RESPONSE)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])
    assert ledger.exposure().teacher == 100
    reserve(ledger, 2, mechanism=RESPONSE)
    assert [entry["round"] for entry in ledger.entries()] == [1, 2]
    assert Ledger(ledger.path).head == ledger.head


def test_a_missing_ledger_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        ledger.exposure()


@MECHANISMS
def test_certificate_states_what_accounting_says(run: Ledger, mechanism: Mechanism) -> None:
    reserve(run, 1, 2, 2, mechanism=mechanism)
    certificate = certificate_of(run)
    exposure = Exposure(response=2, round=3, teacher=300)
    assert certificate.spent == spent(mechanism.event(), exposure, delta=1e-5)
    assert certificate.events == {"response": 2, "round": 3, "teacher": 300}
    assert certificate.mechanism == mechanism.parameters()
    assert certificate.relation == "replace-one"
    assert (certificate.teacher, certificate.student) == ("sha256:ab", "sha256:cd")


def test_certificate_is_about_the_ledger_and_not_the_target(ledger: Ledger) -> None:
    opened(ledger, epsilon=3.9, delta=0)
    reserve(ledger, 1, 2, 3, 3, mechanism=RESPONSE)
    certificate = certificate_of(ledger)  # 3 rounds of 1.3, one of them twice
    assert certificate.spent.round == pytest.approx(5.2)


@MECHANISMS
def test_markdown_states_every_epsilon_with_its_adjacency(
    run: Ledger, mechanism: Mechanism
) -> None:
    reserve(run, 1, 2, 3, mechanism=mechanism)
    certificate = certificate_of(run)
    rows = [line for line in certificate.to_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(Adjacency)
    for adjacency, row in zip(Adjacency, rows, strict=True):
        assert f"`{adjacency.value}`" in row
        assert ADJACENCY_MEANINGS[adjacency] in row
        assert f" {format_epsilon(certificate.spent.under(adjacency))} |" in row
    text = certificate.to_markdown()
    assert "Calibrated to ε = 4.0 at δ = 1e-05, adjacency `round`." in text
    assert "not about a person in its training data" in text
    assert "noise, crops" in text


@pytest.mark.parametrize("members", [1, 20])
@pytest.mark.parametrize("claim", [True, False, None, "yes"])
def test_the_unit_is_an_image_where_the_ledger_says_so_and_nowhere_else(
    ledger: Ledger, members: int, claim: object
) -> None:
    opened(ledger, members=members, distinct_images=claim)
    reserve(ledger, 1, mechanism=RESPONSE)
    certificate = certificate_of(ledger)
    own = ADJACENCY_MEANINGS if members == 1 else ENSEMBLE_MEANINGS
    assert certificate.distinct_images == (claim is True)
    for kind in (Adjacency.RESPONSE, Adjacency.ROUND):
        assert (certificate.meanings[kind] == own[kind]) == (claim is True)
    assert (REPEATED_IMAGES in certificate.limits) == (claim is not True)
    if members == 1:
        assert ("about one image" in certificate.unit) == (claim is True)
        assert ("about one image" in certificate.headline) == (claim is True)


def test_json_states_the_same(run: Ledger, tmp_path: Path) -> None:
    reserve(run, 1, 2, mechanism=RESPONSE)
    certificate = certificate_of(run)
    certificate.save(tmp_path / "certificate.json")
    stated = json.loads((tmp_path / "certificate.json").read_text())
    for adjacency in Adjacency:
        assert stated["spent"][adjacency.value] == certificate.spent.under(adjacency)
    assert stated["does_not_promise"] == certificate.limits
    assert stated["private"]
    assert "warning" not in stated


@pytest.mark.parametrize("reproducible_rounds", [[1], [2], [1, 2]])
def test_reproducible_noise_is_stamped(run: Ledger, reproducible_rounds: list[int]) -> None:
    for index in (1, 2):
        reproducible = index in reproducible_rounds
        noisy = RESPONSE.with_noise(ReproducibleNoise(seed=1)) if reproducible else RESPONSE
        reserve(run, index, mechanism=noisy)
    certificate = certificate_of(run)
    assert not certificate.private
    assert NOT_PRIVATE in certificate.to_markdown()
    assert json.loads(certificate.to_json())["warning"] == NOT_PRIVATE


def test_system_noise_is_not_stamped(run: Ledger) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    assert certificate_of(run).private
    assert "NOT PRIVATE" not in certificate_of(run).to_markdown()


def test_a_ledger_that_does_not_say_what_run_it_is_of_gives_no_certificate(ledger: Ledger) -> None:
    reserve(ledger, 1, mechanism=RESPONSE)
    with pytest.raises(RunError, match="line 1: does not say what run this is"):
        certificate_of(ledger)


def test_opening_twice_says_it_once(run: Ledger) -> None:
    assert [entry["entry"] for entry in opened(run).entries()] == ["open"]


@pytest.mark.parametrize(
    ("runs", "more", "expected"),
    [
        (0, {"file": "a.jsonl"}, "no other run had asked this teacher before. Costs .*(a.jsonl)"),
        (0, {"accounts": 3}, "no other run had asked any of its teachers before"),
        (2, {"file": "a.jsonl"}, "Before it, 2 other runs had asked this teacher and spent"),
        (2, {"accounts": 3}, "asked the one of its 3 teachers that had spent most and spent"),
    ],
)
def test_the_history_speaks_of_the_teacher_that_had_spent_most(
    run: Ledger, runs: int, more: dict[str, object], expected: str
) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    before = {"runs": runs, "response": 1.0, "round": 2.0, "teacher": 3.0}
    assert re.search(expected, replace(certificate_of(run), earlier=before | more).history)


def test_certificates_keep_to_the_schema(run: Ledger) -> None:
    schema = json.loads(
        files("dpsd.privacy.records").joinpath("certificate.schema.json").read_text()
    )
    reserve(run, 1, mechanism=RESPONSE)
    stated = json.loads(certificate_of(run).to_json())
    jsonschema.validate(stated, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stated | {"private": False}, schema)
    nothing = {"runs": 0, "response": 0.0, "round": 0.0, "teacher": 0.0}
    for earlier in ({"file": "budget.jsonl"}, {"accounts": 3}, {}):
        jsonschema.validate(stated | {"earlier": nothing | earlier}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stated | {"earlier": nothing | {"accounts": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stated | {"relation": "add-or-remove"}, schema)


@pytest.mark.parametrize(
    ("said", "instead"),
    [('"round": 1.29', '"round": 1.09'), ('"noise",', '"crops",'), ('"private": true', "NaN")],
)
def test_a_changed_certificate_is_told_by_its_line(run: Ledger, said: str, instead: str) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    text = certificate_of(run).to_json()
    assert difference(certificate_of(run), text) is None
    line = next(i for i, one in enumerate(text.splitlines(), start=1) if said in one)
    changed = text.replace(said, instead)
    assert changed != text
    assert (difference(certificate_of(run), changed) or "").startswith(f"line {line}: says ")
    assert difference(certificate_of(run), text[: len(text) // 2]) is not None


@pytest.mark.parametrize("version", [1, 2, VERSION])
def test_names_of_classes_are_stated_where_there_are_any(run: Ledger, version: int) -> None:
    schema = json.loads(
        files("dpsd.privacy.records").joinpath("certificate.schema.json").read_text()
    )
    reserve(run, 1, mechanism=RESPONSE)
    bare = certificate_of(run)
    named = replace(bare, class_names=("cat", "dog"))
    assert "class_names" not in json.loads(bare.to_json())
    stated = json.loads(named.to_json())
    jsonschema.validate(stated, schema)
    assert stated["class_names"] == ["cat", "dog"]
    assert "0 “cat”, 1 “dog”" in named.to_markdown()
    stored = json.dumps(stated | {"version": version}, indent=2, default=str) + "\n"
    assert difference(named, stored) is None
    assert difference(bare, stored) is not None
    swapped = replace(bare, class_names=("dog", "cat"))
    assert difference(swapped, stored) is not None
    earlier = json.dumps(json.loads(bare.to_json()) | {"version": version}, indent=2) + "\n"
    assert difference(bare, earlier) is None


@pytest.mark.parametrize("version", [0, VERSION + 1, 99, "2", None])
def test_a_certificate_of_an_unknown_version_is_not_believed(run: Ledger, version: object) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    certificate = certificate_of(run)
    stored = json.loads(certificate.to_json()) | {"version": version}
    said = difference(certificate, json.dumps(stored, indent=2) + "\n")
    assert said is not None
    assert said.startswith("version: says ")


@pytest.mark.parametrize("version", [1, VERSION])
def test_a_certificate_says_nothing_that_is_unknown(run: Ledger, version: int) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    certificate = certificate_of(run)
    stored = {"approved_by": "nobody", **json.loads(certificate.to_json()), "version": version}
    said = difference(certificate, json.dumps(stored, indent=2) + "\n")
    assert said is not None
    assert "approved_by" in said


def test_a_certificate_says_which_run_it_is_about_and_when_that_was(run: Ledger) -> None:
    reserve(run, 1, mechanism=RESPONSE)
    certificate = certificate_of(run)
    times = [entry["time"] for entry in run.entries()]
    assert (certificate.run, certificate.started, certificate.latest) == ("r", times[0], times[-1])
    for name in ("run", "started", "latest"):
        assert getattr(certificate, name) in certificate.to_markdown()
    second = json.loads(certificate.to_json()) | {"version": 2}
    for name in ("run", "started", "latest"):
        assert (difference(certificate, json.dumps(second | {name: "x"})) or "").startswith(name)
        del second[name]  # which that version did not say
    assert difference(certificate, json.dumps(second)) is None


@pytest.mark.parametrize("version", [1, VERSION])
def test_a_warning_that_was_taken_out_is_missed(run: Ledger, version: int) -> None:
    reserve(run, 1, mechanism=RESPONSE.with_noise(ReproducibleNoise(seed=1)))
    certificate = certificate_of(run)
    stored = json.loads(certificate.to_json()) | {"version": version}
    del stored["warning"]
    said = difference(certificate, json.dumps(stored, indent=2) + "\n")
    assert said is not None
    assert said.startswith("warning: says null" if version == 1 else "line ")


def test_nothing_asked_gives_no_certificate(run: Ledger) -> None:
    run.commit(round_index=1, sha256="sha256:ef")
    with pytest.raises(RunError, match="nothing was asked yet"):
        certificate_of(run)


@given(st.floats(0, 1e7))
def test_shown_epsilons_are_rounded_up(epsilon: float) -> None:
    shown = float(format_epsilon(epsilon).replace(",", ""))
    # A billionth is what the accountants themselves are exact to.
    assert shown >= epsilon * (1 - 1e-9) - 1e-9
    assert shown <= epsilon + (1.0 if epsilon >= 999 else 1.1e-3)


@pytest.mark.parametrize(
    ("epsilon", "shown"),
    [
        (0.0, "0"),
        (1e-30, "0.001"),
        (1e-6, "0.001"),
        (1.0, "1"),
        (0.9999999999, "1"),
        (1.0001, "1.001"),
        (8.25, "8.25"),
        (999.9999, "1,000"),
        (150018.05, "150,019"),
        (math.inf, "∞"),
    ],
)
def test_shown_epsilons(epsilon: float, shown: str) -> None:
    assert format_epsilon(epsilon) == shown


@pytest.mark.parametrize("members", [1, 5])
def test_time_is_not_promised(run: Ledger, members: int) -> None:
    reserve(run, 1, 2, mechanism=RESPONSE)
    assert replace(certificate_of(run), members=members).limits.endswith(TIMING_LIMIT)
