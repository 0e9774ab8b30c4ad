"""Runs of an earlier dpsd, which asked some images several times, still open, certify and resume.

``earlier/`` holds what it wrote: a run that was interrupted after its first round was stored, whose
source made two images only, and the ledger and certificate of one that lost an attempt and ended.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import dpsd
from dpsd import Observer, RunDirectory
from dpsd.privacy.records.certificate import (
    PLACE_MEANINGS,
    REPEATED_IMAGES,
    VERSION,
    Certificate,
    certify,
)
from dpsd.privacy.records.comparison import difference
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.targets import Adjacency
from dpsd.teachers import CallableTeacher

EARLIER = Path(__file__).parent / "earlier"


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "releases").mkdir(parents=True)
    for name in ("config.toml", "student.json", "ledger.jsonl"):
        shutil.copy(EARLIER / "unfinished" / name, run)
    stored = base64.b64decode((EARLIER / "unfinished" / "round-0001.base64").read_text())
    (run / "releases" / "round-0001.safetensors").write_bytes(stored)
    return run


class Silent(Observer):
    def warn(self, message: str) -> None:
        pass


def test_an_unfinished_run_certifies_in_the_old_words(unfinished: Path) -> None:
    run = RunDirectory.open(unfinished)
    stored = run.stored_releases(1)
    assert stored is not None
    assert stored.asked is None
    assert len(stored.digests().unique()) < len(stored) == 12
    certificate = run.certify()
    assert not certificate.distinct_images
    assert certificate.events == {"response": 1, "round": 1, "teacher": 12}
    text = certificate.to_markdown()
    assert PLACE_MEANINGS[Adjacency.RESPONSE] in text
    assert REPEATED_IMAGES in text
    assert "about one image" not in text.replace(REPEATED_IMAGES, "")


def test_an_unfinished_run_resumes_and_claims_no_more_than_it_did(unfinished: Path) -> None:
    shown: Counter[bytes] = Counter()

    def answer(images: Tensor) -> Tensor:
        shown.update(row.numpy().tobytes() for row in (images * 255).round().byte())
        return (20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)).softmax(-1)

    teacher = CallableTeacher(
        answer, input_shape=(1, 8, 8), num_classes=3, scores="probabilities", name="thirds"
    )
    shown.clear()
    stored = RunDirectory.open(unfinished).stored_releases(1)
    assert stored is not None
    before = {row.numpy().tobytes() for row in stored.queries}
    run = dpsd.resume(unfinished, teacher, observer=Silent())
    assert not run.certificate.distinct_images
    assert run.certificate.events == {"response": 1, "round": 2, "teacher": 24}
    assert set(shown.values()) == {1}
    assert not before & set(shown)  # what it asked before, it knows
    later = run.directory.stored_releases(2)
    assert later is not None
    assert later.asked is not None
    assert RunDirectory.open(unfinished).certify() == run.certificate


@pytest.fixture
def finished() -> Certificate:
    ledger = Ledger(EARLIER / "finished" / "ledger.jsonl")
    return certify(ledger, student=ledger.entries()[-1]["student"])


@pytest.fixture
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EARLIER / "finished" / "certificate.json").read_text())
    return found


def test_a_certificate_of_an_earlier_version_says_the_same(
    finished: Certificate, stored: dict[str, Any]
) -> None:
    assert stored["version"] == 1 < VERSION
    assert stored["two_worlds_differ_in"]["response"] != finished.meanings[Adjacency.RESPONSE]
    assert difference(finished, json.dumps(stored)) is None
    # Its bounds were looser, and its second opinion was of other orders.
    loose = stored["spent"] | {"response": 4.1, "teacher": 80.0, "rdp": {}}
    assert difference(finished, json.dumps(stored | {"spent": loose})) is None


def test_a_fact_that_was_changed_in_an_earlier_certificate_is_named(
    finished: Certificate, stored: dict[str, Any]
) -> None:
    lower = stored["spent"] | {"round": 5.9}
    for changed, named in (
        ({"spent": lower}, "spent.round: says 5.9, but the ledger says 6.0000"),
        ({"spent": stored["spent"] | {"teacher": None}}, "spent.teacher: says null"),
        ({"spent": stored["spent"] | {"delta": 1e-5}}, "delta: says 1e-05"),
        ({"events": stored["events"] | {"response": 1}}, "events.response: says 1, but"),
        ({"events": stored["events"] | {"person": 1}}, "events.person: says 1, but"),
        ({"private": 1}, "private: says 1, but the ledger says true"),
        ({"members": 10**400}, "members: says 1000"),
        ({"sources": ["crops"]}, 'sources: says ["crops"]'),
        ({"student": "sha256:00"}, 'student: says "sha256:00"'),
        ({"headline": stored["headline"].replace("6.001", "5")}, 'headline: says "ε = 5 at'),
        ({"distinct_images": True}, "distinct_images: says true, but"),
    ):
        assert (difference(finished, json.dumps(stored | changed)) or "").startswith(named), named
    for name in ("target", "spent", "events", "mechanism", "ledger", "relation", "headline"):
        less = {key: value for key, value in stored.items() if key != name}
        assert (difference(finished, json.dumps(less)) or "").startswith(name)


def test_a_certificate_of_this_version_is_compared_word_by_word(finished: Certificate) -> None:
    text = finished.to_json()
    assert difference(finished, text) is None
    changed = json.loads(text) | {"trust": "Trust me."}
    said = difference(finished, json.dumps(changed, indent=2) + "\n") or ""
    assert said.startswith("line ")
    assert "Trust me." in said


def test_a_new_run_cannot_have_a_certificate_of_the_earlier_version(
    finished: Certificate, stored: dict[str, Any]
) -> None:
    """Whose words would not be compared."""
    new = dataclasses.replace(finished, distinct_images=True)
    assert (difference(new, json.dumps(stored)) or "").startswith("distinct_images: says false")
