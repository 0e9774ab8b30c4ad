"""A student that begins with what public images taught, and trains all of it.

``--features`` keeps public features as they are and trains a linear layer on them. A student that
begins with a network of public images and changes it learns more. Any factory may return one, of
torchvision's or Hugging Face's too; what it begins with must be public, as no ε covers it. This one
begins with a network that ``dpsd train-teacher`` trained on public images, of any classes::

    dpsd train-teacher --data cifar100 --model wrn16-1 --out public-start
    PYTHONPATH=examples dpsd transcribe teacher --student public_start:student --public cifar100 …

``PUBLIC_START`` names another folder. Later commands on the run call the factory again, so keep
both.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from dpsd.images.names import Shape
from dpsd.models import build_classifier
from dpsd.teachers import read_record
from dpsd.teachers.directory import WEIGHTS_FILE
from dpsd.teachers.weights import read_weights


def student(*, input_shape: Shape, num_classes: int) -> nn.Module:
    """Return a network of the same architecture with the same weights but for a new last layer.

    Args:
        input_shape: the channels, height and width of an image, as those of the public images.
        num_classes: the number of classes, which may be another.
    """
    start = Path(os.environ.get("PUBLIC_START", "public-start"))
    model = read_record(start).model
    network = build_classifier(model, input_shape=input_shape, num_classes=num_classes)
    own = network.state_dict()
    last = list(own)[-2:]  # the weight and the bias of the last layer, in all of dpsd's networks
    network.load_state_dict(read_weights(start / WEIGHTS_FILE) | {name: own[name] for name in last})
    return network
