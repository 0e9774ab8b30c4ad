"""Teachers behind a service that speaks the Open Inference Protocol (v2, over HTTP).

KServe, Triton, MLServer and OpenVINO Model Server do; needs the extra ``service``. What is
sent again, and what never is, is said in :mod:`dpsd.teachers.connection`.

>>> ServiceTeacher("http://models.example/v2/models/digits")
Traceback (most recent call last):
    ...
dpsd.errors.TeacherError: http://models.example/v2/models/digits would send queries and answers...
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpsd.errors import ConfigError, Setting, TeacherError
from dpsd.images.names import Shape
from dpsd.privacy.answers import AnswerCheckError
from dpsd.teachers.address import ServiceAddress, ServiceOptions
from dpsd.teachers.base import DeclaredScores, Normalization, Teacher, agree
from dpsd.teachers.calling import Calling
from dpsd.teachers.connection import Connection, Pending, TooLargeError
from dpsd.teachers.failures import Kind, RequestFailure
from dpsd.teachers.inference import (
    BINARY,
    ModelInterface,
    decode,
    encode,
    most_bytes,
    read_interface,
)
from dpsd.teachers.layouts import Layout
from dpsd.teachers.volley import volley

#: The most images and bytes in a request unless the user says otherwise.
_MOST_IMAGES, _REQUEST_BYTES = 64, 1 << 22

#: The most seconds that are waited in all to reach a service that cannot be reached: when it is
#: loaded, and in a run, where a failure loses what a round has spent.
_PROBE_PATIENCE, _PATIENCE = 5.0, 900.0


class ServiceTeacher(Teacher):
    """A teacher that is a model behind a service.

    Nobody can hash what a service runs. The teacher's budget is therefore kept under its address,
    with the version of the model where the service states it, and a run needs a ``budget_file``.

    Args:
        url: the address, ``https://HOST/v2/models/NAME``, with ``/versions/VERSION`` or without.
            Where a service lists one version only, that is the one asked. Where it lists none, the
            version is the one that its answers name, if they do.
        input_shape: the shape of an image, ``(C, H, W)``; needed only if the service leaves it
            open. Models that take ``(H, W, C)``, ``(H, W)`` or a row of numbers are recognised.
        num_classes: the number of classes; if given, it must be what the service says.
        scores: ``"logits"``, ``"probabilities"`` or ``"auto"``.
        normalization: ``(means, deviations)`` applied to the images first. A model that takes bytes
            (``UINT8``) gets whole numbers from 0 to 255, and none can be given.
        output: the name of the output with the scores; needed only if several could be.
        options: how the service is called.

    Raises:
        TeacherError: the address is no such address, the service cannot be reached, or it is not a
            classifier.
    """

    requires_budget_file = True

    def __init__(
        self,
        url: str,
        *,
        input_shape: Shape | None = None,
        num_classes: int | None = None,
        scores: DeclaredScores = "auto",
        normalization: Normalization | None = None,
        output: str | None = None,
        options: ServiceOptions | None = None,
    ) -> None:
        self.is_free = False  # it may be paid for
        self._output = output
        self._options = options or ServiceOptions()
        address = ServiceAddress.of(url, plain_http=self._options.plain_http)
        self._connection = Connection(address, self._options)
        address, self._interface, self._binary = _described(address, self._connection, output)
        self._address, self._version = address, address.version
        image = self._interface.image
        self._layout = Layout.of(image.dimensions, input_shape, where=address.url)
        self._as_bytes = image.datatype == "UINT8"
        if self._as_bytes and normalization is not None:
            raise TeacherError(
                f"{address.url} takes bytes and normalises them itself: leave out ",
                Setting("normalization"),
            )
        classes = self._interface.num_classes
        agree("num_classes", num_classes, None if classes == 1 else classes, where=address.url)
        self._size = image.batch or self._options.request_images or _size(self._layout.shape)
        self._left: float | None = None
        self._patience = _PROBE_PATIENCE
        self.loaded_with = self._options.chosen()
        super().__init__(
            input_shape=self._layout.shape,
            num_classes=num_classes or (None if classes == 1 else classes),
            fingerprint=address.fingerprint,
            description=f"service {address.url}",
            scores=scores,
            normalization=normalization,
            # The service states its layout, in which images are arranged when they are sent.
            calling=Calling(layout="nchw"),
        )
        if self._version is not None:  # some services say it in their answers alone
            self.fingerprint = address.of_version(self._version).fingerprint
        self.location = address.url
        self._patience = _PATIENCE

    @property
    def declared_calling(self) -> Calling:
        return Calling(output=self._output)

    @property
    def query_batch(self) -> int:
        """The number of images to ask about at once: enough for all requests in flight."""
        return max(super().query_batch, self._size * self._options.requests_in_flight)

    def forecast(self, answers: int) -> str | None:
        """Ask about public noise as a run does, and say what so many answers will take.

        Args:
            answers: the number of images that are to be asked about.

        Raises:
            TeacherError: the service failed.
            ConfigError: it would take longer than ``service_seconds``.
        """
        seconds, noise = self._timed(answers)
        estimate = seconds * answers / noise
        requests = math.ceil(answers / self._size)
        self._left = limit = self._options.service_seconds
        said = (
            f"{self.description}: {answers:,} images in about {requests:,} requests, "
            f"{min(self._options.requests_in_flight, requests)} at a time, will take about "
            f"{duration(estimate)}, judging by {noise:,} images of noise"
        )
        if limit is not None and estimate > limit:
            raise ConfigError(
                f"{said}, but ",
                Setting("service_seconds"),
                f" allows {duration(limit)}: allow more, or ask for fewer ",
                *(Setting("queries"), " or in fewer ", Setting("rounds")),
            )
        return said

    def _timed(self, answers: int) -> tuple[float, int]:
        """Return the seconds that some noise takes, and the number of its images."""
        random = torch.Generator().manual_seed(1)
        self._left = None
        while True:
            size = self._size
            count = max(1, min(answers, size * self._options.requests_in_flight))
            noise = torch.rand(count, *self.input_shape, generator=random)
            start = time.perf_counter()
            try:
                self._answers(noise)
            except (RequestFailure, AnswerCheckError) as error:
                happened = (
                    error.seen if isinstance(error, RequestFailure) else (f"returned {error}",)
                )
                raise TeacherError(
                    f"{self.description}: asked about {count} images of noise, the service ",
                    *happened,
                ) from None
            # The service may just have said that requests have to be smaller.
            if self._size == size:
                return time.perf_counter() - start, count

    def _scores(self, images: Tensor) -> object:
        values = self._layout.arranged(images, as_bytes=self._as_bytes)
        start = time.monotonic()
        pending = Pending(
            until=None if self._left is None else start + self._left, wait=self._patience
        )
        self._connection.refresh()
        tasks = [
            partial(self._asked, values[at : at + self._size], pending)
            for at in range(0, len(values), self._size)
        ]
        try:
            found = volley(
                tasks,
                threads=self._options.requests_in_flight,
                stop=pending.stop,
                seconds=self._left,
            )
        except TimeoutError:
            raise RequestFailure(
                Kind.TIMEOUT, "took longer than ", Setting("service_seconds")
            ) from None
        finally:
            if self._left is not None:
                self._left = max(0.0, self._left - (time.monotonic() - start))
        if len({part.shape[1] for part in found}) > 1:
            raise RequestFailure(Kind.MALFORMED, "answered with different numbers of classes")
        return self.calling.scores(torch.from_numpy(np.concatenate(found)))

    def _asked(self, values: NDArray[Any], pending: Pending) -> NDArray[np.float32]:
        """Return the scores for images, in as many requests as the service wants."""
        fixed = self._interface.image.batch
        rows = len(values)
        if rows > self._size and fixed is None:
            halves = np.array_split(values, 2)
            return np.concatenate([self._asked(half, pending) for half in halves])
        if fixed is not None and rows < fixed:  # nothing is asked about the black images
            values = np.concatenate(
                [values, np.zeros_like(values, shape=(fixed - rows, *values.shape[1:]))]
            )
        body, headers = encode(values, self._interface, binary=self._binary)
        known = getattr(self, "num_classes", self._interface.num_classes)
        try:
            answer_headers, answer = self._connection.post(
                f"{self._address.model_path}/infer",
                body,
                headers,
                most=most_bytes(len(values), known),
                pending=pending,
            )
        except TooLargeError:
            if rows == 1 or fixed is not None:
                raise RequestFailure(
                    Kind.REFUSED, f"refuses even {len(values)} images as too large (status 413)"
                ) from None
            self._size = min(self._size, max(1, rows // 2))
            return self._asked(values, pending)
        scores, version = decode(
            answer,
            answer_headers,
            model=self._interface,
            rows=len(values),
            version=self._version,
        )
        if self.location is None:  # while it is loaded, and answers about noise
            self._version = version or self._version
        return scores[:rows]


def _described(
    address: ServiceAddress, connection: Connection, output: str | None
) -> tuple[ServiceAddress, ModelInterface, bool]:
    """Return a model's address with its version, its interface, and whether it takes bytes."""
    try:
        server = connection.get(address.server_path) or {}
        model = connection.get(address.model_path)
        if model is None:
            raise TeacherError(f"{address.url}: the service has no such model; check its name")
        versions = model.get("versions") or []
        if address.version is None and isinstance(versions, list) and len(versions) == 1:
            address = address.of_version(str(versions[0]))
        elif address.version is None and versions:
            listed = ", ".join(map(str, versions))
            raise TeacherError(
                f"{address.url} has several versions ({listed[:200]}), and budgets are kept for "
                "each: name one, as in …/versions/" + str(versions[-1])[:40]
            )
    except RequestFailure as failure:
        raise TeacherError(f"{address.url}: the service ", *failure.seen) from None
    binary = BINARY in (server.get("extensions") or [])
    return address, read_interface(model, where=address.url, output=output), binary


def _size(shape: Shape) -> int:
    """Return how many images go into a request.

    >>> _size((1, 28, 28)), _size((3, 224, 224))
    (64, 6)
    """
    return max(1, min(_MOST_IMAGES, _REQUEST_BYTES // (4 * math.prod(shape))))


def duration(seconds: float) -> str:
    """Write a duration, rounded.

    >>> duration(0.2), duration(200), duration(7_000)
    ('1 second', '3 minutes', '2 hours')
    """
    for unit, length in (("hour", 3_600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * length or unit == "second":
            number = max(1, round(seconds / length))
            return f"{number:,} {unit}{'' if number == 1 else 's'}"
    raise AssertionError
