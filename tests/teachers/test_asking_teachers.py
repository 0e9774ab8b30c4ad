"""Asking, sealing, probing: what all kinds of teacher share."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpsd.errors import AnswerError, TeacherError
from dpsd.privacy.answers import RawAnswers, open_for_mechanism
from dpsd.teachers import CallableTeacher, ModuleTeacher, Teacher, load_teacher

SHAPE = (1, 8, 8)
SECRET = 0.123456


def scores(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :3]


def test_module_answers_are_sealed_and_right(
    module: nn.Module, images: Tensor, expected: Tensor
) -> None:
    teacher = load_teacher(module, input_shape=SHAPE)
    answers = teacher.ask(images, query_batch=0)
    torch.testing.assert_close(open_for_mechanism(answers), expected)
    assert (teacher.num_classes, teacher.scores) == (3, "logits")
    assert not open_for_mechanism(answers).is_inference()  # a student must be able to learn from it
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_teacher_stays_in_eval_mode(module: nn.Module, images: Tensor, expected: Tensor) -> None:
    teacher = load_teacher(module, input_shape=SHAPE)
    module.train()
    torch.testing.assert_close(open_for_mechanism(teacher.ask(images, query_batch=0)), expected)


def test_bfloat16_is_near(module: nn.Module, images: Tensor, expected: Tensor) -> None:
    teacher = load_teacher(module, input_shape=SHAPE, precision="bfloat16")
    answers = open_for_mechanism(teacher.ask(images, query_batch=0))
    torch.testing.assert_close(answers, expected, atol=0.02, rtol=0.02)


def test_normalization_comes_first(module: nn.Module, images: Tensor) -> None:
    teacher = load_teacher(module, input_shape=SHAPE, normalization=([0.5], [0.25]))
    found = open_for_mechanism(teacher.ask(images, query_batch=0))
    torch.testing.assert_close(found, module((images - 0.5) / 0.25).softmax(1))


@pytest.mark.parametrize("normalization", [([0.5, 0.5], [1.0, 1.0]), ([0.5], [0.0])])
def test_bad_normalization(module: nn.Module, normalization: object) -> None:
    with pytest.raises(TeacherError, match="normalization must be"):
        load_teacher(module, input_shape=SHAPE, normalization=normalization)  # type: ignore[arg-type]


def test_format_is_detected(module: nn.Module) -> None:
    assert load_teacher(module, input_shape=SHAPE).scores == "logits"
    softened = nn.Sequential(module, nn.Softmax(1))
    assert load_teacher(softened, input_shape=SHAPE).scores == "probabilities"
    assert load_teacher(softened, input_shape=SHAPE, scores="logits").scores == "logits"


def test_declared_probabilities_that_are_none(module: nn.Module) -> None:
    with pytest.raises(TeacherError, match="not probabilities"):
        load_teacher(module, input_shape=SHAPE, scores="probabilities")


def test_numpy_callable(images: Tensor) -> None:
    teacher = load_teacher(
        lambda batch: np.full((len(batch), 4), 0.25), input_shape=SHAPE, num_classes=4
    )
    assert open_for_mechanism(teacher.ask(images, query_batch=0)).shape == (7, 4)
    assert teacher.fingerprint.startswith("callable:")
    named = CallableTeacher(scores, input_shape=SHAPE, name="service-7")
    assert named.fingerprint == "callable:service-7"
    assert named.location is None


def test_a_name_tells_functions_apart() -> None:
    one, other = (
        load_teacher(lambda batch: scores(batch), input_shape=SHAPE, name=name)
        for name in ("one", "other")
    )
    assert (one.fingerprint, other.fingerprint) == ("callable:one", "callable:other")


def test_a_name_is_for_functions_alone(module: nn.Module) -> None:
    for source in (module, "teacher.onnx", load_teacher(module, input_shape=SHAPE)):
        with pytest.raises(TeacherError, match="name='mine' is for functions"):
            load_teacher(source, input_shape=SHAPE, name="mine")


def test_location_is_absolute(
    module: nn.Module,
    export_pt2: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_pt2(module, tmp_path / "teacher.pt2")
    monkeypatch.chdir(tmp_path)
    assert load_teacher("teacher.pt2").location == str(tmp_path / "teacher.pt2")
    loaded = load_teacher(module, input_shape=SHAPE)
    assert loaded.location is None
    assert load_teacher("torch.nn:Flatten", input_shape=SHAPE).location == "torch.nn:Flatten"


def test_teacher_passes_through(module: nn.Module) -> None:
    teacher = load_teacher(module, input_shape=SHAPE)
    assert load_teacher(teacher, num_classes=3) is teacher
    with pytest.raises(TeacherError, match="says num_classes 3, but num_classes 4 was given"):
        load_teacher(teacher, num_classes=4)


def test_input_shape_is_asked_for(module: nn.Module) -> None:
    with pytest.raises(TeacherError, match="give input_shape, the channels"):
        load_teacher(module)
    with pytest.raises(TeacherError, match="Are input_shape, num_classes and scores right"):
        load_teacher(module, input_shape=(3, 8, 8))
    with pytest.raises(TeacherError, match="all positive"):
        load_teacher(module, input_shape=(8, 8))  # type: ignore[arg-type]


def test_wrong_number_of_classes(module: nn.Module) -> None:
    with pytest.raises(TeacherError, match="3 classes instead of 10"):
        load_teacher(module, input_shape=SHAPE, num_classes=10)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: scores(batch)[1:], "4 answers for a batch of 5"),
        (lambda batch: scores(batch)[:, 0], r"shape \(5,\)"),
        (lambda batch: [scores(batch), scores(batch)], "a list instead of a tensor"),
        (lambda batch: scores(batch) * float("nan"), "not finite"),
        (lambda batch: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_bad_interface_is_found_when_loading(
    answer: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(answer, input_shape=SHAPE)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (
            lambda out: out * float("nan"),
            "query batch 3: .* the teacher returned values .* not finite",
        ),
        (lambda out: out[:-1], "query batch 3: .* another number of answers than the batch's 7"),
        (lambda out: out[:, :2], "query batch 3: .* another number of classes than 3"),
        (lambda out: None, "query batch 3: .* the teacher returned no tensor of scores"),
    ],
)
def test_bad_answers_name_the_batch(
    images: Tensor, turn: Callable[[Tensor], object], message: str
) -> None:
    calls = iter([lambda out: out, turn])
    teacher = load_teacher(lambda batch: next(calls)(scores(batch)), input_shape=SHAPE)
    with pytest.raises(AnswerError, match=message):
        teacher.ask(images, query_batch=3)


def test_a_failing_teacher_reveals_no_answer(images: Tensor) -> None:
    def leaking(batch: Tensor) -> Tensor:
        if len(batch) == 7:
            raise ValueError(f"my answer was {SECRET}")
        return scores(batch)

    teacher = load_teacher(leaking, input_shape=SHAPE)
    with pytest.raises(
        AnswerError, match=r"query batch 0: .* the teacher raised ValueError"
    ) as caught:
        teacher.ask(images, query_batch=0)
    assert caught.value.__context__ is None
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        own = frame.f_code.co_filename.endswith("base.py")
        assert not (own and any(isinstance(v, RawAnswers) for v in frame.f_locals.values()))
        assert not (own and "answers" in frame.f_locals)
    assert str(SECRET) not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("way_out", [SystemExit, KeyboardInterrupt])
def test_a_teacher_that_leaves_says_nothing_on_its_way(
    images: Tensor, way_out: type[BaseException]
) -> None:
    def leaving(batch: Tensor) -> Tensor:
        if len(batch) == 7:
            raise way_out(f"my answer was {SECRET}")
        return scores(batch)

    teacher = load_teacher(leaving, input_shape=SHAPE)
    expected = AnswerError if way_out is SystemExit else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        teacher.ask(images, query_batch=0)
    assert str(SECRET) not in "".join(traceback.format_exception(caught.value))


def chatty(batch: Tensor) -> Tensor:
    """In every way that there is; what reaches descriptors is tested where the silence is."""
    words = f"of {len(batch)} images the first is {SECRET}"
    print(words)
    warnings.warn(words, stacklevel=1)
    logging.getLogger("teacher").warning(words)
    os.write(2, words.encode())
    return scores(batch)


class ChattyModule(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return chatty(images)


def committee() -> Teacher:
    return load_teacher(
        [load_teacher(chatty, input_shape=SHAPE, name=name) for name in ("one", "other")]
    )


@pytest.mark.parametrize(
    "load",
    [
        lambda: load_teacher(chatty, input_shape=SHAPE),
        lambda: load_teacher(ChattyModule(), input_shape=SHAPE),
        committee,
    ],
    ids=["callable", "module", "committee"],
)
def test_words_about_public_noise_are_heard_and_those_about_queries_are_not(
    load: Callable[[], Teacher],
    images: Tensor,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    def heard() -> list[str]:
        seen = [*capfd.readouterr(), caplog.text, *(str(one.message) for one in recwarn.list)]
        caplog.clear()
        recwarn.clear()
        return seen

    teacher = load()
    assert all("of 5 images" in words for words in heard())
    teacher.ask(images, query_batch=0)
    teacher.predict_classes(images)
    assert not any(heard())


def test_warnings_of_libraries_about_queries_are_withheld(images: Tensor) -> None:
    def warned(batch: Tensor) -> Tensor:
        torch.nn.functional.mse_loss(batch[:1, 0, 0], batch[:, 0, 0])  # shapes that do not match
        return scores(batch)

    with pytest.warns(UserWarning, match="different to the input size"):
        teacher = load_teacher(warned, input_shape=SHAPE)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        teacher.ask(images, query_batch=0)
    assert not seen


def test_a_teacher_that_fails_on_public_noise_may_say_why() -> None:
    def failing(batch: Tensor) -> Tensor:
        raise ValueError("expected 3 channels,\n    got 1" + "." * 1_000)

    with pytest.raises(TeacherError, match=r"raised ValueError: expected 3 channels, got 1") as own:
        load_teacher(failing, input_shape=SHAPE)
    assert len(str(own.value)) < 800
    assert "\n" not in str(own.value)
    assert isinstance(own.value.__cause__, ValueError)  # --debug shows where


def test_a_teacher_that_fails_without_a_word_is_named_all_the_same() -> None:
    def failing(batch: Tensor) -> Tensor:
        raise NotImplementedError

    with pytest.raises(
        TeacherError, match=r"raised NotImplementedError \(at .*, in failing\)\. Are input_shape"
    ):
        load_teacher(failing, input_shape=SHAPE)


def test_wrong_queries(module: nn.Module, images: Tensor) -> None:
    teacher = load_teacher(module, input_shape=SHAPE)
    for wrong in (images[:, :, :4], images[0], images[:0]):
        with pytest.raises(TeacherError, match="query batch 2: images of shape"):
            teacher.ask(wrong, query_batch=2)


def test_fingerprint_follows_content(make_module: Callable[..., nn.Module]) -> None:
    def fingerprint(module: nn.Module, **options: object) -> str:
        return ModuleTeacher(module, input_shape=SHAPE, **options).fingerprint  # type: ignore[arg-type]

    same = fingerprint(make_module(0))
    assert same == fingerprint(make_module(0), precision="bfloat16", description="other")
    assert same != fingerprint(make_module(1))
    nudged = make_module(0)
    with torch.no_grad():
        nudged.get_buffer("1.running_mean")[0] += 1e-6
    assert same != fingerprint(nudged)


def test_a_device_there_is_not(module: nn.Module) -> None:
    with pytest.raises(TeacherError, match="device 'gpu' cannot be used"):
        load_teacher(module, input_shape=SHAPE, device="gpu")
