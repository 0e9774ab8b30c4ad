"""Agreement of student and teacher in words: what it is about, and what it does not tell.

>>> shown({"mean": 0.912, "standard_error": 0.008}), shown(None)
('91.2% ± 0.8%', '-')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpsd.distillation.quality import TELLING
from dpsd.runs.directory import RunDirectory

#: What the agreement of each round is about.
ON_QUERIES = (
    "agreement: with the teacher on this round's synthetic queries, before learning from them; "
    "estimated from the releases alone"
)

#: What is said of a run without a probe.
WITHOUT_PROBE = (
    "No number here says how the student does on real images, which may be far worse. To know it, "
    "transcribe with public images: --probe or --public (probe= or public= in Python)"
)

#: What is said of the agreement of a federation.
OF_A_PANEL = (
    "agreement is not known in a federation, as what clients confuse is estimated and not given",
    "No number here says how the student does on real images, which may be far worse",
)


def on_probe(probe: Mapping[str, Any]) -> str:
    """Say what the agreement on a probe is about, by a round's metrics of it."""
    about = (
        f"on the probe: with the teacher on {probe['images']:,} public images, after the round; "
        "nothing is trained on them"
    )
    constant = by_constant(probe)
    return f"{about}. constant: {constant}" if constant else about


def by_constant(probe: Mapping[str, Any], *, names: Sequence[str] = ()) -> str:
    """Say how often a classifier that knows one class would agree with the teacher on a probe.

    The result is empty for a run of an earlier version, which did not estimate it.

    >>> by_constant({"constant": {"mean": 0.957, "standard_error": 0.021}, "constant_class": 1})
    "always saying class 1, the teacher's most frequent, agrees on 95.7% ± 2.1%"
    """
    if not probe.get("constant"):
        return ""
    number = probe["constant_class"]
    name = f"{names[number]!r}" if names else f"class {number}"
    return (
        f"always saying {name}, the teacher's most frequent, agrees on {shown(probe['constant'])}"
    )


def shown(agreement: Mapping[str, float] | None, *, within: bool = False) -> str:
    """Return an agreement with its standard error, or ``"unknown"`` if that says nothing.

    Args:
        agreement: the ``mean`` and the ``standard_error``; ``None`` if there is no estimate.
        within: whether an estimate outside 0 to 100 % is shown as the nearer of the two.

    >>> shown({"mean": 1.02, "standard_error": 0.03}, within=True)
    '100.0% ± 3.0%'
    >>> shown({"mean": -1e-9, "standard_error": 0.2})
    '0.0% ± 20.0%'
    """
    if not agreement:
        return "-"
    if agreement["standard_error"] > TELLING:
        return "unknown"
    mean = min(1.0, max(0.0, agreement["mean"])) if within else agreement["mean"]
    return f"{mean:z.1%} ± {agreement['standard_error']:.1%}"


def final_probe(run: RunDirectory) -> dict[str, Any] | None:
    """Return how the student of a finished run does on the probe, as words and figures.

    The result is ``None`` if the run has no probe or is not finished. Otherwise it has the
    ``sentence`` that states it, and the rows of a table by ``classes``, which is empty where there
    are very many of them: ``name``, ``share`` among the teacher's answers, and ``recall``.
    """
    ending, metrics = run.ledger.ending(), run.metrics()
    if "chosen_round" not in ending or not metrics or "final_probe" not in metrics[-1]:
        return None
    found, chosen, last = metrics[-1]["final_probe"], ending["chosen_round"], metrics[-1]["round"]
    sentence = (
        f"On the probe of {found['images']:,} public images, student and teacher agree on "
        f"{shown(found['agreement'])} (estimated from privatised answers, ± one standard error). "
        "Nothing was trained on these images"
    )
    names = run.class_names() or ()
    decided = []
    if chosen != last:
        decided.append(f"chose the student of round {chosen} of {last}")
    if "rounds" in ending:
        decided.append("decided when to stop asking")
    if decided:
        sentence += f", but they {' and '.join(decided)}"
    if constant := by_constant(found, names=names):
        sentence += f". For comparison, {constant}"
    return {
        "sentence": f"{sentence}.",
        "classes": _classes(
            names or tuple(map(str, range(len(found["class_shares"])))),
            found["class_shares"],
            found["recall"],
        ),
    }


def left_out(run: RunDirectory) -> dict[str, Any] | None:
    """Return how students did on sources that they were not taught on, as words and figures.

    The result is ``None`` if the run left no source out or is not finished. Otherwise it has the
    ``sentence`` that states the mean, and the rows of a table by ``sources``: ``name`` and
    ``agreement``.
    """
    metrics = run.metrics()
    if not metrics or "left_out" not in metrics[-1]:
        return None
    found = metrics[-1]["left_out"]
    return {
        "sentence": (
            "Students that were taught on all public sources but one agree with the teacher on "
            f"{shown(found['agreement'])} of the images of the one left out (mean over the "
            "sources; estimated from privatised answers, ± one standard error). This is about "
            "images unlike those that a student was taught on, but not about real ones. Some "
            "sources are easier than others, so compare runs by a source that both left out."
        ),
        "sources": [
            {"name": name, "agreement": shown(agreement)}
            for name, agreement in found["sources"].items()
        ],
    }


def _classes(
    names: Sequence[str],
    shares: Sequence[float],
    recall: Sequence[Mapping[str, float] | None],
) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "share": f"{min(1.0, max(0.0, share)):.1%}",
            "recall": shown(found, within=True),
        }
        for name, share, found in zip(names, shares, recall, strict=bool(shares))
    ]
