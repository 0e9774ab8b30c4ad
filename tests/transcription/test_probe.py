"""Public images: a source of queries, and a probe that is asked once and never learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import dpsd
from dpsd import (
    Budget,
    ConfidentVotes,
    ConfigError,
    Gaussian,
    Mechanism,
    NoisyVotes,
    Observer,
    RandomizedResponse,
    Recipe,
    ReproducibleNoise,
    Run,
    RunDirectory,
    RunError,
    Teacher,
)
from dpsd.distillation.releases import PROBE, RoundReleases
from dpsd.errors import DataError
from dpsd.results.export import export_student
from dpsd.synthesis.distinct import image_digests
from dpsd.teachers import Committee
from dpsd.transcription.public import PublicImages, _divided

from .thirds import SHAPE, Answering, Listens, committee_of, teacher_of

NOISE = ReproducibleNoise(seed=5)
BUDGET = Budget(epsilon=9.0, delta=1e-6, adjacency="round")
RECIPE: dict[str, Any] = {
    "rounds": 3,
    "queries": 60,
    "sources": ("noise",),
    "epochs": 1.0,
    "batch_size": 32,
    "generator_steps": 1,
    "generator_batch_size": 8,
    "device": "cpu",
    "precision": "float32",
}


def random_images(count: int, *, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def teacher(answering: Answering) -> Teacher:
    return teacher_of(answering)


def transcribe(
    teacher: Teacher,
    out: Path,
    *,
    mechanism: Mechanism | None = None,
    budget: Budget = BUDGET,
    observer: Observer | None = None,
    public: Any = None,
    probe: Any = None,
    **changed: Any,
) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=mechanism or RandomizedResponse(noise=NOISE),
        budget=budget,
        out=out,
        student="lenet5",
        recipe=Recipe(**{**RECIPE, **changed}),
        observer=observer or Listens(),
        public=public,
        probe=probe,
    )


def test_a_probe_is_asked_once_with_the_first_round_and_counts(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    probe = random_images(40)
    run = transcribe(teacher, tmp_path, probe=torch.cat([probe, probe[:10]]))  # ten come twice
    assert set(answering.shown.values()) == {1}
    assert {image.numpy().tobytes() for image in probe} <= set(answering.shown)
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 3 * 60 + 40}
    assert run.certificate.spent.round <= BUDGET.epsilon
    answers = [entry["answers"] for entry in run.directory.ledger.reservations()]
    assert answers == [100, 60, 60]
    assert run.directory.certify() == run.certificate
    assert [line["queries"] for line in run.metrics] == [60, 60, 60]
    assert [line["probe"]["images"] for line in run.metrics] == [40, 40, 40]
    stored = load_file(run.directory.releases_path(1))
    assert len(stored["asked"]) == len(stored["release"]) == 100
    assert (stored["source"] == PROBE).sum() == 40


def test_nothing_is_trained_on_a_probe(tmp_path: Path) -> None:
    """Two teachers that differ on the probe alone leave the same bits, but for its figures."""
    probe = random_images(40)
    runs = [
        transcribe(teacher_of(Answering(lies_about=lies)), tmp_path / name, probe=probe, rounds=2)
        for name, lies in (("honest", None), ("lying", probe))
    ]
    parts = [load_file(run.directory.path / "checkpoint.safetensors") for run in runs]
    for name in parts[0]:
        if not name.startswith("best."):
            assert parts[0][name].equal(parts[1][name]), name
    told = dict.fromkeys(("probe", "final_probe", "seconds", "peak_memory_mb"))
    lines = [[{**line, **told} for line in run.metrics] for run in runs]
    assert lines[0] == lines[1]
    assert [line["probe"] for line in runs[0].metrics] != [
        line["probe"] for line in runs[1].metrics
    ]
    for index in (1, 2):
        one, two = (RoundReleases.load(r.directory.releases_path(index), index=index) for r in runs)
        assert one.release.equal(two.release)
        assert not torch.isin(image_digests(one.queries), image_digests(probe)).any()


def test_public_images_are_a_source_of_which_a_fifth_is_held_out(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    run = transcribe(teacher, tmp_path, public=random_images(100), sources=("none",), rounds=1)
    assert set(run.metrics[0]["sources"]) == {"public", "generator"}
    assert run.metrics[0]["sources"]["public"] == 60
    assert run.metrics[0]["probe"]["images"] == 20
    assert run.certificate.sources == ["none", "public:(tensor)"]
    assert set(answering.shown.values()) == {1}


def test_a_run_may_have_public_images_and_no_probe(teacher: Teacher, tmp_path: Path) -> None:
    run = transcribe(teacher, tmp_path, public=random_images(100), probe="none", rounds=1)
    assert run.certificate.events["teacher"] == 60
    assert not any("probe" in line for line in run.metrics)
    assert "chosen_round" not in run.directory.ledger.ending()


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(10, 60),
    repeated=st.integers(0, 20),
    most=st.integers(2, 30),
    shared=st.integers(0, 5),
    is_own=st.booleans(),
)
def test_a_probe_has_distinct_images_and_the_source_none_of_them(
    count: int, repeated: int, most: int, shared: int, is_own: bool
) -> None:
    images = random_images(count)
    public = torch.cat([images, images[:repeated]])
    probe = torch.cat([random_images(8, seed=1), images[:shared]]) if is_own else None
    recipe = Recipe(public="(tensor)", probe="(tensor)" if is_own else None, probe_images=most)
    divided = _divided(recipe, public=public, probe=probe)
    assert divided.source is not None
    assert divided.probe is not None
    held, left = image_digests(divided.probe), image_digests(divided.source)
    assert len(held.unique()) == len(held) == min(most, 8 + shared if is_own else count // 5)
    assert not torch.isin(left, held).any()
    assert set(left.tolist() + held.tolist()) >= set(image_digests(public).tolist())
    again = _divided(recipe, public=public, probe=probe)
    assert again.facts() == divided.facts()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with public images that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return transcribe(teacher_of(Answering()), out, public=random_images(100), rounds=2)


@pytest.mark.parametrize("fails_in", [("student", 1), ("teacher", 2)])
def test_a_run_with_a_probe_resumes_to_the_same_bits(
    whole: Run, tmp_path: Path, fails_in: tuple[str, int]
) -> None:
    answering, public = Answering(), random_images(100)
    teacher = teacher_of(answering)
    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path, public=public, observer=Listens(fails_in), rounds=2)
    cap = Budget(epsilon=99.0, delta=1e-6)
    run = dpsd.resume(tmp_path, teacher, public=public, cap=cap, observer=Listens())
    assert [line["probe"] for line in run.metrics] == [line["probe"] for line in whole.metrics]
    for name, tensor in whole.student.state_dict().items():
        assert tensor.equal(run.student.state_dict()[name])
    if fails_in[0] == "student":
        assert set(answering.shown.values()) == {1}
        assert run.certificate.events == whole.certificate.events
    ending = run.directory.ledger.ending()
    assert ending["chosen_round"] == whole.directory.ledger.ending()["chosen_round"]


def test_a_probe_that_was_lost_with_its_round_is_asked_again_and_counts_twice(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    probe = random_images(40)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "store_releases", crash)
        with pytest.raises(KeyboardInterrupt):
            transcribe(teacher, tmp_path, probe=probe, rounds=2)
    cap = Budget(epsilon=99.0, delta=1e-6)
    run = dpsd.resume(tmp_path, teacher, probe=probe, cap=cap, observer=Listens())
    assert run.certificate.events == {"response": 2, "round": 3, "teacher": 2 * 100 + 60}


def test_a_run_that_is_resumed_needs_the_same_images(teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "probe.npz"
    np.savez(path, images=random_images(40).squeeze(1).numpy())
    for out, images in (("path", path), ("tensor", random_images(40))):
        observer = Listens(("student", 1))
        with pytest.raises(KeyboardInterrupt):
            transcribe(teacher, tmp_path / out, probe=images, observer=observer)
    np.savez(path, images=random_images(40, seed=1).squeeze(1).numpy())
    with pytest.raises(RunError, match=r"other public images: put back what probe:.*probe\.npz"):
        dpsd.resume(tmp_path / "path", teacher)
    with pytest.raises(ConfigError, match="probe: this run was given its images as a tensor"):
        dpsd.resume(tmp_path / "tensor", teacher)
    with pytest.raises(RunError, match="other public images"):
        dpsd.resume(tmp_path / "tensor", teacher, probe=random_images(40, seed=1))


def test_a_run_stops_when_two_rounds_no_longer_help(
    teacher: Teacher, answering: Answering, tmp_path: Path
) -> None:
    class BreaksLate(Listens):
        """Breaks a run when it has said that it stops."""

        def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
            if self.notices:
                raise KeyboardInterrupt
            return super().phase(name, total=total, round_index=round_index)

    observer, probe = Listens(), random_images(200)
    budget = Budget(epsilon=27.0, delta=1e-6, adjacency="round")
    chosen: dict[str, Any] = {"probe": probe, "until": 0.9, "rounds": 9, "budget": budget}
    chosen |= {"queries": 300, "epochs": 3.0}  # for more than always saying one class
    run = transcribe(teacher, tmp_path / "whole", observer=observer, **chosen)
    assert [line["round"] for line in run.metrics] == [1, 2, 3]
    assert any("nothing more is asked or spent" in notice for notice in observer.notices)
    assert run.certificate.events == {"response": 1, "round": 3, "teacher": 3 * 300 + 200}
    assert run.certificate.spent.round < budget.epsilon / 2
    assert run.directory.ledger.ending()["rounds"] == 3
    assert run.certificate.stopped_early
    assert "holds in any case, is the target's" in run.certificate.limits
    stated = json.loads((tmp_path / "whole" / "certificate.json").read_text(encoding="utf-8"))
    schema = files("dpsd.privacy.records").joinpath("certificate.schema.json").read_text()
    jsonschema.validate(stated, json.loads(schema))
    asked = len(answering.shown)
    again = dpsd.resume(tmp_path / "whole", teacher, probe=probe, observer=Listens())
    assert len(answering.shown) == asked
    assert again.certificate == run.certificate
    assert again.metrics == run.metrics

    with pytest.raises(KeyboardInterrupt):
        transcribe(teacher, tmp_path / "cut", observer=BreaksLate(), **chosen)
    cut = dpsd.resume(tmp_path / "cut", teacher, probe=probe, observer=Listens())
    for name, tensor in run.student.state_dict().items():
        assert tensor.equal(cut.student.state_dict()[name])
    assert cut.certificate.events == run.certificate.events


def test_a_finish_that_came_too_early_is_not_certified(teacher: Teacher, tmp_path: Path) -> None:
    """A ledger may end before its last round only if the run's settings allow it to stop."""
    run = transcribe(teacher, tmp_path, rounds=2)
    ledger = run.directory.ledger
    ending = ledger.ending()
    ledger.finish(student=ending["student"], generator=ending["generator"], rounds=1)
    with pytest.raises(RunError, match="finished after 1 rounds, but the run has 2"):
        run.directory.certify()


@pytest.fixture(scope="module")
def committee() -> Committee:
    return committee_of(20)


def test_an_ensemble_pays_for_its_probe(committee: Committee, tmp_path: Path) -> None:
    """Under ``teacher``, each image of the probe is one more answer that the noise must cover."""
    budget = Budget(epsilon=50.0, delta=1e-5, adjacency="teacher")
    chosen: dict[str, Any] = {"rounds": 1, "queries": 100, "student_steps": 5}
    runs = {
        probe: transcribe(
            committee,
            tmp_path / str(probe),
            mechanism=NoisyVotes(noise=NOISE),
            budget=budget,
            probe=random_images(probe) if probe else None,
            **chosen,
        )
        for probe in (0, 60)
    }
    assert [run.certificate.events["teacher"] for run in runs.values()] == [100, 160]
    assert all(49.9 < run.certificate.spent.teacher <= 50 for run in runs.values())
    noise = [float(str(r.certificate.mechanism["noise_multiplier"])) for r in runs.values()]
    assert noise[1] > 1.2 * noise[0]
    assert runs[60].metrics[0]["probe"]["agreement"]["standard_error"] < 0.2


def test_mechanisms_that_cannot_tell_agreement_are_refused(
    teacher: Teacher, committee: Committee, tmp_path: Path
) -> None:
    cases: list[tuple[Teacher, Mechanism]] = [
        (teacher, Gaussian(harden=False, noise=NOISE)),
        (teacher, RandomizedResponse(candidates=2, noise=NOISE)),
        (committee, ConfidentVotes(threshold=0.3, answered=0.4, noise=NOISE)),
    ]
    for asked, mechanism in cases:
        with pytest.raises(ConfigError, match="does not tell how often student and teacher agree"):
            transcribe(asked, tmp_path / "run", mechanism=mechanism, probe=random_images(20))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "error", "problem"),
    [
        ({"probe": torch.zeros(4, 1, 8, 8)}, ConfigError, "probe must be uint8"),
        ({"probe": random_images(9, shape=(8, 8))}, ConfigError, "probe must be uint8"),
        ({"public": random_images(0)}, ConfigError, "at least one image"),
        ({"probe": random_images(9, shape=(4, 8, 8))}, DataError, "4 channels as .* the teacher"),
        ({"probe": random_images(1)}, ConfigError, "1 distinct images, and a probe needs 2"),
        ({"public": random_images(9)}, ConfigError, "a probe needs 10: give more, or probe none"),
        (
            {"public": random_images(9), "probe": random_images(9)},
            ConfigError,
            "no image that is not in the probe",
        ),
        ({"public": "absent"}, DataError, "is no folder, no .npz file and no data set"),
        (
            {"until": 0.01, "probe": "none", "public": random_images(9)},
            ConfigError,
            "until is 0.01, but probe is none, .* leave probe none out, and part of public is",
        ),
        (
            {"until": 0.01, "probe": "none"},
            ConfigError,
            "probe is none, .*: give public images with probe; or leave until out",
        ),
        ({"probe": "chestx"}, DataError, "^probe: '.*chestx' is no folder"),
        ({"probe": random_images(9, shape=(8, 8, 1))}, DataError, r"8 channels as \(N, C, H, W\)"),
        ({"until": 0.01}, ConfigError, "give public images with probe or public, or leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_before_anything_is_asked(
    teacher: Teacher,
    answering: Answering,
    tmp_path: Path,
    given: dict[str, Any],
    error: type[Exception],
    problem: str,
) -> None:
    with pytest.raises(error, match=problem) as caught:
        transcribe(teacher, tmp_path / "run", **given)
    assert "\n" not in str(caught.value)
    assert not answering.shown
    assert not (tmp_path / "run").exists()


def test_what_a_teacher_was_trained_on_is_not_public(tmp_path: Path) -> None:
    from dpsd.models import build_classifier
    from dpsd.teachers import TeacherRecord, save_teacher

    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=10, data="digits")
    net = build_classifier("lenet5", input_shape=SHAPE, num_classes=10)
    teacher = dpsd.load_teacher(save_teacher(tmp_path / "teacher", net, record))
    with pytest.raises(ConfigError, match="holds what the teacher was trained on"):
        transcribe(teacher, tmp_path / "run", public="digits")


def test_a_file_of_releases_sets_its_probe_apart(teacher: Teacher, tmp_path: Path) -> None:
    run = transcribe(teacher, tmp_path, probe=random_images(40), rounds=1)
    loaded = RoundReleases.load(run.directory.releases_path(1), index=1)
    assert len(loaded) == 60
    assert loaded.probe is not None
    assert len(loaded.probe) == 40
    rows = torch.tensor([0, 39, 7])
    assert loaded.probe.images(rows).equal(loaded.probe.queries[rows])
    assert loaded.images(rows).equal(loaded.queries[rows])
    stated = run.directory.facts()["public_images"]
    assert PublicImages(probe=loaded.probe.queries).facts() == stated


def named_teacher(*names: str) -> Teacher:
    return dpsd.load_teacher(
        Answering(),
        input_shape=SHAPE,
        num_classes=3,
        scores="probabilities",
        class_names=names,
    )


def test_pages_say_what_agreement_is_about(teacher: Teacher, tmp_path: Path) -> None:
    named = named_teacher("left", "<middle>", "right")
    with_probe = transcribe(named, tmp_path / "probe", probe=random_images(300), rounds=2)
    page = (tmp_path / "probe" / "report.html").read_text(encoding="utf-8")
    assert "On the probe of 300 public images, student and teacher agree on" in page
    for name, share in zip(
        ("left", "&lt;middle&gt;", "right"),
        with_probe.metrics[-1]["final_probe"]["class_shares"],
        strict=True,
    ):
        assert f'<th scope="row">{name}</th><td>{share:.1%}</td>' in page
    without = transcribe(teacher, tmp_path / "none", rounds=1)
    page = (tmp_path / "none" / "report.html").read_text(encoding="utf-8")
    assert "No number here says how the student does on real images" in page
    assert "On the probe of" not in page
    pytest.importorskip("huggingface_hub")
    cards = []
    for run in (with_probe, without):
        folder = tmp_path / f"{run.directory.name}-hub"
        export_student(run.directory, f"hf:{folder}")
        cards.append((folder / "README.md").read_text(encoding="utf-8"))
    assert "On the probe of 300 public images" in cards[0]
    assert "This is agreement with the teacher, not accuracy." in cards[0]
    assert "read no data set" not in cards[0]
    assert "The run read no data set." in cards[1]
    assert "probe" not in cards[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"probe": random_images(5).repeat(40, 1, 1, 1)},
            ["the probe has 200 images, 5 of them distinct", "± 13 points at best"],
        ),
        (
            {"public": random_images(100).repeat(2, 1, 1, 1)},
            ["of 200 public images, 100 are distinct: 20 of these are the probe", "± 7 points"],
        ),
        ({"probe": random_images(100)}, []),
    ],
)
def test_a_small_probe_and_duplicates_are_told_of(
    teacher: Teacher, tmp_path: Path, given: dict[str, Any], said: list[str]
) -> None:
    observer = Listens()
    transcribe(teacher, tmp_path, observer=observer, rounds=1, **given)
    told = [one for one in observer.warnings if "distinct" in one]
    assert len(told) == len(said)
    assert all(words in one for words, one in zip(said, told, strict=True))


def test_what_always_saying_one_class_agrees_on_is_beside_every_agreement(tmp_path: Path) -> None:
    from dpsd.reporting.progress import RoundLines, round_line

    named = named_teacher("left", "middle", "right")
    dark = random_images(120) // 4
    dark[:, :, :2] += 150  # the teacher says the first class for all
    observer = Listens()
    run = transcribe(named, tmp_path, probe=dark, rounds=1, observer=observer)
    assert any(
        "nearly one class to the teacher, which says class 'left'" in w for w in observer.warnings
    )
    line = run.metrics[0]
    stated = line["probe"]["constant"]
    constant = f"{stated['mean']:.1%} ± {stated['standard_error']:.1%}"
    assert line["probe"]["constant_class"] == 0
    assert f"  {stated['mean']:.1%}  " in round_line(line, rounds=1)
    assert RoundLines.headings(line).split("  ").count("constant") == 1
    assert f"most frequent, agrees on {constant}" in RoundLines.about(line)[1]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "For comparison, always saying 'left', the teacher's most frequent, agrees on " in (
        page.replace("&#39;", "'")
    )
    assert page.count(constant) >= 2  # the sentence, and the table of rounds
