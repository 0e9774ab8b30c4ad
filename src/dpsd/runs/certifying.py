"""Certifying a run: its files are checked against its ledger, then its spending is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpsd.config.recipe import Recipe
from dpsd.distillation.releases import RoundReleases, check_asked_once
from dpsd.errors import RunError
from dpsd.privacy.records.certificate import Certificate, certify
from dpsd.runs.folder import RunFolder
from dpsd.storage.files import file_hash
from dpsd.synthesis.distinct import AskedImages


def certify_run(run: RunFolder) -> Certificate:
    """Compute a run's certificate from its records, after checking that they are complete.

    Raises:
        RunError: the ledger, the releases and the models do not belong together.
    """
    _check_against_ledger(run)
    _check_opening(run)
    finished = run.ledger.entries()[-1]["student"] if run.is_finished() else ""
    return certify(run.ledger, student=finished)


def _check_opening(run: RunFolder) -> None:
    """Check the ledger's opening against the run's settings, and its costs against mechanisms."""
    opening, config, facts = run.ledger.opening(), run.config(), run.facts()
    # Earlier versions did not record distinct images, as their runs asked some images again.
    distinct = [part.get("distinct_images", False) for part in (opening, facts)]
    for name, said, settings in (
        ("target", opening["target"], config.privacy.budget().to_dict()),
        ("rounds", opening["rounds"], config.recipe.rounds),
        ("sources", opening["sources"], _sources(config.recipe, opening["sources"])),
        ("run", opening.get("run"), facts["run"]),
        ("members", opening.get("members"), facts.get("members")),
        ("disjoint_data", opening.get("disjoint_data"), facts.get("disjoint_data")),
        ("dealt_by", opening.get("dealt_by"), facts.get("dealt_by")),
        ("class_names", opening.get("class_names"), facts.get("class_names")),
        ("teacher", opening.get("teacher"), facts.get("teacher")),
        ("features", opening.get("features"), facts.get("features")),
        ("distinct_images", *distinct),
    ):
        if said != settings:
            raise RunError(
                f"{run.ledger.line(1)}: says that {name} is {said!r}, and the run's settings say "
                f"that it is {settings!r}"
            )
    for number, entry in enumerate(run.ledger.entries(), start=1):
        if entry["entry"] == "reserve" and entry["teacher"] != opening.get("teacher"):
            raise RunError(f"{run.ledger.line(number)}: names a teacher that is not the run's")
    mechanism = config.privacy.mechanism(members=int(facts["members"]))
    if int(facts["members"]) > 1:
        mechanism = mechanism.for_members(int(facts["members"]))
    first = run.ledger.reservations()[:1]
    try:
        made = mechanism.with_level(first[0]["mechanism"]) if first else None
    except (KeyError, ValueError):
        made = None
    # Settings cannot rebuild a mechanism of the user's own: its cost is what its author says.
    if made is not None and made.parameters() == first[0]["mechanism"]:
        spending = run.ledger.spending()
        if (made.event(), made.mean_event()) != (spending.event, spending.mean_event):
            raise RunError(
                f"ledger {run.ledger.path}: records a cost that differs from its mechanism's"
            )


def _sources(recipe: Recipe, said: object) -> list[str]:
    """Return the sources as a ledger has to state them; earlier versions stated whole paths."""
    full = [*recipe.asked_sources, *recipe.stated_images]
    return full if said == full else recipe.stated_sources


def _check_against_ledger(run: RunFolder) -> None:
    reserved: dict[int, int] = {}
    committed: set[int] = set()
    rounds = 0
    entries = run.ledger.entries()
    is_distinct = bool(entries) and entries[0].get("distinct_images") is True
    asked = AskedImages() if is_distinct else None
    for number, entry in enumerate(entries, start=1):
        where = f"ledger {run.ledger.path}, line {number}"
        if entry["entry"] == "reserve":
            reserved[entry["round"]] = entry["answers"]
        elif entry["entry"] == "commit":
            _check_releases(run, entry, reserved, asked, where=where)
            committed.add(entry["round"])
        elif entry["entry"] == "open":
            rounds = entry["rounds"]
        else:
            asked_for = _rounds_asked(entry, rounds, until=run.recipe.until, where=where)
            # Checked one by one, as a forged ledger may claim a trillion rounds.
            missing = next((i for i in range(1, asked_for + 1) if i not in committed), None)
            if missing is not None:
                raise RunError(f"{where}: finished, but round {missing} was never committed")
    for path in sorted((run.path / "releases").glob("*.safetensors")):
        if path not in map(run.releases_path, committed):
            raise RunError(f"{path} is not recorded in any line of ledger {run.ledger.path}")
    for model in ("student", "generator"):
        check_model(run, model)


def _rounds_asked(entry: Mapping[str, Any], rounds: int, *, until: float | None, where: str) -> int:
    """The number of rounds of a finished run, which are fewer than planned if it stopped early."""
    asked = entry.get("rounds", rounds)
    if asked != rounds and (until is None or type(asked) is not int or not 1 <= asked < rounds):
        raise RunError(f"{where}: finished after {asked!r} rounds, but the run has {rounds}")
    return int(asked)


def check_model(run: RunFolder, model: str) -> None:
    """Refuse a model other than the one that a finished run's ledger names."""
    if not run.is_finished():
        return
    path, entries = run.path / f"{model}.safetensors", run.ledger.entries()
    if not path.exists() or file_hash(path) != entries[-1][model]:
        raise RunError(
            f"{path} is not the {model} that the run's ledger names (line {len(entries)}): "
            "it was changed, replaced or lost"
        )


def _check_releases(
    run: RunFolder,
    entry: Mapping[str, Any],
    reserved: Mapping[int, int],
    asked: AskedImages | None,
    *,
    where: str,
) -> None:
    """Check a round's file against the ledger; ``asked`` holds the images of earlier rounds."""
    path = run.releases_path(entry["round"])
    if not path.exists() or file_hash(path) != entry["sha256"]:
        raise RunError(f"{where}: {path} is not what was committed; it was changed or lost")
    releases = RoundReleases.load(path, index=entry["round"])
    answers = reserved.get(entry["round"], 0)
    if len(releases) + len(releases.probe or ()) > answers:
        raise RunError(f"{where}: {path} holds more releases than were reserved")
    if asked is not None:
        check_asked_once(releases, asked, answers=answers)
