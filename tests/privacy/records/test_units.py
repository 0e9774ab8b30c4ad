"""Whom a certificate of many teachers says its ε is about, and how much of it was checked."""

from __future__ import annotations

import pytest

from dpsd.privacy.records.units import checked_deal, ensemble_limits, level, unit


@pytest.mark.parametrize(
    ("dealt_by", "words"),
    [
        (None, "differ in one record, replaced by another in the same place (the same position)"),
        ("position", "in the same place (the same position)"),
        ("name", "under the same file name, in the same class; under another it counts as two"),
        (
            "person",
            "differ in all the records of one person, replaced by any others under the same",
        ),
    ],
)
def test_neighbours_are_those_of_the_deal(dealt_by: str | None, words: str) -> None:
    is_person = dealt_by == "person"
    limits = ensemble_limits(is_disjoint=True, dealt_by=dealt_by)
    assert words in limits
    assert ("person-level" in limits, "record-level" in limits) == (is_person, not is_person)
    assert level(dealt_by) in limits
    assert unit(dealt_by).startswith("a person" if is_person else "a training record")


def test_no_more_is_claimed_than_is_checked() -> None:
    checked = ensemble_limits(is_disjoint=True, dealt_by="position")
    for words in (
        "hashes of records that are stored with the teachers differ between their shards",
        "the word of whoever trained them, as nothing ties the hashes to the weights",
    ):
        assert words in checked
    assert "(not checked)" in ensemble_limits(is_disjoint=False, dealt_by=None)


def test_ledgers_say_what_can_be_dealt_by_or_nothing() -> None:
    assert checked_deal(None) is None
    assert checked_deal("name") == "name"
    for forged in ("colour", 7, ""):
        with pytest.raises(ValueError, match="dealt_by"):
            checked_deal(forged)
