"""``report.html``: one run, or several side by side, on one page in a self-contained file.

The report that every run writes shows releases and public choices alone, so it may be published
with the student. The owner of the data may add what they measured on private data: evaluations,
and the findings of attacks. Such a page says at its top whom it is for.

A page fetches nothing, opens from a disk, and stays below :data:`MOST_BYTES`. For that, pictures
are scaled down, fewer rounds of each run show theirs, and in the end there may be too many runs.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpsd.errors import ConfigError, Setting
from dpsd.privacy.records.certificate import Certificate
from dpsd.reporting.comparing import about_rounds, compared, comparison, limits, settings
from dpsd.reporting.curves import epsilon_figure, progress_figure
from dpsd.reporting.figures import Figure
from dpsd.reporting.html import part, template
from dpsd.reporting.inlining import inlined_first
from dpsd.reporting.sections import (
    REPORT_FILE,
    ROUND_HEADINGS,
    SPENT_HEADINGS,
    Subject,
    is_repeatable,
)
from dpsd.runs.directory import RunDirectory
from dpsd.storage.files import write_text

#: The most bytes of a page, and the part of them that is left to spare.
MOST_BYTES, _SPARE = 3_000_000, 50_000
#: The most rounds of a run whose images are shown, fewer if pictures would become too small.
_MOST_ROUNDS = (30, 10, 3, 1)
#: The fewest bytes of a picture, on average, that are not too small.
_LEAST_PICTURE = 10_000


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report on one or several runs.

    Args:
        subjects: the runs with what was measured of them, in the order in which they are shown.
        commands: the commands that are needed besides those of each run to make the page again.
        is_public: whether the page is to be published, so that it suggests no private measurements.
    """

    subjects: Sequence[Subject]
    commands: Sequence[str] = ()
    is_public: bool = False
    figures: Mapping[str, Figure] = field(init=False)

    def __post_init__(self) -> None:
        named = {subject.name: subject for subject in self.subjects}
        found = [
            progress_figure(
                {name: subject.metrics for name, subject in named.items()},
                is_one_loss=len({subject.loss for subject in self.subjects}) == 1,
            ),
            epsilon_figure({name: subject.certificate for name, subject in named.items()}),
            *(figure for subject in self.subjects for figure in subject.confusions()),
        ]
        object.__setattr__(self, "figures", {one.name: one for one in found if one is not None})

    def html(self) -> str:
        """Return the page.

        Raises:
            ConfigError: several runs do not fit, even with one picture each. The page of a single
                run always does, or is as long as its text.
        """
        for most in _MOST_ROUNDS:
            left = self._left(most)
            files = [paths for subject in self.subjects for paths in subject.pictures(most)]
            if left >= _LEAST_PICTURE * len(files):
                break
        if left < 0 and len(self.subjects) > 1:
            raise ConfigError(
                Setting("runs"),
                f" are {len(self.subjects)}, which do not fit on a page of {MOST_BYTES:,} bytes: "
                f"give at most the first {self._fitting()} of them",
            )
        return self._page(_shared(files, most=left), most)

    def _left(self, most: int) -> int:
        """The bytes that are left for the files of pictures, which may be below 0."""
        bare = len(self._page({}, most).encode())
        return (MOST_BYTES - _SPARE - bare) * 3 // 4  # base64 takes a third more

    def _fitting(self) -> int:
        """The number of runs, from the first, that fit, if all do not."""

        def is_too_long(count: int) -> bool:
            # Figures are drawn anew, as those of fewer runs are smaller.
            fewer = replace(self, subjects=self.subjects[:count])
            return fewer._left(_MOST_ROUNDS[-1]) < 0

        return max(1, bisect_left(range(1, len(self.subjects)), True, key=is_too_long))

    def save_figures(self, folder: Path) -> list[Path]:
        """Write the figures as SVG and PNG, and return the paths of the files.

        Raises:
            RunError: the folder cannot be created, or the disk is full.
        """
        return [path for figure in self.figures.values() for path in figure.save(folder)]

    def _page(self, pictures: Mapping[Path, str], most_rounds: int) -> str:
        script = part("report.js.j2")
        return template("report.html.j2").render(
            runs=self.subjects,
            are_many=len(self.subjects) > 1,
            is_public=self.is_public,
            is_private=any(subject.is_private for subject in self.subjects),
            has_further=any(
                one.further and not one.asked and is_repeatable(one, subject.run)
                for subject in self.subjects
                for one in subject.findings
            ),
            figures=self.figures,
            comparison=comparison(self.subjects),
            compared=compared(self.subjects),
            settings=settings(self.subjects),
            about_rounds=about_rounds(self.subjects),
            limits=limits(self.subjects),
            round_headings=ROUND_HEADINGS,
            spent_headings=SPENT_HEADINGS,
            commands=[line for subject in self.subjects for line in subject.commands]
            + list(self.commands),
            pictures=pictures,
            most_rounds=most_rounds,
            style=part("report.css.j2"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )


def write_report(run: RunDirectory, certificate: Certificate) -> None:
    """Write the report of a run, which may be published, into its directory.

    Raises:
        RunError: the disk is full, or the directory cannot be written to.
    """
    # What its owner calls the directory is nobody's business.
    report = Report(
        subjects=[Subject(run=run, certificate=certificate, name="RUN")], is_public=True
    )
    write_text(run.path / REPORT_FILE, report.html())


def _shared(files: Sequence[Sequence[Path]], *, most: int) -> dict[Path, str]:
    """Return the addresses of pictures by their first files; together they fit.

    What small pictures leave of their parts goes to larger ones.
    """
    found, left = dict[Path, str](), most
    ordered = sorted(files, key=lambda paths: min(path.stat().st_size for path in paths))
    for number, paths in enumerate(ordered):
        share = left // (len(ordered) - number)
        found[paths[0]] = inlined_first(list(paths), most=share)
        left -= len(found[paths[0]]) * 3 // 4
    return found
