"""Asking a teacher about public noise when it is loaded, to see that it answers as a classifier.

Nothing is kept of the answers but how the teacher is called, their shape, whether they are
probabilities, and whether the same image is answered the same way twice. These are properties of
the interface rather than of any data, and declaring them is cleaner still, as then no value is
looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dpsd.errors import Setting, TeacherError
from dpsd.privacy.answers import AnswerCheckError, RawAnswers, Scores
from dpsd.teachers.calling import Calling, Column, outputs_of
from dpsd.teachers.describing import described, frames_of
from dpsd.teachers.silence import silenced

if TYPE_CHECKING:
    from dpsd.teachers.base import DeclaredScores, Teacher

_PROBE_IMAGES = 5
#: The number of images by which a single column is told to be a probability or a logit.
_COLUMN_IMAGES = 64
#: How much two answers to one image may differ, as a share of the largest score, before it is said.
#: The same batch is computed the same way twice; another order of sums is felt in low precision.
_AGAIN, _ALONE = 1e-3, 0.05


@dataclass(frozen=True)
class Interface:
    """What a probe found out.

    Args:
        calling: how the teacher is called.
        num_classes: the number of classes.
        scores: what it returns.
        notes: what its user should know, each a sentence.
    """

    calling: Calling
    num_classes: int
    scores: Scores
    notes: tuple[str, ...]


def probe(teacher: Teacher, *, num_classes: int | None, scores: DeclaredScores) -> Interface:
    """Find out how a teacher is called, and check that it answers with class scores.

    Each way in which it may be called is tried in turn; see :meth:`Teacher.attempts`.

    Raises:
        TeacherError: it fails on public noise however it is called, or does not answer with class
            scores. The message includes the teacher's own, as the images are public, and the mend
            where it is known.
    """
    noise = public_noise(teacher, _PROBE_IMAGES)
    failure: BaseException | None = None
    declared: Calling | None = None
    for calling in teacher.attempts():
        declared = declared or calling
        teacher.calling = calling
        try:
            found = _interface(teacher, noise, num_classes=num_classes, scores=scores)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - foreign code may raise anything, or exit
            if failure is None or _tells_more(error, failure, is_declared=calling == declared):
                failure = error
        else:
            return found
    assert failure is not None
    assert declared is not None
    teacher.calling = declared
    refusal = TeacherError(
        f"{teacher.description}: asked about {_PROBE_IMAGES} images of noise of shape "
        f"{teacher.input_shape}, the teacher ",
        *(*described(failure, is_public=True), ". "),
        *_mend(teacher, noise, failure),
    )
    refusal.add_note(frames_of(failure))
    raise refusal from failure


def _tells_more(error: BaseException, earlier: BaseException, *, is_declared: bool) -> bool:
    """Return whether an error says more than an earlier one: answers of a wrong kind say most."""
    has_answered = isinstance(error, AnswerCheckError)
    if has_answered != isinstance(earlier, AnswerCheckError):
        return has_answered
    return is_declared


def public_noise(teacher: Teacher, count: int) -> Tensor:
    """Return images of noise, float32 ``(count, C, H, W)`` in [0, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *teacher.input_shape, generator=generator)


def _interface(
    teacher: Teacher, noise: Tensor, *, num_classes: int | None, scores: DeclaredScores
) -> Interface:
    answers = teacher._answers(noise)
    notes: list[str] = []
    if _is_column(answers) and num_classes in (None, 2):
        column = _column(teacher, scores)
        teacher.calling = replace(teacher.calling, column=column)
        scores = "logits" if column == "logit" else "probabilities"
        answers = teacher._answers(noise)
        notes.append(
            f"its single output is taken as the {column} of the second of two classes; if that is "
            "wrong, say what it is with --scores (scores=): logits or probabilities"
        )
    if num_classes is None:
        num_classes = _count_classes(answers)
    if scores == "auto":
        scores = "probabilities" if _are_probabilities(answers) else "logits"
        if scores == "logits" and _are_shares(answers):
            notes.append(
                "its scores are all between 0 and 1 but do not sum to one, as if several classes "
                "could apply at once: dpsd transcribes the one class that applies most, and takes "
                "them as logits. If it ends in a sigmoid, remove that"
            )
    RawAnswers.seal(
        answers,
        batch=len(noise),
        num_classes=num_classes,
        scores=scores,
        members=teacher.members,
    )
    if teacher.calling.layout == "flat":
        size = noise[0].numel()
        notes.append(f"it takes flat inputs (N, {size}), so images are flattened for it")
    notes.extend(teacher.calling.found)
    notes.extend(_unsteadiness(teacher, noise))
    return Interface(teacher.calling, num_classes, scores, tuple(notes))


def _is_column(answers: object) -> bool:
    is_tensor = isinstance(answers, Tensor) and answers.is_floating_point()
    return is_tensor and answers.ndim == 2 and answers.shape[1] == 1  # type: ignore[attr-defined]


def _column(teacher: Teacher, scores: DeclaredScores) -> Column:
    """Tell what a single column is: no probability is outside [0, 1], and nearly any logit is."""
    if scores != "auto":
        return "logit" if scores == "logits" else "probability"
    # Black, white and pure black and white noise move a logit further than plain noise does.
    noise = public_noise(teacher, _COLUMN_IMAGES)
    extremes = torch.cat([noise, noise.round(), torch.zeros_like(noise[:1]), noise[:1] * 0 + 1])
    values = teacher._answers(extremes)
    assert isinstance(values, Tensor)
    inside = bool(((values >= 0) & (values <= 1)).all())
    return "probability" if inside else "logit"


def _count_classes(answers: object) -> int:
    if not isinstance(answers, Tensor):
        raise AnswerCheckError(
            "no tensor of scores", seen=f"a {type(answers).__name__} instead of a tensor of scores"
        )
    if answers.ndim not in (2, 3) or answers.shape[-1] < 2:
        raise AnswerCheckError(
            f"another shape than ({_PROBE_IMAGES}, number of classes)",
            seen=f"shape {tuple(answers.shape)} instead of ({_PROBE_IMAGES}, number of classes)",
        )
    return answers.shape[-1]


def _are_probabilities(answers: object) -> bool:
    if not isinstance(answers, Tensor) or answers.ndim == 0:
        return False
    values = answers.float()
    # As wide as for sealing: so far from one is the sum of a softmax in half precision.
    return bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-2).all())


def _are_shares(answers: object) -> bool:
    if not isinstance(answers, Tensor):
        return False
    return bool(((answers >= 0) & (answers <= 1)).all())


def _unsteadiness(teacher: Teacher, noise: Tensor) -> Iterator[str]:
    """Say if the same public images are answered in another way again, or one by one."""
    if not teacher.is_free or teacher.members > 1:
        return
    with silenced():  # whatever it says of such images, it said the first time
        first, again = teacher._answers(noise), teacher._answers(noise)
        alone = [teacher._answers(image) for image in torch.split(noise, 1)]
    answers = (first, again, *alone)
    if not all(isinstance(part, Tensor) for part in answers):
        return  # the check of the answers says what is wrong
    mend = (
        "a program that was exported in train mode does so: call module.eval() before the export "
        "(or training=False). A teacher is taken to be frozen"
    )
    if _differ(first, again, by=_AGAIN):
        yield f"it answers the same images differently when it is asked again; {mend}"
    elif _differ(first, torch.cat(alone), by=_ALONE):  # type: ignore[arg-type]
        yield f"it answers the same images differently one by one than in a batch; {mend}"


def _differ(first: object, second: object, *, by: float) -> bool:
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    first, second = first.float(), second.float()
    if first.shape != second.shape:
        return True
    return float((first - second).abs().max()) > by * float(first.abs().max())


def _mend(teacher: Teacher, noise: Tensor, failure: BaseException) -> list[str]:
    """Name the mend for what went wrong, as far as noise can tell."""
    with silenced():
        if isinstance(failure, AnswerCheckError):
            mend = _mend_of_output(teacher, noise)
        else:
            mend = _working_option(teacher, noise)
    if mend is not None:
        return mend
    return [
        *("Are ", Setting("input_shape"), ", ", Setting("num_classes"), " and ", Setting("scores")),
        *(" right? A teacher takes float32 images (N, C, H, W) in [0, 1] and returns scores ",),
        "(N, K); docs/teachers.md shows how any other is wrapped",
    ]


def _working_option(teacher: Teacher, noise: Tensor) -> list[str] | None:
    """Find the layout and the range of pixels with which the teacher does not fail."""
    declared = teacher.declared
    for layout, scale in (("nhwc", declared.scale), ("auto", "uint8"), ("nhwc", "uint8")):
        teacher.declared = replace(declared, layout=layout, scale=scale)  # type: ignore[arg-type]
        if teacher.declared == declared or not _answers_somehow(teacher, noise):
            continue
        said: list[str] = []
        if layout != declared.layout:
            said += [Setting("layout"), f" {layout}"]
        if scale != declared.scale:
            said += [" and " if said else "", Setting("input_scale"), f" {scale}"]
        return ["It works with other inputs: say ", *said]
    return None


def _answers_somehow(teacher: Teacher, noise: Tensor) -> bool:
    for calling in teacher.attempts():
        teacher.calling = calling
        try:
            teacher._answers(noise)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - then this is not what it takes
            continue
        return True
    return False


def _mend_of_output(teacher: Teacher, noise: Tensor) -> list[str] | None:
    """Say how to get scores out of what the teacher returned."""
    if not _answers_somehow(teacher, noise):
        return None
    answers = teacher._answers(noise)
    wrap = "wrap it in a function: def teacher(): return lambda images: "
    if isinstance(answers, Tensor):
        if answers.ndim > 1 and not bool(answers.isfinite().all()):
            return [
                "Check its weights, and the range of pixels that it takes: ",
                Setting("input_scale"),
            ]
        if not answers.is_floating_point():
            return [
                "It returns class numbers, and scores are needed: leave out argmax, or take "
                "predict_proba instead of predict"
            ]
        if answers.ndim == 1 and len(answers) == len(noise):
            column = "torch.stack([1 - p, p], 1) for p = module(images)"
            return [f"If these are probabilities of the second of two classes, {wrap}{column}"]
        return None
    outputs = outputs_of(answers)
    if not outputs:
        return [f"Scores are a tensor (N, K): {wrap}a tensor"]
    listed = ", ".join(
        f"{name} {tuple(value.shape)}" if isinstance(value, Tensor) else name
        for name, value in outputs.items()
    )
    return [f"It returns several outputs ({listed}): name the scores with ", Setting("output")]
