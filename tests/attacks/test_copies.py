"""Copies are found where they were planted, and nowhere else; chance is stated exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu
from torch import Tensor

from dpsd.attacks.copies import Copies, attack, searching, usefulness
from dpsd.attacks.copies.comparing import Space
from dpsd.attacks.copies.pairs import closest_pairs
from dpsd.attacks.copies.plants import Plants
from dpsd.attacks.copies.records import Records, reduced
from dpsd.attacks.copies.spaces import SPACES, Embedding, nearest, pixels, scattering_features
from dpsd.attacks.copies.statistics import (
    LEVEL,
    near_copies,
    nearer,
    three_sample,
)
from dpsd.attacks.target import Silent, Target
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.devices.execution import Execution
from dpsd.errors import ConfigError
from dpsd.reporting.evaluations import wilson
from dpsd.results.synthetic import SyntheticData
from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Findings, read_findings

MEMBERS, OTHERS = (load_dataset("digits", split) for split in ("train", "test"))
TINY = replace(Copies.quick(), samples=200, training=100, epochs=1)


@pytest.fixture(scope="module")
def records() -> Records:
    return Records.of(MEMBERS, OTHERS, most_members=2_000, most_others=1_000, seed=0)


@pytest.fixture(scope="module", params=["pixels", "scattering"])
def space(records: Records, request: pytest.FixtureRequest) -> Space:
    embed: Embedding = pixels
    if request.param == "scattering":
        embed = scattering_features(reduced(records.reference.images), Execution.of("cpu"))
    return Space(embed, records, rate=0.001, neighbours=50, advance=lambda _: None)


def snow(count: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 1, 8, 8), generator=random, dtype=torch.uint8)


def test_training_images_are_a_risk_of_one(space: Space, records: Records) -> None:
    found = space.compare(records.members.images[records.paired[:200]])
    assert found.near.share == found.nearer.share == 1
    assert found.three.statistic is not None
    assert found.three.statistic < -5
    assert found.alarms() == (True, True, True)


def test_training_images_among_snow_are_counted(space: Space, records: Records) -> None:
    samples = snow(300)
    samples[:15] = records.members.images[records.paired[:15]]
    found = space.compare(samples)
    assert found.near.count == 15
    assert found.near.p < LEVEL


def test_snow_and_held_out_records_are_no_copies(space: Space, records: Records) -> None:
    for samples in (snow(300), records.null.images):
        found = space.compare(samples)
        assert found.near.share < 0.02
        assert found.alarms() == (False, False, False)
        assert found.nearer.low < 0.5 < found.nearer.high


def labelled(content: list[int], labels: list[int], split: str) -> LabelledImages:
    values = torch.tensor(content, dtype=torch.uint8)
    return LabelledImages(
        images=values.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(),
        labels=torch.tensor(labels),
        class_names=("a", "b", "c"),
        name="own.npz",
        split=split,
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), most=st.integers(150, 900))
def test_records_are_dealt_by_class_and_without_duplicates(seed: int, most: int) -> None:
    random = torch.Generator().manual_seed(seed)
    doubled = MEMBERS.subset(torch.randint(len(MEMBERS), (1_200,), generator=random))
    mixed = replace(
        OTHERS,
        images=torch.cat([OTHERS.images, doubled.images[:40]]),
        labels=torch.cat([OTHERS.labels, doubled.labels[:40]]),
    )
    dealt = Records.of(doubled, mixed, most_members=2_000, most_others=most, seed=seed)
    paired = dealt.members.subset(dealt.paired)
    assert paired.labels.bincount().tolist() == dealt.reference.labels.bincount().tolist()
    parts = torch.cat([dealt.members.images, dealt.reference.images, dealt.null.images])
    assert len(parts.unique(dim=0)) == len(parts)
    assert len(dealt.reference) + len(dealt.null) <= most


def test_too_few_records_are_refused() -> None:
    members = labelled(list(range(100)), [0] * 100, "train")
    others = labelled(list(range(0, 200, 2)), [0] * 100, "test")  # a half are duplicates
    with pytest.raises(ConfigError, match=r"Of 50 held-out .* 12 can .* give more held-out"):
        Records.of(members, others, most_members=200, most_others=200, seed=0)


def test_large_images_are_compared_at_28_pixels() -> None:
    assert reduced(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3, 28, 28)
    assert reduced(MEMBERS.images).equal(MEMBERS.images)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), records=st.integers(1, 70), images=st.integers(1, 30))
def test_the_nearest_records_are_the_nearest(seed: int, records: int, images: int) -> None:
    random = torch.Generator().manual_seed(seed)
    there = torch.rand(records, 5, generator=random)
    here = torch.cat([torch.rand(images, 5, generator=random), there[:1]])
    found = nearest(here, there, neighbours=50)
    exact = (here.double().unsqueeze(1) - there.double()).norm(dim=2)
    assert torch.allclose(found.distances.double(), exact.min(1).values, atol=1e-6)
    means = exact.sort(1).values[:, :50].mean(1)
    assert torch.allclose(found.ratios.double()[:-1], (exact.min(1).values / means)[:-1], atol=1e-5)
    assert found.distances[-1] == found.ratios[-1] == 0
    assert found.rows[-1] == 0


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(1, 60), held_out=st.integers(1, 60), data=st.data())
def test_the_law_of_false_near_copies_is_exact(
    samples: int, held_out: int, data: st.DataObject
) -> None:
    """At least so many samples come before the first held-out record in a random order."""
    below = data.draw(st.integers(0, samples))
    ratios = np.concatenate([np.full(below, 0.1), np.full(samples - below, 0.9)])
    found = near_copies(ratios, np.linspace(0.5, 0.8, held_out), rate=1e-9)
    exact = prod((samples - k) / (samples + held_out - k) for k in range(below))
    assert found.p == pytest.approx(exact, abs=1e-9)
    assert (found.count, found.threshold) == (below, 0.5)
    assert found.expected == pytest.approx(samples / (held_out + 1))


def test_a_threshold_lets_its_share_of_held_out_records_pass() -> None:
    calibration = np.arange(1.0, 1_000.0)
    found = near_copies(np.arange(0.5, 100.0), calibration, rate=0.05)
    assert found.threshold == 50
    assert found.expected == 100 * 0.05


@settings(max_examples=25, deadline=None)
@given(
    ours=st.lists(st.integers(0, 9), min_size=5, max_size=40),
    theirs=st.lists(st.integers(0, 9), min_size=5, max_size=40),
)
def test_one_cell_is_the_test_of_mann_and_whitney(ours: list[int], theirs: list[int]) -> None:
    here, there = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    zeros = np.zeros(len(ours), dtype=np.int64), np.zeros(len(theirs), dtype=np.int64)
    found = three_sample(here, there, cells=zeros)
    if len({*ours, *theirs}) == 1:
        assert found.p == 0.5
        return
    known = mannwhitneyu(here, there, alternative="less", method="asymptotic", use_continuity=False)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)


def test_cells_count_by_their_held_out_records_and_need_five_of_both() -> None:
    random = np.random.default_rng(0)
    cells = np.repeat([0, 1, 2], [20, 20, 4]), np.repeat([0, 1, 2], [10, 30, 90])
    ours, theirs = random.random(44), random.random(130)
    parts = [
        three_sample(ours[cells[0] == cell], theirs[cells[1] == cell], cells=(zero[0], zero[1]))
        for cell in (0, 1)
        for zero in [[np.zeros((side == cell).sum(), dtype=np.int64) for side in cells]]
    ]
    found = three_sample(ours, theirs, cells=cells)
    assert found.statistic == pytest.approx(
        0.25 * (parts[0].statistic or 0) + 0.75 * (parts[1].statistic or 0)
    )
    apart = three_sample(ours, theirs, cells=(cells[0], cells[1] + 3))
    assert (apart.statistic, apart.p) == (None, 1.0)


def test_samples_near_the_same_record_count_once() -> None:
    """A generator that makes one image alone proves nothing, however often it makes it."""
    many, one = np.full(1_000, 0.1), np.full(1_000, 0.2)
    rows = np.arange(1_000)
    collapsed = nearer(many, one, nearest_training=rows * 0, nearest_held_out=rows * 0)
    spread = nearer(many, one, nearest_training=rows, nearest_held_out=rows)
    assert (collapsed.share, spread.share) == (1, 1)
    assert (collapsed.records, spread.records) == (1, 1_000)
    assert collapsed.p > LEVEL > spread.p
    assert collapsed.low < 0.5 < spread.low
    tied = nearer(many, many, nearest_training=rows, nearest_held_out=rows)
    assert (tied.share, tied.p) == (0.5, 0.5)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 5_000), data=st.data())
def test_intervals_are_wilsons(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count))
    known = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((known.low, known.high), abs=1e-6)


@pytest.mark.parametrize("change", [{"samples": 0}, {"rate": 1.0}, {"epochs": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(TINY, **change)  # type: ignore[arg-type]


@pytest.fixture
def played(run: RunDirectory, tmp_path: Path) -> Callable[..., Findings]:
    def play(members: LabelledImages = MEMBERS, others: LabelledImages = OTHERS) -> Findings:
        target = Target(run=run, members=members, others=others, device="cpu")
        return attack(target, settings=TINY, seed=0, folder=tmp_path, progress=Silent())

    return play


def test_a_run_that_copies_nothing_is_said_to_copy_nothing(
    played: Callable[..., Findings], tmp_path: Path, run: RunDirectory
) -> None:
    found = played()
    assert [control.found for control in found.controls] == [True, True, True]
    assert found.sentence().startswith("No near-copies among 200 samples at threshold 0.")
    assert "this is not a privacy measure; see membership." in found.verdict
    assert found.details["risk"] == 0
    assert found.student == run.ledger.ending()["student"]
    for picture in found.pictures:
        assert picture.shows_records
        assert (tmp_path / f"{picture.name}.png").is_file()
    useful = {row[0]: row for row in found.tables[-1].rows}
    assert set(useful) == {"cnn", "linear", "the run's student"}
    assert all(row[-1] == len(OTHERS) for row in useful.values())
    titles = [table.title for table in found.tables]
    wanted = ("is worse", "is worse", "is more useful")
    assert all(word in title for word, title in zip(wanted, titles, strict=True))
    found.save(tmp_path)
    assert read_findings(tmp_path) == [found]


def test_a_generator_of_training_images_is_a_risk_of_one(
    played: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a run is found out, whatever its images are good for."""

    def copied(*_: object, **__: object) -> SyntheticData:
        return SyntheticData(
            images=MEMBERS.images[:200], labels=MEMBERS.labels[:200], num_classes=10
        )

    monkeypatch.setattr(searching, "synthesise", copied)
    found = played()
    assert found.is_valid
    assert found.details["risk"] == 1
    assert "No near-copies" not in found.verdict
    assert "200 in pixels" in found.verdict


def test_a_search_that_sees_nothing_is_invalid(
    played: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = lambda images: torch.zeros(len(images), 3)  # noqa: E731
    monkeypatch.setattr(searching, "pixels", blind)
    monkeypatch.setattr(searching, "scattering_features", lambda *_: blind)
    found = played()
    assert not found.is_valid
    assert "a generator that returns training images" in found.sentence()


def test_models_that_were_trained_are_not_trained_again(
    played: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = played()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(usefulness, "train_teacher", refuse)
    assert replace(played(), seconds=first.seconds) == first
    fewer = OTHERS.subset(torch.arange(600))
    with pytest.raises(AssertionError, match="trained again"):
        played(others=fewer)


@pytest.mark.parametrize("of", ["members", "reference"])
@pytest.mark.parametrize("are_named", [True, False])
def test_there_is_no_picture_of_persons(
    records: Records, space: Space, tmp_path: Path, of: str, are_named: bool
) -> None:
    """Whoever they are, and even if there was one before."""
    samples = snow(20)
    found = space.compare(samples)
    draw = partial(closest_pairs, samples, found, space="pixels", count=5, folder=tmp_path)
    assert draw(records) is not None
    names = ["copies-pixels.png", "copies-pixels.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    svg = ElementTree.parse(tmp_path / names[1]).getroot()
    kinds = [element.tag.rpartition("}")[2] for element in svg]
    assert (kinds.count("text"), kinds.count("image")) == (3, 3)
    data: LabelledImages = getattr(records, of)
    shown = (
        replace(data, persons=tuple(map(str, range(len(data)))))
        if are_named
        else replace(data, name="celeba-hair")
    )
    assert draw(replace(records, **{of: shown})) is None  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("p", "is_found"), [(3e-4, True), (1e-6, False)])
def test_held_out_records_fail_the_control_on_evidence_alone(
    space: Space, records: Records, p: float, is_found: bool
) -> None:
    """A p that every thousandth search has by chance is none; a search that sees copies is."""
    found = space.compare(records.null.images)
    odd = replace(found, near=replace(found.near, p=p))
    plants = Plants.of(records, snow(100), seed=0)
    *_, control = plants.controls({"pixels": found}, {"pixels": found}, {"pixels": odd})
    assert control.found == is_found


def test_a_search_that_takes_held_out_records_for_copies_fails(
    space: Space, records: Records
) -> None:
    plants = Plants.of(records, snow(100), seed=0)
    copies = space.compare(records.members.images[records.paired[:200]])
    *_, control = plants.controls({"pixels": copies}, {"pixels": copies}, {"pixels": copies})
    assert not control.found


def test_chance_is_said_where_it_may_explain_what_was_found(
    played: Callable[..., Findings],
) -> None:
    found = played()
    nearness = found.tables[1]
    rows = {(row[0], row[1]): row for row in nearness.rows}
    assert {rows["planted: all", space][-1] for space in ("pixels", "scattering")} == {"above"}
    assert rows["held-out", "pixels"][-1] == "not told apart"
    assert "chance alone may explain the share" in nearness.note
    shown = dict(zip(nearness.headings(), nearness.texts()[2], strict=True))
    assert shown["samples"] == "planted: all"
    assert shown["p of nearer"] == shown["p of C"] == "< 0.0001"
    is_unclear = [rows["generator", space][-1] == "not told apart" for space in SPACES]
    assert found.verdict.count("this cannot be told from chance") == sum(is_unclear)
