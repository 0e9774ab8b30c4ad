"""The pages about a run: what is on them first, and what a short run leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dpsd.privacy.mechanisms import Mechanism, NoisyVotes, RandomizedResponse
from dpsd.privacy.randomness import ReproducibleNoise
from dpsd.privacy.records.certificate import NOT_PRIVATE, Certificate, certify
from dpsd.privacy.records.ledger import Ledger, reservation
from dpsd.privacy.records.statement import Statement
from dpsd.privacy.targets import Adjacency
from dpsd.reporting.curves import progress_figure
from dpsd.reporting.html import certificate_page, coded, counted

RESPONSE = RandomizedResponse(epsilon=2.0)


def stated(
    folder: Path,
    *,
    adjacency: str = "response",
    members: int = 1,
    mechanism: Mechanism = RESPONSE,
    **facts: object,
) -> Certificate:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    opening: dict[str, Any] = {
        "run": "7047",
        "target": {"epsilon": 2.0, "delta": 1e-5, "adjacency": adjacency},
        "rounds": 1,
        "settings": {},
        "sources": ["noise"],
        "teacher": "sha256:ab",
        "software": {"dpsd": "0"},
        "earlier": None,
        "members": members,
        "disjoint_data": members > 1,
        "distinct_images": True,
    }
    ledger.open({**opening, **facts})
    ledger.reserve(reservation(round_index=1, answers=50, mechanism=mechanism, teacher="sha256:ab"))
    return certify(ledger, student="sha256:cd")


class Words(HTMLParser):
    """The text of a page, in order, without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._is_shown = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._is_shown |= tag == "body"

    def handle_data(self, data: str) -> None:
        self.text += data if self._is_shown else ""


def words(page: str) -> str:
    parser = Words()
    parser.feed(page)
    return " ".join(parser.text.split())


def pages(certificate: Certificate) -> list[str]:
    names = {"run": "digits", "teacher": "clinic.onnx"}
    markdown = certificate.to_markdown(**names).replace("`", "").replace("*", "")
    return [words(certificate_page(certificate, **names)), " ".join(markdown.split())]


@pytest.mark.parametrize("adjacency", ["response", "round"])
def test_one_epsilon_comes_first_with_what_it_is_about(tmp_path: Path, adjacency: str) -> None:
    certificate = stated(tmp_path, adjacency=adjacency)
    for page in pages(certificate):
        first = page.index(f"ε = 2 at δ = 1e-05, adjacency {adjacency}")
        about = page.index("This ε is about one answer")
        nobody = page.index("Nothing here protects a person in the training data.")
        assert page.index("ε =") == first < about < nobody
        named = [page.index(name) for name in (certificate.latest[:10], "digits", "clinic.onnx")]
        assert nobody < min(named)
        limits, others = page.index("What this does not promise"), page.index("Second opinions")
        assert max(named) < limits < others < page.index("ε (RDP)")


def test_an_epsilon_about_the_whole_teacher_is_no_promise_to_a_person(tmp_path: Path) -> None:
    for page in pages(stated(tmp_path, adjacency="teacher")):
        assert "This ε is about the whole teacher" in page
        assert "It is no promise to a person in the training data" in page


@pytest.mark.parametrize(
    ("disjoint", "dealt_by", "about"),
    [
        (True, "position", "a training record, for teachers trained on their own shards"),
        (False, None, "a training record, if the teachers' data are disjoint"),
        (True, "person", "a person: all of their training records, for teachers trained"),
    ],
)
def test_an_ensembles_epsilon_is_about_its_unit(
    tmp_path: Path, disjoint: bool, dealt_by: str | None, about: str
) -> None:
    votes = NoisyVotes(noise_multiplier=5.0, teachers=20)
    certificate = stated(
        tmp_path,
        members=20,
        mechanism=votes,
        disjoint_data=disjoint,
        dealt_by=dealt_by,
    )
    assert certificate.counting is Adjacency.TEACHER
    for page in pages(certificate):
        assert f"This ε is about {about}" in page
        assert "Nothing here protects a person" not in page


def test_noise_that_can_be_reproduced_is_said_before_everything(tmp_path: Path) -> None:
    noisy = RESPONSE.with_noise(ReproducibleNoise(seed=1))
    for page in pages(stated(tmp_path, mechanism=noisy)):
        assert page.index(NOT_PRIVATE) < page.index("ε =")
    assert not stated(tmp_path / "other", mechanism=RESPONSE).warning


def test_an_unfinished_run_is_said_to_be_so(tmp_path: Path) -> None:
    for page in pages(replace(stated(tmp_path), student="")):
        assert "the run is not finished" in page


def test_a_page_has_no_markdown_and_prints_on_paper(tmp_path: Path) -> None:
    page = certificate_page(stated(tmp_path), run="a <b> & `c`", teacher="t")
    assert "`" not in page[page.index("<body>") :]
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b>" not in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@page { size: A4;" in style
    assert "@media print" in style
    # What says something says it without a colour.
    assert set(re.findall(r"#[0-9a-f]{3,6}", style)) == {"#000", "#fff", "#bbb"}
    assert "src=" not in page
    assert "href=" not in page


def test_names_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    certificate = stated(tmp_path)
    assert dict(Statement(certificate=certificate).subjects)["Run"] == "`7047`"
    assert dict(Statement(certificate=certificate, run="a").subjects)["Run"] == "`a`, `7047`"


def rounds(count: int, *, agreeing: int) -> list[dict[str, Any]]:
    known = {"mean": 0.5, "standard_error": 0.1}
    return [
        {
            "round": number,
            "student_loss": 1.0,
            "agreement": known if number > count - agreeing else None,
        }
        for number in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("count", "agreeing", "titles"),
    [
        (0, 0, []),
        (1, 0, []),
        (1, 1, []),
        (2, 1, ["Student's loss"]),
        (3, 2, ["Agreement", "Student's loss"]),
    ],
)
def test_a_curve_has_two_points_at_least(count: int, agreeing: int, titles: list[str]) -> None:
    figure = progress_figure({"run": rounds(count, agreeing=agreeing)})
    drawn = "" if figure is None else figure.svg
    assert bool(drawn) == bool(titles)
    for title in ("Agreement", "Student's loss"):
        assert (title in drawn) == (title in titles)
    assert drawn.count('id="rounds-axes_') == len(titles)


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "query", "1 query"), (2_000, "query", "2,000 queries"), (0, "round", "0 rounds")],
)
def test_plurals(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_code_is_escaped() -> None:
    assert coded("`<i>` and <i>") == "<code>&lt;i&gt;</code> and &lt;i&gt;"
