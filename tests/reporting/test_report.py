"""The report: what is on it, what is not, and that everybody can read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import dpsd
from dpsd.errors import ConfigError
from dpsd.reporting.html import part
from dpsd.reporting.inlining import attack_pictures, inlined
from dpsd.reporting.report import MOST_BYTES, Report
from dpsd.runs.findings import FOLDER, Findings

Make = Callable[..., Report]
#: The figures of the confusion of a run.
CONFUSIONS = (
    "confusion-1-run-1-teacher-and-student",
    "confusion-1-run-1-truth-and-student-s-test",
)
#: Elements that have no end.
VOID = {"meta", "img", "input"}
#: The least contrast of text that WCAG 2 asks for at level AA.
AA = 4.5


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text without styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.text = " ".join(self.text.split())
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.text += f" {data}"

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(report: Make) -> str:
    """The page of two runs with everything on it."""
    return report(runs=2).html()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_sections_come_in_the_order_in_which_they_matter(page: Page) -> None:
    order = [
        *("Not for publication", "Verdict", "What was bought", "What was not bought"),
        *("What the student learned", "How accurate it is", "What membership found", "All runs"),
        *("Accuracy, agreement and loss", "ε under three adjacencies", "does not promise"),
        *("The generator, round by round", "Confusion", "Attacks", "Time and space"),
        *("Configuration", "How to reproduce"),
    ]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)


def test_every_number_says_what_it_is_about(page: Page) -> None:
    for expected in (
        *("ε = 8 at δ = 1e-05, adjacency response", "On 40 images of s, test split"),
        *("dpsd chose nothing by these images", "before it learned from them"),
        *("95%", "estimated from releases"),
    ):
        assert expected in page.text


def test_an_attack_that_failed_its_control_is_invalid_and_has_no_verdict(page: Page) -> None:
    assert "Attack invalid: it failed its own controls (memorised)" in page.text
    assert "AUC 0.5" not in page.text
    assert "No near-copies among 100 samples" in page.text
    assert "12.5%" in page.text


def test_a_public_page_has_nothing_that_was_measured_on_private_data(report: Make) -> None:
    text = Page(report(private=False).html()).text
    for private in ("Not for publication", "near-copies", "Attack", "40 images", "true class"):
        assert private not in text
    assert "No number here says how the student does on real images" in text


def test_the_report_of_a_run_is_the_public_page(run: dpsd.RunDirectory, report: Make) -> None:
    own = (run.path / "report.html").read_text(encoding="utf-8")
    headings = [re.findall("<h2.*?</h2>", text) for text in (own, report(private=False).html())]
    assert headings[0] == headings[1]
    assert "Not for publication" not in own
    assert "PATH" not in Page(own).text


def test_a_page_fetches_nothing_and_runs_one_script(html: str, page: Page) -> None:
    assert "http:" not in html
    assert "https:" not in html
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action", "data")
    ]
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import", html)
    (policy,) = (one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy[policy.index("script-src") :]
    assert html.count("<script") == 1


def test_words_of_the_owner_are_never_markup(html: str, page: Page) -> None:
    assert "onerror=alert(1)>" not in html
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert html.count("</script>") == 1


def test_everything_that_is_seen_is_said(page: Page) -> None:
    assert page.all("img")
    assert all(len(one.get("alt", "")) > 20 for one in page.all("img") if "pairs" not in one)
    drawn = page.all("svg")
    assert len(drawn) == len([one for one in page.all("div") if one.get("role") == "img"])
    assert all(one["aria-hidden"] == "true" for one in drawn)
    for one in page.all("div"):
        if one.get("role") == "img":
            assert one["aria-label"].endswith(".")
    assert all(
        page.elements[number + 1][0] == "summary"
        for number, (tag, _) in enumerate(page.elements)
        if tag == "details"
    )
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    # Marks of matplotlib are named by their form, so an equal name is an equal form.
    named = [name for name in names if not re.fullmatch(r".*-(m|p)[0-9a-f]{8,}", name)]
    assert len(named) == len(set(named))


def test_headings_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_headings_for_their_columns(page: Page) -> None:
    assert len(page.all("table")) == len(page.all("thead"))
    assert all(one["scope"] in ("row", "col") for one in page.all("th"))


def colors() -> Iterator[dict[str, str]]:
    """The colours of the style sheet by their names, on light and on dark paper."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", part("report.css.j2"))
    for theme in (1, 2):
        yield {one[0]: one[theme] for one in found}


def luminance(color: str) -> float:
    """The relative luminance that WCAG 2 defines."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def laid_over(paper: str, color: str, alpha: float) -> str:
    pairs = [(int(color[at : at + 2], 16), int(paper[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(alpha * top + (1 - alpha) * below):02x}" for top, below in pairs)


def test_contrast_is_that_of_black_and_white_at_its_most() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", list(colors()), ids=["light", "dark"])
def test_colors_are_readable(theme: dict[str, str]) -> None:
    for paper in ("paper", "panel", "notice"):
        assert contrast(theme["ink"], theme[paper]) >= AA
    for text in ("quiet", "series-1", "series-2", "series-3", "series-4"):
        assert contrast(theme[text], theme["paper"]) >= AA
    # The numbers of a confusion matrix are written on its tiles.
    for tile in ("series-1", "series-2"):
        assert contrast(theme["ink"], laid_over(theme["paper"], theme[tile], 0.45)) >= AA


def test_a_page_stays_small_whatever_its_pictures(
    run: dpsd.RunDirectory,
    report: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise_picture: Callable[[Path, int], None],
) -> None:
    for number in range(12):
        noise_picture(tmp_path / f"round-{number:04d}.png", 800)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 2 * MOST_BYTES
    monkeypatch.setattr("dpsd.runs.pictures.sheet_path", lambda _: tmp_path / "generator.png")
    made = report(private=False).html()
    assert len(made.encode()) < MOST_BYTES
    assert made.count("data:image/jpeg") == 12


def test_no_command_is_shown_that_would_need_an_object(
    report: Make, run: dpsd.RunDirectory, findings: list[Findings]
) -> None:
    assert run.objects == ("teacher",)  # the fixture's is a function of this process
    page = Page(report().html()).text
    assert "dpsd transcribe --config" not in page
    assert "dpsd attack" not in page
    assert "run 1 was given its teacher as an object in Python, so no command makes it" in page
    assert "run 1 was attacked from Python (membership, copies)" in page
    assert "dpsd certify 'run 1'" in page
    assert "dpsd evaluate 'run 1'" in page  # measures the student alone
    # Who attacked by a command said there what the teacher was trained on.
    asked = replace(findings[1], asked=("--teacher", "moved"))
    by_function = replace(asked, kind="membership", details={"teachers": {"function": "own.f"}})
    made = report()
    subject = replace(made.subjects[0], findings=[asked, by_function])
    page = Page(replace(made, subjects=[subject]).html()).text
    assert "dpsd attack 'run 1' --data digits --kind copies --teacher moved" in page
    assert "run 1 was attacked from Python (membership)" in page
    assert "--kind membership" not in page


def test_as_many_runs_as_are_named_fit_with_their_commands(
    report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = report(runs=3, private=False)
    drawn = made.figures["epsilon"]  # once, as drawing is slow
    monkeypatch.setattr("dpsd.reporting.report.epsilon_figure", lambda _: drawn)
    monkeypatch.setattr("dpsd.reporting.report.progress_figure", lambda _, **__: None)
    made = replace(made, commands=["dpsd report " + 5_000 * "x"])
    two = replace(made, subjects=made.subjects[:2])
    monkeypatch.setattr("dpsd.reporting.report._SPARE", 0)
    monkeypatch.setattr("dpsd.reporting.report.MOST_BYTES", len(two._page({}, 1).encode()) - 1_000)
    with pytest.raises(ConfigError, match="give at most the first 1 of them"):
        made.html()
    with pytest.raises(ConfigError, match="runs are 2, which do not fit"):
        two.html()


@pytest.mark.thorough
def test_many_runs_show_fewer_pictures_each_and_then_do_not_fit(
    report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(most: int) -> tuple[int, int]:
        monkeypatch.setattr("dpsd.reporting.report.MOST_BYTES", most)
        page = made.html()
        assert len(page.encode()) <= most
        return page.count("data-round="), page.count("data:image/")

    made = report(runs=3, private=False)
    text = len(re.sub(r"data:image/[^\"]*", "", made.html()).encode()) + 50_000
    assert shown(MOST_BYTES) == (9, 9)
    assert shown(text + 60_000) == (3, 3)
    assert "Shown are 1 of 3 rounds; the images of all are in" in made.html()
    with pytest.raises(ConfigError, match=r"runs are 3, .* give at most the first 2 of them"):
        shown(text - 20_000)
    with pytest.raises(ConfigError, match="give at most the first 1 of them"):
        shown(50_000)
    # Every finished run has its page, however long.
    assert Page(report(private=False).html()).all("figure")


def test_damaged_pictures_are_left_out(tmp_path: Path) -> None:
    assert inlined(b"\x89PNG no more", most=4) == ""
    assert inlined(b"", most=1_000) == ""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / FOLDER).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / FOLDER / "a.png")
    assert attack_pictures(tmp_path, "../a") == []
    assert attack_pictures(tmp_path, "a") == [tmp_path / FOLDER / "a.png"]


def test_pictures_of_records_are_said_to_be_so(
    run: dpsd.RunDirectory, report: Make, noise_picture: Callable[[Path, int], None]
) -> None:
    picture = run.path / FOLDER / "pairs.png"
    noise_picture(picture, 32)
    try:
        page = Page(report().html())
    finally:
        picture.unlink()
        picture.parent.rmdir()
    assert "None is alike." in [one["alt"] for one in page.all("img")]
    assert "This picture shows private records themselves." in page.text


def test_further_models_are_named_without_their_paths(
    report: Make, findings: list[Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsd.RunDirectory, "objects", ())
    attacked = {"attacked": {"also": {"dp-sgd": "sha256:ab", "data-8": "sha256:cd"}}}
    inversion = replace(findings[1], kind="inversion", details=attacked)
    subject = replace(report(private=False).subjects[0], findings=[inversion, findings[1]])
    text = Page(Report(subjects=[subject]).html()).text
    again = text[text.index("How to reproduce") :]
    assert "PATH stands for the place of a further model" in again
    assert "--kind inversion --also dp-sgd=PATH --also data-8=PATH dpsd attack" in again
    assert again.count("--also") == 2
    assert "sha256:ab" not in text


def test_runs_are_compared_in_words_and_side_by_side(page: Page) -> None:
    compared = page.text[page.text.index("All runs") : page.text.index("Accuracy, agreement")]
    assert "run 1 bought ε = 8 at δ = 1e-05, adjacency response ; run 2 bought" in compared
    assert "On 40 images of s, test split, the student's accuracy is" in compared
    assert "All were measured on data of the same name and size. If the images are" in compared
    assert "fact run 1 run 2 what was bought" in compared


def test_memory_is_shown_beside_seconds_as_far_as_it_is_on_record(
    report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = report(private=False)
    lines = made.subjects[0].run.metrics()
    peaks: list[dict[str, Any]] = [
        {"peak_memory_mb": {"process": 4300}},
        {"peak_memory_mb": {"process": 4400, "accelerator": 1200}},
    ]
    old = {name: value for name, value in lines[0].items() if name != "peak_memory_mb"}
    lines = [old, *(line | peak for line, peak in zip(lines[1:], peaks, strict=True))]
    monkeypatch.setattr(type(made.subjects[0].run), "metrics", lambda _: lines)
    text = Page(Report(subjects=[replace(made.subjects[0])]).html()).text
    shown = text[text.index("part seconds memory, up to MB") :]
    assert re.search(
        r"round 1 \d+ - round 2 \d+ 4,300 round 3 \d+ 4,400; accelerator 1,200 "
        r"all rounds \d+ 4,400; accelerator 1,200",
        shown,
    )


def test_flags_are_not_broken_into_two_lines(html: str) -> None:
    assert '<span class="flag">--public</span>' in html
    assert ".flag { white-space: nowrap; }" in html


def test_figures_are_written_for_papers(report: Make, tmp_path: Path) -> None:
    made = report()
    (subject,) = made.subjects
    (evaluation,) = subject.evaluations
    twice = replace(subject, name="Ålesund/run 1", evaluations=[evaluation, evaluation])
    assert [figure.name for figure in twice.confusions()[1:]] == [
        "confusion-1-lesund-run-1-truth-and-student-s-test",
        "confusion-1-lesund-run-1-truth-and-student-s-test-2",
    ]
    paths = made.save_figures(tmp_path / "figures")
    names = {path.stem for path in paths}
    assert {"rounds", "epsilon", *CONFUSIONS} <= names
    assert {path.suffix for path in paths} == {".svg", ".png"}
    assert "var(--" not in (tmp_path / "figures" / "rounds.svg").read_text()
    assert Image.open(tmp_path / "figures" / "epsilon.png").width > 2_000


def test_a_confusion_of_releases_is_estimated_without_data(report: Make) -> None:
    figure = report(private=False).figures[CONFUSIONS[0]]
    assert "estimated from releases" in figure.title
    assert len(figure.rows) == 2


def test_settings_do_not_tell_where_something_is_kept(
    report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = report(private=False)
    config: Any = made.subjects[0].run.config()
    kept = config.changed(
        teacher="/home/me/secret/clinic.onnx",
        public="/home/me/secret/scans",
        features="/home/me/secret/backbone",
    )
    monkeypatch.setattr(type(made.subjects[0].run), "config", lambda _: kept)
    text = Page(made.html()).text
    assert "secret" not in text
    assert all(name in text for name in ("clinic.onnx", "scans", "backbone"))
