"""What a teacher is: frozen, query-only, and sealed.

A batch of images goes in, class scores come out, and :meth:`Teacher.ask` seals them before anyone
can look. A kind of teacher supplies :meth:`Teacher._scores` and nothing else; checking, input
normalisation and the wording of errors are here, once.

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
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dpsd.devices.execution import inference_batch
from dpsd.errors import AnswerError, Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.images.pixels import to_unit_range
from dpsd.privacy.answers import AnswerCheckError, RawAnswers, Scores
from dpsd.teachers.dealing import DealtBy
from dpsd.teachers.record import checked_shape as checked_shape
from dpsd.teachers.silence import silenced, untouched_generators

Normalization: TypeAlias = tuple[Sequence[float], Sequence[float]]
Precision: TypeAlias = Literal["float32", "bfloat16"]
DeclaredScores: TypeAlias = Literal["logits", "probabilities", "auto"]

_PROBE_IMAGES = 5

#: Characters of a teacher's own message that are quoted.
_LONGEST_MESSAGE = 300

#: Scores of an ensemble held in memory at once.
_MOST_SCORES = 2**24


class Teacher(ABC):
    """A frozen classifier that can only be asked.

    A subclass sets up whatever :meth:`_scores` needs and then calls ``super().__init__``, which
    asks about five images of public random noise to see that the interface is what it should be.
    Of those answers nothing is kept but their shape and, with ``scores="auto"``, one bit: whether
    they are probabilities. That is a property of the interface rather than of any data, but
    declaring ``scores`` is the cleaner way, as then no value is looked at.

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        num_classes: how many classes there are; read off the probe's answers when ``None``.
        fingerprint: sha256 of the weights and the graph, whatever the file is called and whenever
            it was written. Budgets are kept under it, so device, precision and normalisation are
            no part of it. A callable cannot be hashed and has ``"callable:" + name``.
        description: the teacher in a few words, for reports and errors.
        scores: what the teacher returns; ``"auto"`` finds out.
        normalization: ``(means, standard deviations)``, one number per channel, applied to the
            ``[0, 1]`` images before the teacher sees them.

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
    location: str | None = None
    """Where :func:`~dpsd.teachers.load_teacher` finds the teacher again: an absolute path or
    ``package.module:factory``. ``None`` for what exists in this process alone."""
    members: int = 1
    """How many teachers answer: an ensemble's answers are ``(members, N, K)``."""
    is_disjoint: bool = False
    """Whether the members' shards are on record and were checked to be disjoint: hashes of the
    records in them differ between shards. That the members were trained on them is not checked."""
    dealt_by: DealtBy | None = None
    """What decided which member a record trained, if that is on record."""
    records: int | None = None
    """How many records were dealt to the members, before equal ones were dropped: a number that no
    record can change. ``None`` if it is not on record."""
    persons: int | None = None
    """How many persons those records belong to, if they were dealt by person."""
    weights_location: str | None = None
    """The absolute path of the state dict that filled the factory's module, if one did."""

    def __init__(
        self,
        *,
        input_shape: Shape,
        num_classes: int | None = None,
        fingerprint: str,
        description: str,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
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
        self.num_classes, self.scores = self._probe(num_classes, scores)

    @property
    def query_batch(self) -> int:
        """How many images to ask about at once: bounded by memory, whatever the ensemble's size."""
        answers = _MOST_SCORES // (self.members * self.num_classes)
        return max(1, min(inference_batch(self.input_shape), answers))

    @property
    def charged(self) -> Sequence[Teacher]:
        """The teachers that a run is charged to, each on an account of its own."""
        return (self,)

    def require_unchanged(self) -> None:  # noqa: B027 - most teachers cannot be changed
        """Refuse a teacher that is no longer what its fingerprint says.

        Raises:
            TeacherError: somebody changed its weights since it was loaded.
        """

    @abstractmethod
    def _scores(self, images: Tensor) -> object:
        """The teacher's scores for normalised images ``(N, C, H, W)``: a tensor ``(N, K)``, or
        ``(members, N, K)``.
        """

    def ask(self, images: Tensor, *, query_batch: int) -> RawAnswers:
        """Ask about a batch and seal the answers.

        Args:
            images: float32 in ``[0, 1]``, ``(N, C, H, W)``, N at least one.
            query_batch: the batch's number in the run, for error messages.

        Returns:
            Sealed probabilities for the N images, on the images' device.

        Raises:
            TeacherError: the images are not what the teacher takes.
            AnswerError: the teacher failed, or answered with something other than finite class
                scores. The message says what kind of failure it was and quotes no answer.
            KeyboardInterrupt: somebody interrupted, or the teacher says so.

        Whatever the teacher prints, warns of or logs meanwhile is dropped (see
        :mod:`dpsd.teachers.silence`), as are warnings of libraries: all of it may depend on
        answers. So may what it draws from random generators that others use after it, which are put
        back.
        """
        self._check_images(images, query_batch)
        failure = None
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
                failure = _described(error)
        # Raised outside the handler and without a local that holds answers: the original
        # exception, its message and the variables of its traceback are all out of reach.
        if failure is None:
            raise KeyboardInterrupt
        raise AnswerError(
            f"query batch {query_batch}: for images of shape {tuple(images.shape)} the teacher "
            f"{failure}"
        )

    def predict_classes(self, images: Tensor) -> Tensor:
        """The teacher's class for each image: for its owner's own measurements only.

        Nothing here is sealed or privatised, so no transcription may call it: what it returns is
        about the owner's data, for the owner.

        Args:
            images: ``(N, C, H, W)`` of the teacher's shape, uint8 or float32 in ``[0, 1]``.

        Returns:
            int64 ``(N,)`` on the CPU; of several teachers, the class that most of them say.

        Raises:
            TeacherError: the images are not what the teacher takes.
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
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything
                raise AnswerError(
                    f"evaluation batch {number}: the teacher {_described(error)}"
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
        """Raw answers, on the images' device."""
        with torch.inference_mode():
            if self._normalization is not None:
                mean, deviation = (part.to(images.device) for part in self._normalization)
                images = (images - mean) / deviation
            else:
                images = images.clone()  # a teacher may change them, and others are asked after it
            answers = self._scores(images)
            return answers.to(images.device) if isinstance(answers, Tensor) else answers

    def _probe(self, num_classes: int | None, scores: DeclaredScores) -> tuple[int, Scores]:
        """Check the interface on public noise.

        A class count and a format come out, and what the teacher says in words: about public
        images it may, and it helps whoever loads the teacher.
        """
        noise = torch.rand(
            _PROBE_IMAGES, *self.input_shape, generator=torch.Generator().manual_seed(0)
        )
        try:
            return _interface(
                self._answers(noise),
                num_classes=num_classes,
                scores=scores,
                members=self.members,
            )
        except Exception as error:
            raise TeacherError(
                f"{self.description}: asked about {_PROBE_IMAGES} images of noise of shape "
                f"{self.input_shape}, the teacher {_described(error, is_public=True)}. Are ",
                *(Setting("input_shape"), ", ", Setting("num_classes"), " and ", Setting("scores")),
                " right?",
            ) from error

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


def _described(error: BaseException, *, is_public: bool = False) -> str:
    """What went wrong, in a line; with the teacher's own message if it is about public images.

    >>> _described(ValueError("expected 3 channels,\\n got 1"), is_public=True)
    'raised ValueError: expected 3 channels, got 1'
    """
    if isinstance(error, AnswerCheckError):
        return f"returned {error if is_public else error.problem}"
    if not is_public:
        # The name of a type of its own may be a message, too.
        kinds = (kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "torch"))
        return f"raised {next(kinds).__name__} (its message is withheld: it may quote answers)"
    kind = f"raised {type(error).__name__}"
    message = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    return f"{kind}: {message}" if message else kind


def _interface(
    answers: object, *, num_classes: int | None, scores: DeclaredScores, members: int
) -> tuple[int, Scores]:
    """Class count and format of the probe's answers: all that is ever taken from them."""
    if num_classes is None:
        num_classes = _count_classes(answers)
    if scores == "auto":
        scores = "probabilities" if _are_probabilities(answers) else "logits"
    RawAnswers.seal(
        answers, batch=_PROBE_IMAGES, num_classes=num_classes, scores=scores, members=members
    )
    return num_classes, scores


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
    """The one bit that leaves the probe's answers."""
    if not isinstance(answers, Tensor) or answers.ndim == 0:
        return False
    values = answers.float()
    return bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-3).all())
