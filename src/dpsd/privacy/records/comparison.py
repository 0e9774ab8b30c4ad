"""Comparing a stored certificate with what its ledger says."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

from dpsd.privacy.records.certificate import VERSION, Certificate
from dpsd.privacy.targets import Adjacency

#: Facts that the first version did not state, and the values that they then have.
_STATED_SINCE_2 = {"dealt_by": None, "distinct_images": False}
#: Facts that versions before the third did not state, and that do not affect what was spent.
_STATED_SINCE_3 = ("run", "started", "latest")


def difference(own: Certificate, stored: str) -> str | None:
    """Return the first difference of a stored certificate from ``own``; ``None`` if there is none.

    In a certificate of this version, every line is compared. One of another version may have other
    words, so only facts are compared: the fields of :class:`Certificate`, and the ε and adjacency
    of the headline, where ε may be lower now than it was stated. Numbers may differ in the last
    digits, as they do between machines.
    """
    try:
        theirs = json.loads(stored)
        version = theirs["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = VERSION  # the file is damaged, and the first different line says where
    if version == VERSION:
        return _different_line(own, stored)
    if version not in range(1, VERSION):
        return f"version: says {version!r}, and this dpsd knows 1 to {VERSION}"
    return _different_fact(own, theirs)


def _different_line(certificate: Certificate, stored: str) -> str | None:
    own = certificate.to_json().splitlines()
    theirs = stored.splitlines()
    for number, (line, other) in enumerate(zip_longest(own, theirs), start=1):
        if line is None or other is None or not _says_the_same(line, other):
            return f"line {number}: says {_shown(other)}, but the ledger says {_shown(line)}"
    return None


def _different_fact(certificate: Certificate, stored: dict[str, Any]) -> str | None:
    own = json.loads(certificate.to_json())
    theirs = {**_STATED_SINCE_2, **{name: own[name] for name in _STATED_SINCE_3}, **stored}
    if strange := sorted(theirs.keys() - own.keys()):
        return f"{strange[0]}: certificates have no such field"
    if "warning" in own and theirs.get("warning") != own["warning"]:
        return _contradiction("warning", own["warning"], theirs.get("warning"))
    own["delta"], theirs["delta"] = certificate.spent.delta, _spent(stored, "delta")
    for kind in Adjacency:
        # Earlier versions had looser bounds, so they may state more, but never less.
        found, said = certificate.spent.under(kind), _spent(stored, kind.value)
        if not (isinstance(said, int | float) and found <= said * (1 + 1e-6)):
            return _contradiction(f"spent.{kind.value}", found, said)
    # The ε of the headline must be the one that the certificate itself states.
    stating = replace(
        certificate.spent, **{kind.value: _spent(stored, kind.value) for kind in Adjacency}
    )
    own["headline"] = replace(certificate, spent=stating).headline
    for texts in (own, theirs):
        texts["headline"] = str(texts.get("headline")).partition(":")[0]
    facts = ("delta", "headline", *(name for name in asdict(certificate) if name != "spent"))
    differences = (_first_difference(own.get(name), theirs.get(name), name) for name in facts)
    return next((found for found in differences if found is not None), None)


def _says_the_same(line: str, other: str) -> bool:
    name, _, value = line.strip().rstrip(",").rpartition(": ")
    other_name, _, other_value = other.strip().rstrip(",").rpartition(": ")
    try:
        return name == other_name and math.isclose(float(value), float(other_value), rel_tol=1e-9)
    except ValueError:
        return line == other


def _first_difference(own: Any, theirs: Any, name: str) -> str | None:
    """Return where two JSON values differ first, and how; ``None`` if they do not differ."""
    if isinstance(own, dict) and isinstance(theirs, dict):
        parts = (
            _first_difference(own.get(key), theirs.get(key), f"{name}.{key}")
            for key in (*own, *(key for key in theirs if key not in own))
        )
        return next((part for part in parts if part is not None), None)
    if type(own) is type(theirs) and own == theirs:
        return None
    if all(type(value) in (int, float) for value in (own, theirs)):
        with suppress(OverflowError):  # a whole number too large for a double
            if math.isclose(own, theirs, rel_tol=1e-9):
                return None
    return _contradiction(name, own, theirs)


def _spent(stored: dict[str, Any], name: str) -> Any:
    """Return a value under ``spent`` in a stored certificate, if there is one."""
    spent = stored.get("spent")
    return spent.get(name) if isinstance(spent, dict) else None


def _contradiction(name: str, own: object, theirs: object) -> str:
    said, computed = (json.dumps(value, ensure_ascii=False)[:200] for value in (theirs, own))
    return f"{name}: says {said}, but the ledger says {computed}"


def _shown(line: str | None) -> str:
    return "nothing" if line is None else line.strip().rstrip(",")[:200]
