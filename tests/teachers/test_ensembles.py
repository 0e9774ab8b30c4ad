"""Ensembles: trained on shards, asked at once, stored, and refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dpsd.datasets import LabelledImages, load_dataset
from dpsd.errors import ConfigError, TeacherError
from dpsd.images.augmentation import distort_images
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
from dpsd.teachers.loading import is_ensemble
from dpsd.teachers.sharding import Shards, record_digests
from dpsd.training.ensemble import _ridge, train_ensemble


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_dataset("digits", "train")


@pytest.fixture(scope="module")
def shards(digits: LabelledImages) -> Shards:
    return Shards.assign(digits, teachers=10, seed=0)


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


@pytest.mark.parametrize("records", [5, 12, 40])
def test_both_forms_of_ridge_regression_agree(records: int) -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(records, 12, generator=random)
    targets = torch.randn(records, 3, generator=random)
    heads, offset = _ridge(inputs, targets)
    # The textbook's: an intercept that is not penalised, features that are.
    centred = inputs - inputs.mean(0)
    penalty = 0.03 * centred.square().sum(1).mean()
    normal = centred.T @ centred + penalty * torch.eye(12)
    wanted = torch.linalg.inv(normal) @ centred.T @ (targets - targets.mean(0))
    torch.testing.assert_close(heads, wanted, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(offset, targets.mean(0) - inputs.mean(0) @ wanted, atol=1e-4, rtol=0)


def of_sizes(digits: LabelledImages, sizes: list[int]) -> tuple[LabelledImages, Shards]:
    """Some digits, and shards of those sizes, dealt as names are."""
    data = digits.subset(torch.arange(sum(sizes)))
    shard = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).int()
    shards = Shards(
        shard=shard,
        digests=record_digests(data.images, b"key"),
        key=b"key",
        teachers=len(sizes),
        kept=torch.ones(len(shard), dtype=torch.bool),
        dealt_by="name",
    )
    return data, shards


@pytest.mark.parametrize("model", ["scattering", "cnn", "lenet5", "resnet8"])
def test_shards_without_records_or_with_one(digits: LabelledImages, model: str) -> None:
    """Such a teacher answers too, and without records its answers depend on none."""
    settings: dict[str, Any] = (
        {} if model == "scattering" else {"epochs": 1, "precision": "float32"}
    )
    data, shards = of_sizes(digits, [12, 0, 1, 7, 0])
    stacked = train_ensemble(data, shards, model=model, seed=4, **settings)
    other, _ = of_sizes(digits.subset(torch.arange(500, 700)), [12, 0, 1, 7, 0])
    otherwise = train_ensemble(other, shards, model=model, seed=4, **settings)
    for name, part in stacked.items():
        assert part.float().isfinite().all()
        assert part[[1, 4]].equal(otherwise[name][[1, 4]])
    assert not all(part[2].equal(otherwise[name][2]) for name, part in stacked.items())
    head = next(name for name, part in stacked.items() if part.ndim > 2)
    assert not stacked[head][1].equal(stacked[head][4])  # they do not all vote for one class


@pytest.mark.parametrize("model", ["scattering", "cnn"])
def test_the_size_of_a_shard_is_its_own_affair(digits: LabelledImages, model: str) -> None:
    """One record more or less in a shard changes no other teacher by as much as a bit."""
    settings: dict[str, Any] = (
        {} if model == "scattering" else {"epochs": 1, "precision": "float32"}
    )
    data, shards = of_sizes(digits, [12, 9, 9, 4])
    before = train_ensemble(data, shards, model=model, **settings)
    without = shards.kept.clone()
    without[13] = False
    fewer = replace(shards, kept=without)
    after = train_ensemble(data, fewer, model=model, **settings)
    gone = torch.arange(34) != 13
    gone_for_good = replace(
        shards, shard=shards.shard[gone], digests=shards.digests[gone], kept=shards.kept[gone]
    )
    removed = train_ensemble(
        data.subset(gone.nonzero()[:, 0]), gone_for_good, model=model, **settings
    )
    for name, part in before.items():
        for others in (after, removed):
            assert part[[0, 2, 3]].equal(others[name][[0, 2, 3]])
    assert any(not part[1].equal(after[name][1]) for name, part in before.items())


def test_dropping_a_duplicate_leaves_other_teachers_alone(digits: LabelledImages) -> None:
    """Dealt by position: sizes that shrink must not shift what is drawn for others."""
    images = digits.images[:60].clone()
    data = replace(digits, images=images, labels=digits.labels[:60])
    twice = images.clone()
    twice[33] = twice[8]
    dealt = [
        Shards.assign(replace(data, images=some), teachers=6, seed=0, drop_duplicates=True)
        for some in (images, twice)
    ]
    before = train_ensemble(data, dealt[0])
    after = train_ensemble(replace(data, images=twice), dealt[1])
    changed = [
        i for i in range(6) if any(not before[name][i].equal(after[name][i]) for name in before)
    ]
    assert changed == [int(dealt[0].shard[33])]
    assert dealt[1].records == 59


def test_ensembles_know_how_many_records_they_cover(
    tmp_path: Path, digits: LabelledImages, stacked: dict[str, Tensor], shards: Shards
) -> None:
    loaded = load_teacher(stored(tmp_path / "many", stacked, shards, "scattering"))
    assert (loaded.records, loaded.persons, loaded.dealt_by) == (1085, None, "position")
    persons = [str(row // 4) for row in range(1085)]
    by_person = Shards.assign(digits, teachers=10, seed=0, persons=persons)
    loaded = load_teacher(stored(tmp_path / "persons", stacked, by_person, "scattering"))
    assert (loaded.records, loaded.persons, loaded.dealt_by) == (1085, 272, "person")
    assert (teacher("a").records, teacher("a").persons, teacher("a").dealt_by) == (None, None, None)


def test_ensembles_of_earlier_versions_load(
    tmp_path: Path, stacked: dict[str, Tensor], shards: Shards
) -> None:
    """Their file of shards has neither the number of teachers nor how records were dealt."""
    path = stored(tmp_path / "old", stacked, shards, "scattering")
    tensors = {"shard": shards.shard, "digests": shards.digests}
    save_file(tensors, path / "shards.safetensors", metadata={"key": shards.key.hex()})
    described = json.loads((path / "teacher.json").read_text())
    found = hashlib.sha256((path / "shards.safetensors").read_bytes()).hexdigest()
    (path / "teacher.json").write_text(json.dumps({**described, "shards_sha256": found}))
    loaded = load_teacher(path)
    assert (loaded.members, loaded.is_disjoint, loaded.records) == (10, True, 1085)
    assert (loaded.dealt_by, loaded.persons) == (None, None)


def test_other_architectures_train_shard_by_shard_and_go_on(
    tmp_path: Path, digits: LabelledImages
) -> None:
    shards = Shards.assign(digits, teachers=3, seed=0)
    parts = tmp_path / "parts"

    def stop(_: int) -> None:
        if len(list(parts.glob("*.safetensors"))) == 2:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"model": "cnn", "epochs": 1, "precision": "float32"}
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(digits, shards, parts=parts, advance=stop, **settings)
    first = (parts / "000000.safetensors").stat().st_mtime_ns
    resumed = train_ensemble(digits, shards, parts=parts, **settings)
    assert (parts / "000000.safetensors").stat().st_mtime_ns == first
    whole = train_ensemble(digits, shards, **settings)
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
    Shards.assign(load_dataset("digits", "train"), teachers=10, seed=1).save(path)
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
        (lambda: [teacher("a"), teacher("b", classes=4)], "must agree in both"),
        (lambda: [teacher("a"), Committee([teacher("b"), teacher("c")])], "itself an ensemble"),
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
