"""Ensembles: trained on shards, asked at once, stored, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpsd.augmentation import distort_images
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.errors import ConfigError, TeacherError
from dpsd.models import build_classifier
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import (
    Committee,
    EnsembleTeacher,
    Teacher,
    TeacherRecord,
    load_teacher,
    save_teacher,
)
from dpsd.teachers.ensemble_training import _ridge, train_ensemble
from dpsd.teachers.loading import is_ensemble
from dpsd.teachers.sharding import Shards


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_dataset("digits", "train")


@pytest.fixture(scope="module")
def shards(digits: LabelledImages) -> Shards:
    return Shards.assign(digits.images, teachers=10, seed=0)


@pytest.fixture(scope="module")
def stacked(digits: LabelledImages, shards: Shards) -> dict[str, Tensor]:
    return train_ensemble(digits, shards)


def stored(path: Path, stacked: dict[str, Tensor], shards: Shards, model: str) -> Path:
    path.mkdir()
    shards.save(path)
    record = TeacherRecord(
        model=model, input_shape=(1, 8, 8), num_classes=10, members=10, data="digits"
    )
    return save_teacher(path, stacked, record)


def test_closed_form_teachers_know_digits(
    tmp_path: Path, stacked: dict[str, Tensor], shards: Shards
) -> None:
    path = stored(tmp_path / "many", stacked, shards, "scattering")
    teacher = load_teacher(path)
    assert is_ensemble(path)
    assert (teacher.members, teacher.is_disjoint) == (10, True)
    test = load_dataset("digits", "test")
    accuracy = (teacher.predict_classes(test.images) == test.labels).double().mean()
    assert accuracy > 0.95
    assert load_teacher(path).fingerprint == teacher.fingerprint


def test_members_answer_for_themselves(stacked: dict[str, Tensor]) -> None:
    module = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0)
    together = EnsembleTeacher(
        module, stacked, input_shape=(1, 8, 8), num_classes=10, description="ten", key=b"secret"
    )
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    answers = open_for_mechanism(together.ask(images, query_batch=0))
    assert answers.shape == (10, 6, 10)
    for member in range(10):
        module.eval().load_state_dict(
            {name: part[member] for name, part in stacked.items()}, strict=False
        )
        torch.testing.assert_close(answers[member], module(images).softmax(-1))


def test_a_record_reaches_one_teacher_only(digits: LabelledImages, shards: Shards) -> None:
    """The premise of record-level claims, tried out: replace a record, compare all teachers."""
    row = 5
    images, labels = digits.images.clone(), digits.labels.clone()
    images[row], labels[row] = 255 - images[row], (labels[row] + 1) % 10
    before = train_ensemble(digits, shards)
    after = train_ensemble(replace(digits, images=images, labels=labels), shards)
    for name in before:
        changed = [int(i) for i in range(10) if not before[name][i].equal(after[name][i])]
        assert changed == [int(shards.shard[row])]


def test_teachers_learn_from_distorted_copies_too(
    digits: LabelledImages, shards: Shards, stacked: dict[str, Tensor]
) -> None:
    test = load_dataset("digits", "test")
    images = distort_images(test.images / 255, generator=torch.Generator().manual_seed(1))

    def accuracy(teachers: dict[str, Tensor]) -> float:
        module = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0)
        ensemble = EnsembleTeacher(
            module,
            teachers,
            input_shape=(1, 8, 8),
            num_classes=10,
            description="ten",
            key=b"secret",
        )
        answers = open_for_mechanism(ensemble.ask(images, query_batch=0)).argmax(-1)
        return float((answers == test.labels).double().mean())

    bare = train_ensemble(digits, shards, views=0)
    assert accuracy(stacked) > accuracy(bare) + 0.01
    assert train_ensemble(digits, shards)["head.weight"].equal(stacked["head.weight"])
    with pytest.raises(ConfigError, match="views is -1"):
        train_ensemble(digits, shards, views=-1)
    with pytest.raises(ConfigError, match="only scattering teachers"):
        train_ensemble(digits, shards, model="lenet5", views=8)


def test_both_forms_of_ridge_regression_agree() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 12, 12, generator=random, dtype=torch.float64).float()
    targets = torch.randn(2, 12, 3, generator=random)
    by_records = _ridge(inputs, targets)
    by_features = _ridge(torch.cat([inputs, inputs], 1), torch.cat([targets, targets], 1))
    # Twice the same records and a penalty that follows their mean: half the relative penalty.
    assert by_records[0].shape == by_features[0].shape == (2, 12, 3)
    fitted = inputs @ by_features[0] + by_features[1].unsqueeze(1)
    assert (fitted - targets).square().mean() < (targets - targets.mean(1, keepdim=True)).var()


def test_other_architectures_train_shard_by_shard_and_go_on(
    tmp_path: Path, digits: LabelledImages
) -> None:
    shards = Shards.assign(digits.images, teachers=3, seed=0)
    parts = tmp_path / "parts"

    def stop(_: int) -> None:
        if len(list(parts.glob("*.safetensors"))) == 2:
            raise KeyboardInterrupt

    settings = {"model": "cnn", "epochs": 1, "precision": "float32"}
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(digits, shards, parts=parts, advance=stop, **settings)  # type: ignore[arg-type]
    first = (parts / "000000.safetensors").stat().st_mtime_ns
    resumed = train_ensemble(digits, shards, parts=parts, **settings)  # type: ignore[arg-type]
    assert (parts / "000000.safetensors").stat().st_mtime_ns == first
    whole = train_ensemble(digits, shards, **settings)  # type: ignore[arg-type]
    assert all(resumed[name].equal(whole[name]) for name in whole)
    with pytest.raises(TeacherError, match="another training"):
        train_ensemble(digits, shards, parts=parts, model="lenet5", epochs=1)
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=0)
    teacher = EnsembleTeacher(
        module, whole, input_shape=(1, 8, 8), num_classes=10, description="three", key=b"secret"
    )
    answers = open_for_mechanism(teacher.ask(torch.rand(4, 1, 8, 8), query_batch=0))
    assert answers.shape == (3, 4, 10)
    assert not answers[0].equal(answers[1])


def test_damaged_ensembles_are_refused(
    tmp_path: Path, stacked: dict[str, Tensor], shards: Shards
) -> None:
    fewer = {name: part[:9] for name, part in stacked.items()}
    with pytest.raises(TeacherError, match="does not hold 10 teachers"):
        load_teacher(stored(tmp_path / "fewer", fewer, shards, "scattering"))
    path = stored(tmp_path / "no-shards", stacked, shards, "scattering")
    (path / "shards.safetensors").unlink()
    with pytest.raises(TeacherError, match="disjoint"):
        load_teacher(path)
    path = stored(tmp_path / "another-deal", stacked, shards, "scattering")
    Shards.assign(load_dataset("digits", "train").images, teachers=10, seed=1).save(path)
    with pytest.raises(TeacherError, match="trained on what"):
        load_teacher(path)
    path = stored(tmp_path / "swapped", stacked, shards, "scattering")
    described = json.loads((path / "teacher.json").read_text())
    (path / "teacher.json").write_text(json.dumps({**described, "members": 7}))
    with pytest.raises(TeacherError, match="does not hold 7"):
        load_teacher(path)


def teacher(name: str, classes: int = 3) -> Teacher:
    def scores(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :classes]

    return load_teacher(scores, input_shape=(1, 8, 8), name=name, scores="logits")


def test_committees_of_any_teachers(tmp_path: Path) -> None:
    committee = load_teacher([teacher("a"), teacher("b")])
    assert isinstance(committee, Committee)
    assert committee.is_disjoint is False
    images = torch.rand(5, 1, 8, 8)
    answers = open_for_mechanism(committee.ask(images, query_batch=0))
    torch.testing.assert_close(answers[1], images.flatten(1)[:, :3].softmax(-1))
    assert committee.fingerprint == load_teacher([teacher("b"), teacher("a")]).fingerprint
    assert committee.fingerprint != load_teacher([teacher("a"), teacher("c")]).fingerprint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda: [teacher("a")], "at least two"),
        (lambda: [teacher("a"), teacher("a")], "are the same"),
        (lambda: [teacher("a"), teacher("b", classes=4)], "same questions"),
        (lambda: [teacher("a"), Committee([teacher("b"), teacher("c")])], "an ensemble itself"),
    ],
)
def test_committees_that_do_not_fit(members: Callable[[], list[Teacher]], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(members())


def test_a_directory_of_teachers_is_a_committee(tmp_path: Path) -> None:
    for seed, name in enumerate(("north", "south")):
        module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=10, seed=seed)
        record = TeacherRecord(model="cnn", input_shape=(1, 8, 8), num_classes=10)
        save_teacher(tmp_path / "all" / name, module, record)
    assert is_ensemble(tmp_path / "all")
    assert load_teacher(tmp_path / "all").members == 2
    assert not is_ensemble(tmp_path / "all" / "north")


def test_asking_an_ensemble_takes_bounded_memory(stacked: dict[str, Tensor]) -> None:
    module = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0)
    many = {name: part.repeat(500, *[1] * (part.ndim - 1)) for name, part in stacked.items()}
    large = EnsembleTeacher(
        module,
        many,
        input_shape=(1, 8, 8),
        num_classes=10,
        description="five thousand",
        key=b"secret",
    )
    assert large.query_batch * large.members * 10 <= 2**24
    assert large.query_batch > 100


def test_a_fingerprint_says_nothing_without_the_key(stacked: dict[str, Tensor]) -> None:
    def fingerprint(key: bytes) -> str:
        module = build_classifier("scattering", input_shape=(1, 8, 8), num_classes=10, seed=0)
        return EnsembleTeacher(
            module, stacked, input_shape=(1, 8, 8), num_classes=10, description="ten", key=key
        ).fingerprint

    assert fingerprint(b"one") == fingerprint(b"one") != fingerprint(b"other")


def test_one_teacher_may_not_answer_as_many() -> None:
    def scores(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3].expand(4, -1, -1)

    with pytest.raises(TeacherError, match=r"shape \(4, 5, 3\) instead of \(5, 3\)"):
        load_teacher(scores, input_shape=(1, 8, 8), name="four")
