"""The attacker's public images are never the private ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.attacks.inversion.conftest import World

from dpsd.attacks.inversion.judging import comparable
from dpsd.attacks.inversion.public import check_public, content_key, public_images
from dpsd.errors import ConfigError, DataError, UnknownNameError
from dpsd.models import build_classifier
from dpsd.synthesis.distinct import image_digests
from dpsd.teachers import TeacherRecord, load_teacher, save_teacher


def test_the_private_data_set_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="the private data set itself"):
        public_images("digits", world.others, most=64, seed=0)


def test_what_the_teacher_was_trained_on_is_refused_under_any_path(
    world: World, tmp_path: Path
) -> None:
    """As far as the record beside it tells; the held-out records may come from elsewhere."""
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 3
    own = tmp_path / "own.npz"
    np.savez(own, train_images=images, train_labels=labels)
    record = TeacherRecord(
        model="cnn", input_shape=(1, 8, 8), num_classes=3, data=str(own), data_place=str(own)
    )
    module = build_classifier("cnn", input_shape=(1, 8, 8), num_classes=3, seed=0)
    teacher = load_teacher(save_teacher(tmp_path / "teacher", module, record))
    for spec in (str(own), f"{tmp_path}/teacher/../own.npz"):
        with pytest.raises(ConfigError, match="holds what the teacher was trained on"):
            public_images(spec, world.others, most=64, seed=0, teachers=[teacher])
        assert len(public_images(spec, world.others, most=64, seed=0).pixels) == 20
    check_public("letters", world.others, [teacher])


def test_a_folder_or_file_is_known_by_its_content_and_names_by_themselves(tmp_path: Path) -> None:
    file = tmp_path / "public.npz"
    keys = set[str | None]()
    for value in (0, 1):
        np.savez(file, images=np.full((5, 8, 8), value, np.uint8))
        keys.add(content_key(str(file), (1, 8, 8)))
    assert len(keys - {None}) == 2
    assert {content_key(name, (1, 8, 8)) for name in ("letters", "digits", "classes:0")} == {None}


def test_unknown_names_are_refused_with_what_there_is(world: World) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'letters'"):
        public_images("lettres", world.others, most=64, seed=0)
    with pytest.raises(DataError, match=r"public: '\./scans' is no folder"):
        public_images("./scans", world.others, most=64, seed=0)


def test_other_classes_of_the_domain_are_named_the_milder_setting(world: World) -> None:
    found = public_images("classes:0, 2", world.others, most=1000, seed=0)
    assert found.classes.tolist() == [1]
    assert "GMI's milder setting" in found.words
    assert found.are_private
    assert not public_images("strokes", world.others, most=64, seed=0).are_private
    held_out = set(image_digests(world.others.images[world.others.labels != 1]).tolist())
    assert set(image_digests(found.pixels).tolist()) == held_out


@pytest.mark.parametrize("spec", ["classes:0,1,2", "classes:7", "classes:"])
def test_all_classes_or_unknown_ones_leave_nothing_to_attack(world: World, spec: str) -> None:
    with pytest.raises(ConfigError, match="some, and not all"):
        public_images(spec, world.others, most=64, seed=0)


def test_drawn_sources_and_seeds_give_the_same_images_again(world: World) -> None:
    first = public_images("strokes", world.others, most=64, seed=1).pixels
    assert torch.equal(public_images("strokes", world.others, most=64, seed=1).pixels, first)
    assert not torch.equal(public_images("strokes", world.others, most=64, seed=2).pixels, first)


def test_compared_records_are_balanced_and_without_common_ones(world: World) -> None:
    shared = torch.arange(30)
    others = world.others
    images = torch.cat([others.images, world.members.images[shared], others.images[:9]])
    labels = torch.cat([others.labels, world.members.labels[shared], others.labels[:9]])
    mixed = type(others)(
        images=images, labels=labels, class_names=others.class_names, name="digits", split="test"
    )
    inside, outside = comparable(world.members, mixed, torch.tensor([0, 2]), seed=0)
    assert torch.equal(inside.labels, outside.labels)
    assert inside.labels.unique().tolist() == [0, 2]
    digests = image_digests(torch.cat([inside.images, outside.images]))
    assert len(digests.unique()) == len(digests)
    common = set(image_digests(world.members.images[shared]).tolist())
    assert not common & set(digests.tolist())
