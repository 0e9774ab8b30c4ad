"""How a run's settings state a teacher that was an object in Python, which has no place.

It is stated in brackets, which no place has, so that nothing takes the words for a path.

>>> stated("module Sequential"), is_in_memory("(module Sequential)"), is_in_memory("teachers/one")
('(module Sequential)', True, False)
"""

from __future__ import annotations

from dpsd.errors import TeacherError


def stated(description: str) -> str:
    """Return what settings state in place of a teacher's location.

    Args:
        description: the description of the teacher.
    """
    return f"({description})"


def is_in_memory(location: object) -> bool:
    """Return whether settings state an object in place of a location."""
    text = str(location)
    return text.startswith("(") and text.endswith(")")


def refuse_in_memory(location: object) -> None:
    """Refuse to look for an object of another process at a place.

    Raises:
        TeacherError: the location stands for an object.

    >>> refuse_in_memory("(module Sequential)")
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: the run's teacher (module Sequential) was given as an object in ...
    """
    if is_in_memory(location):
        raise TeacherError(
            f"the run's teacher {location} was given as an object in Python, which no command can "
            "load: go on in Python, or give the place of a file or directory with the same teacher"
        )
