"""Which features a run's student is linear on.

>>> import dpsd
>>> teacher = dpsd.load_teacher(lambda images: images.flatten(1)[:, :2], input_shape=(1, 8, 8))
>>> settled("glyphs", student="cnn", teacher=teacher)
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: features 'glyphs' are for the model 'scattering', which is linear ...
"""

from __future__ import annotations

from torch import nn

from dpsd.models.names import BACKBONES, CLOSED_FORM, WAVELETS, check_features
from dpsd.synthesis.sources import Started, unseen
from dpsd.teachers import Teacher
from dpsd.teachers.backbones import Backbone
from dpsd.training.pretraining import find_backbone


def settled(
    features: str | Backbone | None,
    *,
    student: str | nn.Module,
    teacher: Teacher,
    started: Started = unseen,
) -> Backbone | None:
    """Return the backbone of a student; ``None`` if it is linear on wavelets, or learns features.

    Args:
        features: the name of features, or a backbone; if ``None``, a student that is linear on
            fixed features gets the teacher's own, if the teacher has any.
        student: the name of a model, ``package.module:factory``, or a module.
        teacher: the teacher.
        started: begins to report the training of one of dpsd's own backbones.

    Raises:
        ConfigError: features are given for a student that has its own.
        DpsdError: as for :func:`.find_backbone`.
    """
    if student != CLOSED_FORM:
        if features not in (None, WAVELETS):
            name = features if isinstance(features, str) else features.name
            check_features(name, model=student if isinstance(student, str) else "a module")
        return None
    if features is None:
        return teacher.features
    if isinstance(features, Backbone):
        return features
    # Two files or functions of one name may be different features, unlike two of dpsd's own.
    own = teacher.features if features in BACKBONES else None
    if own is not None and features == own.name:
        return own
    return find_backbone(features, input_shape=teacher.input_shape, started=started)
