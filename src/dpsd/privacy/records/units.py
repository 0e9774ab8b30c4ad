"""The unit that an ensemble's ε protects, and the conditions of the promise, in words.

The rule that decided which teacher a record trained also decides whom `teacher` adjacency protects:
a record in its place, or a person with all of their records.

>>> unit("person"), level("name")
('a person: all of their training records', 'record-level')
"""

from __future__ import annotations

_LIMITS = (
    "Epsilon under `teacher` is {level} differential privacy, as DP-SGD gives, if all of this "
    "holds: {whole} in the data of one teacher only ({disjoint}); each teacher was trained on its "
    "own data alone, independently of the others; and the assignment of records to teachers, the "
    "shape of images, the classes, the architecture and all hyperparameters were chosen without "
    "looking at the data. Neighbouring data sets {neighbours}. It covers what the mechanism "
    "released and all that was made of it: the student, the generator, the pictures and figures. "
    "It does not cover the teachers, which stay as private as their data, nor the fact that a run "
    "stopped because one of them failed to answer."
)

_CHECKED = (
    "checked only so far: the hashes of records that are stored with the teachers differ between "
    "their shards; that the teachers were trained on those records is the word of whoever trained "
    "them, as nothing ties the hashes to the weights"
)

_GROUPS = "g epsilon and a delta (e^(g epsilon) - 1) / (e^epsilon - 1) times as large"
_ONE_RECORD = (
    "differ in one record, replaced by another in the same place ({place}), and hold no record "
    "twice: a person who has several records is covered for each, and for all g of them, as for "
    f"any change that reaches g teachers, only at {_GROUPS}"
)
#: What two neighbouring data sets differ in, by the rule that assigned records to teachers.
_NEIGHBOURS = {
    None: _ONE_RECORD.format(place="the same position"),
    "position": _ONE_RECORD.format(place="the same position"),
    "name": _ONE_RECORD.format(
        place="under the same file name, in the same class; under another it counts as two"
    ),
    "person": (
        "differ in all the records of one person, replaced by any others under the same "
        "identifier, and no two persons have the same record: g persons, as any change that "
        f"reaches g teachers, are covered only at {_GROUPS}"
    ),
}


def unit(dealt_by: str | None) -> str:
    """Return whom or what `teacher` adjacency protects under a rule of assignment."""
    is_person = dealt_by == "person"
    return "a person: all of their training records" if is_person else "a training record"


def level(dealt_by: str | None) -> str:
    """Return the unit of protection under a rule of assignment, as an adjective."""
    return "person-level" if dealt_by == "person" else "record-level"


def ensemble_limits(*, is_disjoint: bool, dealt_by: str | None) -> str:
    """Return what an ensemble's certificate does not promise, and what its promise rests on.

    Args:
        is_disjoint: whether shards are on record with hashes that were checked to differ.
        dealt_by: what decided which teacher a record trained; ``None`` if that is not on record.
    """
    return _LIMITS.format(
        level=level(dealt_by),
        whole="all records of a person were" if dealt_by == "person" else "every record was",
        disjoint=_CHECKED if is_disjoint else "not checked",
        neighbours=_NEIGHBOURS[dealt_by],
    )


def checked_deal(dealt_by: object) -> str | None:
    """Validate the rule of assignment in a ledger, which ledgers of earlier versions lack.

    Raises:
        ValueError: records cannot be assigned by it.
    """
    if dealt_by is not None and dealt_by not in _NEIGHBOURS:
        raise ValueError(f"dealt_by is {dealt_by!r}")
    return None if dealt_by is None else str(dealt_by)
