"""Mechanisms, the only code that sees a teacher's raw answers.

A mechanism is a randomised function *together with* its exact channel and its cost:

1. :meth:`Mechanism.privatize` turns raw answers into a release, which is all that other code sees;
2. :meth:`Mechanism.log_likelihood` is ``log P(release | the teacher says class c)`` for every
   class ``c``, known exactly because the channel is ours;
3. :meth:`Mechanism.event` is the cost of one answer, for :mod:`dpsd.privacy.accounting`.

``prior`` is the student's prediction for the same queries. The student is built from earlier
releases alone, so the prior is public, and so is everything that is decided from it: the candidates
of randomised response, the coordinates of a gradient, and the queries that need no answer.

>>> import torch
>>> from dpsd.privacy.answers import RawAnswers
>>> answers = RawAnswers.seal(torch.eye(3), batch=3, num_classes=3, scores="probabilities")
>>> prior = torch.full((3, 3), 1 / 3)
>>> mechanism = RandomizedResponse(epsilon=20.0)
>>> release = mechanism.privatize(answers, prior)
>>> release.tolist()  # at epsilon = 20, about one answer in 250 million is false
[0, 1, 2]
>>> mechanism.log_likelihood(release, prior).argmax(-1).tolist()
[0, 1, 2]
"""

from __future__ import annotations

from dpsd.privacy.mechanisms.base import Channel, Mechanism
from dpsd.privacy.mechanisms.gaussian import Gaussian, GaussianNoise
from dpsd.privacy.mechanisms.response import RandomizedResponse
from dpsd.privacy.mechanisms.shares import SharedNoiseVotes
from dpsd.privacy.mechanisms.sums import (
    ConfidentVotes,
    NoisySum,
    NoisyVotes,
    SummedGradients,
)
from dpsd.privacy.parameters import Scaling

__all__ = [
    "Channel",
    "ConfidentVotes",
    "Gaussian",
    "GaussianNoise",
    "Mechanism",
    "NoisySum",
    "NoisyVotes",
    "RandomizedResponse",
    "Scaling",
    "SharedNoiseVotes",
    "SummedGradients",
]
