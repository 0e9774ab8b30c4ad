"""The base class of teachers, which are frozen, query-only and sealed.

A batch of images goes in, class scores come out, and :meth:`Teacher.ask` seals them before anyone
can look. Each kind of teacher supplies :meth:`Teacher._scores` alone; checks, input normalisation
and the wording of errors are here, once for all.

>>> import torch
>>> class Uniform(Teacher):
...     def _scores(self, images):
...         return torch.zeros(len(images), 4)
>>> teacher = Uniform(input_shape=(1, 8, 8), fingerprint="callable:uniform", description="uniform")
>>> teacher.num_classes, teacher.scores
(4, 'logits')
>>> teacher.ask(torch.rand(2, 1, 8, 8), query_batch=0)
RawAnswers(shape=(2, 4))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.devices.execution import inference_batch
from dpsd.errors import AnswerError, Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.privacy.answers import RawAnswers, Scores
from dpsd.teachers.calling import Calling
from dpsd.teachers.dealing import DealtBy
from dpsd.teachers.describing import described, frames_of
from dpsd.teachers.probing import probe
from dpsd.teachers.record import checked_shape as checked_shape
from dpsd.teachers.silence import silenced, untouched_generators

if TYPE_CHECKING:
    from dpsd.teachers.backbones import Backbone

Normalization: TypeAlias = tuple[Sequence[float], Sequence[float]]
Precision: TypeAlias = Literal["float32", "bfloat16"]
DeclaredScores: TypeAlias = Literal["logits", "probabilities", "auto"]

#: The most scores of an ensemble that are in memory at once.
_MOST_SCORES = 2**24


class Teacher(ABC):
    """A frozen classifier that can only be asked.

    A subclass sets up whatever :meth:`_scores` needs and then calls ``super().__init__``, which
    asks about public random noise to check the interface; see :mod:`dpsd.teachers.probing`.

    Args:
        input_shape: the shape of an image, ``(channels, height, width)``.
        num_classes: the number of classes; taken from the probe's answers if ``None``.
        fingerprint: the sha256 of the weights and the graph, independent of the file's name and
            date. Budgets are kept under it, so device, precision and normalisation are not part of
            it. A callable cannot be hashed and has ``"callable:" + name``.
        description: the teacher in a few words, for reports and errors.
        scores: what the teacher returns; ``"auto"`` finds out.
        normalization: ``(means, standard deviations)``, one number per channel, applied to the
            ``[0, 1]`` images before the teacher sees them.
        calling: what the teacher is handed for images, and where its scores are.

    Raises:
        TeacherError: the teacher cannot be asked about images of this shape, or answers with
            something other than class scores.
    """

    input_shape: Shape
    num_classes: int
    fingerprint: str
    description: str
    scores: Scores
    normalization: Normalization | None
    features: Backbone | None = None
    """The frozen public backbone that an ensemble's members are linear on, if there is one."""
    location: str | None = None
    """Where :func:`~dpsd.teachers.load_teacher` finds the teacher again: an absolute path or
    ``package.module:factory``. ``None`` for a teacher that exists in this process alone."""
    class_names: tuple[str, ...] | None = None
    """The names of the classes in the order of the labels: the owner's public words for them."""
    applied: str | None = None
    """What the teacher's file says is done with an image before the teacher sees it, in words."""
    members: int = 1
    """The number of teachers that answer; an ensemble's answers are ``(members, N, K)``."""
    is_disjoint: bool = False
    """Whether the members' shards are on record and were checked to be disjoint: hashes of the
    records in them differ between shards. That the members were trained on them is not checked."""
    dealt_by: DealtBy | None = None
    """What decided which member a record trained, if that is on record."""
    records: int | None = None
    """The number of records that were dealt to the members, before equal ones were dropped: a
    number that no record can change. ``None`` if it is not on record."""
    persons: int | None = None
    """The number of persons that those records belong to, if they were dealt by person."""
    declared: Calling
    """How the teacher was declared to be called."""
    calling: Calling
    """How the teacher is called, as a probe settled it."""
    notes: tuple[str, ...] = ()
    """What its user should know of how it is called, each a sentence."""
    is_free: bool = True
    """Whether asking costs nothing but time on this machine, so that it may be tried on noise."""
    weights_location: str | None = None
    """The absolute path of the state dict that filled the factory's module, if one did."""
    loaded_with: Mapping[str, Any] = {}
    """Further settings with which the teacher was loaded, by name, for a run to store."""
    requires_budget_file: bool = False
    """Whether a run must be given a budget file, as nobody can tell what it asks."""

    def __init__(
        self,
        *,
        input_shape: Shape,
        num_classes: int | None = None,
        fingerprint: str,
        description: str,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        calling: Calling | None = None,
    ) -> None:
        self.input_shape = checked_shape(input_shape)
        self.fingerprint = fingerprint
        self.description = description
        self.normalization = normalization
        self._normalization = _channel_tensors(normalization, channels=self.input_shape[0])
        if num_classes is not None and num_classes < 2:
            raise TeacherError(Setting("num_classes"), f" must be at least 2, not {num_classes}")
        if scores not in ("logits", "probabilities", "auto"):
            raise TeacherError(
                Setting("scores"), f" must be logits, probabilities or auto, not {scores!r}"
            )
        self.declared = calling or Calling()
        if normalization is not None and self.declared.scale != "1":
            raise TeacherError(
                *(Setting("normalization"), " applies to images in [0, 1], and "),
                *(Setting("input_scale"), f" {self.declared.scale} asks for others: give one"),
            )
        with untouched_generators():
            found = probe(self, num_classes=num_classes, scores=scores)
        self.calling, self.notes = found.calling, found.notes
        self.num_classes, self.scores = found.num_classes, found.scores

    @property
    def query_batch(self) -> int:
        """The number of images to ask about at once, which bounds memory for any ensemble."""
        answers = _MOST_SCORES // (self.members * self.num_classes)
        return max(1, min(inference_batch(self.input_shape), answers))

    @property
    def charged(self) -> Sequence[Teacher]:
        """The teachers that a run is charged to, each with an account of its own."""
        return (self,)

    @property
    def declared_calling(self) -> Calling:
        """How to declare that the teacher is called, to load it again from its location."""
        return self.calling

    def require_unchanged(self) -> None:  # noqa: B027 - most teachers cannot be changed
        """Refuse a teacher that no longer matches its fingerprint.

        Raises:
            TeacherError: the teacher's weights were changed since it was loaded.
        """

    def forecast(self, answers: int) -> str | None:
        """Say what asking about so many images will take, found out from public noise alone.

        A run calls this before anything is spent. ``None`` says nothing, as do all teachers that
        answer from this machine.

        Args:
            answers: the number of images that are to be asked about.

        Raises:
            TeacherError: the teacher cannot answer.
            ConfigError: a setting does not allow that much.
        """
        return None

    @abstractmethod
    def _scores(self, images: Tensor) -> object:
        """Return scores for normalised images ``(N, C, H, W)``: a tensor ``(N, K)``, or
        ``(members, N, K)``.
        """

    def ask(self, images: Tensor, *, query_batch: int) -> RawAnswers:
        """Ask about a batch and seal the answers.

        Args:
            images: the images, float32 in ``[0, 1]``, ``(N, C, H, W)``, with N at least one.
            query_batch: the number of the batch in the run, for error messages.

        Returns:
            Sealed probabilities for the N images, on the images' device.

        Raises:
            TeacherError: the teacher does not take such images.
            AnswerError: the teacher failed, or answered with something other than finite class
                scores. The message says what kind of failure it was and quotes no answer.
            KeyboardInterrupt: the user interrupted, or the teacher raised it.

        Whatever the teacher prints, warns of or logs meanwhile is dropped (see
        :mod:`dpsd.teachers.silence`), as are warnings of libraries, since all of it may depend on
        answers. What the teacher draws from shared random generators may depend on answers too, so
        their states are restored.
        """
        self._check_images(images, query_batch)
        failure, calls = None, ""
        with silenced(), untouched_generators():
            try:
                return RawAnswers.seal(
                    self._answers(images),
                    batch=len(images),
                    num_classes=self.num_classes,
                    scores=self.scores,
                    members=self.members,
                )
            except KeyboardInterrupt:
                pass
            except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
                failure, calls = described(error), frames_of(error)
        # Raised outside the handler and without a local variable that holds answers, so that the
        # original exception, its message and the variables of its traceback are out of reach.
        if failure is None:
            raise KeyboardInterrupt
        refusal = AnswerError(
            f"query batch {query_batch}: for images of shape {tuple(images.shape)} the teacher ",
            *failure,
        )
        refusal.add_note(calls)  # shown with the traceback alone, which says nothing of values
        raise refusal

    def predict_classes(self, images: Tensor) -> Tensor:
        """Return the teacher's class for each image, for the owner's own measurements only.

        Nothing here is sealed or privatised, so no transcription may call this method: its result
        is about the owner's data, for the owner.

        Args:
            images: images ``(N, C, H, W)`` of the teacher's shape, uint8 or float32 in ``[0, 1]``.

        Returns:
            The classes, int64 ``(N,)`` on the CPU; for several teachers, those that most of them
            say.

        Raises:
            TeacherError: the teacher does not take such images.
            AnswerError: the teacher failed, or answered with something other than class scores.
        """
        found = []
        for number, batch in enumerate(torch.split(images, self.query_batch)):
            pixels = to_unit_range(batch)
            self._check_images(pixels, number)
            try:
                with silenced():
                    answers = self._answers(pixels)
                    RawAnswers.seal(
                        answers, batch=len(batch), num_classes=self.num_classes, scores=self.scores
                    )
            except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code may raise anything
                raise AnswerError(
                    f"evaluation batch {number}: the teacher ", *described(error)
                ) from None
            assert isinstance(answers, Tensor)  # sealing checked it
            said = answers.argmax(-1)
            if said.ndim == 2:
                said = F.one_hot(said, self.num_classes).sum(0).argmax(-1)
            found.append(said.cpu())
        return torch.cat(found)

    def _check_images(self, images: Tensor, query_batch: int) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape or len(images) == 0:
            raise TeacherError(
                f"query batch {query_batch}: images of shape {tuple(images.shape)}; the teacher "
                f"takes (N, {', '.join(map(str, self.input_shape))}) with N at least 1"
            )

    def _answers(self, images: Tensor) -> object:
        """Return raw answers on the images' device, for what seals them and for public noise."""
        with torch.inference_mode():
            if self._normalization is not None:
                mean, deviation = (part.to(images.device) for part in self._normalization)
                handed = (images - mean) / deviation
            else:
                handed = images.clone()  # a teacher may change them before others are asked
            answers = self._scores(self.calling.images(handed))
            return answers.to(images.device) if isinstance(answers, Tensor) else answers

    def attempts(self) -> Iterator[Calling]:
        """Yield each way in which the teacher may be called, the likeliest first.

        Whatever else a way needs is set up before it is yielded.
        """
        yield self.declared
        if self.declared.layout == "auto":
            yield replace(self.declared, layout="flat")

    def rehearse(self, noise: Tensor) -> None:
        """Ask about public noise, as a run will ask about its queries.

        Args:
            noise: images of noise ``(N, C, H, W)``, as the run's images are: on its device, and in
                its memory layout.

        Raises:
            TeacherError: the teacher fails; the message includes its own, as the images are public.
        """
        try:
            with silenced(), untouched_generators():
                RawAnswers.seal(
                    self._answers(noise),
                    batch=len(noise),
                    num_classes=self.num_classes,
                    scores=self.scores,
                    members=self.members,
                )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            refusal = TeacherError(
                f"{self.description}: asked about {len(noise)} images of noise, the teacher ",
                *described(error, is_public=True),
            )
            refusal.add_note(frames_of(error))
            raise refusal from error

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.description!r}, input_shape={self.input_shape}, "
            f"num_classes={self.num_classes}, scores={self.scores!r})"
        )


def agree(name: str, declared: object, found: object, *, where: str) -> None:
    """Refuse an argument that contradicts what a file says about itself.

    >>> agree("num_classes", None, 10, where="teacher.onnx")
    >>> agree("num_classes", 7, 10, where="teacher.onnx")
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: teacher.onnx says num_classes 10, but num_classes 7 was given
    """
    if declared is not None and found is not None and declared != found:
        raise TeacherError(
            f"{where} says {name} {found}, but ", Setting(name), f" {declared} was given"
        )


def _channel_tensors(
    normalization: Normalization | None, *, channels: int
) -> tuple[Tensor, Tensor] | None:
    if normalization is None:
        return None
    mean, deviation = (torch.tensor(list(part)).float().view(-1, 1, 1) for part in normalization)
    if len(mean) != channels or len(deviation) != channels or not bool((deviation > 0).all()):
        raise TeacherError(
            Setting("normalization"),
            f" must be (means, deviations) with {channels} numbers each, deviations positive, not "
            f"{normalization}",
        )
    return mean, deviation
