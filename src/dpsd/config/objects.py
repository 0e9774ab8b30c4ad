"""What a run was given as objects in Python, which its settings describe but cannot name.

No command can make such a run again or continue it, as no command can be given an object.

>>> from dpsd.config.transcription import TranscriptionConfig
>>> config = TranscriptionConfig(teacher="(module Sequential)", epsilon=1.0, public=IN_MEMORY)
>>> given_as_objects(config)
('teacher', 'public')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpsd.teachers.in_memory import is_in_memory

if TYPE_CHECKING:
    from dpsd.config.transcription import TranscriptionConfig

#: Stands in a run's settings for images that were given as a tensor.
IN_MEMORY = "(tensor)"

#: What stands there before the name of a module's class, for a model that was given as a module.
MODULE = "module:"


def given_as_objects(config: TranscriptionConfig) -> tuple[str, ...]:
    """Return the names of the settings that stand for objects.

    Args:
        config: the configuration of a run that has begun.
    """
    recipe = config.recipe
    models = {"student": config.student, "generator": config.generator}
    images = {"public": recipe.public, "probe": recipe.probe}
    return (
        *(("teacher",) if is_in_memory(config.teacher.teacher) else ()),
        *(name for name, model in models.items() if model.startswith(MODULE)),
        *(name for name, given in images.items() if given == IN_MEMORY),
    )
