"""What a report shows of a run, section by section, as words and rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.statement import Statement
from dpsd.reporting.agreement import ON_QUERIES, WITHOUT_PROBE, final_probe, left_out, shown
from dpsd.reporting.curves import confusion_figure
from dpsd.reporting.evaluations import chosen_on, where, with_interval
from dpsd.reporting.figures import Figure, in_file_name
from dpsd.reporting.inlining import attack_pictures, round_pictures
from dpsd.reporting.memory import MEMORY, peak
from dpsd.reporting.telling import Said, confusion, largest, mechanism_of, said_of_generator
from dpsd.reporting.verdict import Point, is_measured, verdict
from dpsd.runs.directory import RunDirectory
from dpsd.runs.findings import Findings, Picture
from dpsd.shell import command_line

Rows = list[tuple[str, ...]]

#: The name of the page that every run writes.
REPORT_FILE = "report.html"
#: The lines of a certificate that a page states in its own way.
_TIMED = {"Date", "Run"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run in a report.

    Args:
        run: the run.
        certificate: its certificate.
        name: the name by which the page calls it; that of its directory by default.
        place: what commands on the page call its directory; ``name`` by default.
        number: its number among the page's runs, from 1.
        evaluations: what ``dpsd evaluate --json`` wrote about its student.
        findings: what attacks on it found.
    """

    run: RunDirectory
    certificate: Certificate
    name: str = ""
    place: str = ""
    number: int = 1
    evaluations: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Findings] = ()

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.run.name)
        if not self.place:
            object.__setattr__(self, "place", self.name)

    @property
    def is_private(self) -> bool:
        """Whether the page shows something that was measured on private data."""
        return bool(self.evaluations or self.findings)

    @property
    def is_measured(self) -> bool:
        """Whether the page says how the student does on real images."""
        return is_measured(self.evaluations, self.findings)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of the rounds."""
        return self.run.metrics()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The facts about the student."""
        return self.run.facts()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; their numbers if they have none."""
        return self.run.class_names() or tuple(map(str, range(self.facts["num_classes"])))

    @property
    def statement(self) -> Statement:
        """The certificate in words."""
        return Statement(certificate=self.certificate)

    @property
    def basis(self) -> list[Point]:
        """Which run this is, and what its promise rests on.

        When the run ended, and the ledger's hash of its times, are for the certificate alone: the
        page tells no other time than whole seconds of whole rounds.
        """
        stated = self.certificate
        names = [("Run", f"`{stated.run}`, begun {stated.started}")]
        names += [(what, text) for what, text in self.statement.subjects if what not in _TIMED]
        return names + [(what, text) for what, text in self.statement.basis if what != "Ledger"]

    @cached_property
    def verdict(self) -> list[Point]:
        """The verdict in plain words."""
        return verdict(
            self.run, self.certificate, evaluations=self.evaluations, findings=self.findings
        )

    @property
    def loss(self) -> tuple[object, ...]:
        """What determines which loss the student's is, so that equal ones can be compared."""
        mechanism = self.certificate.mechanism
        return (self.run.recipe.objective, *sorted(map(str, mechanism.items())))

    @property
    def about_rounds(self) -> list[str]:
        """What the agreement of the rounds is about, in sentences."""
        stated = [
            f"{ON_QUERIES[0].upper()}{ON_QUERIES[1:]}. It is unbiased, so it may fall outside"
        ]
        stated[0] += " 0 to 100 %."
        if any("probe" in line for line in self.metrics):
            return [
                *stated,
                "Agreement on the probe is with the teacher on public images that nothing is "
                "trained on, after the round. Constant is the agreement of always saying the "
                "teacher's most frequent class: a student that is not above it shows no skill.",
            ]
        return stated if self.is_measured else [*stated, f"{WITHOUT_PROBE}."]

    @property
    def rounds(self) -> Rows:
        """A row for each round, in the order of :data:`ROUND_HEADINGS`."""
        return [
            (
                str(line["round"]),
                f"{line['queries']:,}",
                f"{line['student_loss']:.4f}",
                shown(line["agreement"]),
                shown(line.get("probe", {}).get("agreement")),
                shown(line.get("probe", {}).get("constant")),
                f"{max(line['label_shares']):.0%}",
                ", ".join(f"{name} {count:,}" for name, count in line["sources"].items()),
                f"{line['seconds']:,}",
            )
            for line in self.metrics
        ]

    @cached_property
    def probe(self) -> dict[str, Any] | None:
        """How the student does on the probe."""
        return final_probe(self.run)

    @cached_property
    def left_out(self) -> dict[str, Any] | None:
        """How students do on sources that they were not taught on."""
        return left_out(self.run)

    @property
    def probe_rows(self) -> Rows:
        """A row for each class of the probe."""
        return [tuple(row.values()) for row in (self.probe or {}).get("classes", ())]

    @property
    def left_out_rows(self) -> Rows:
        """A row for each source that was left out."""
        return [tuple(row.values()) for row in (self.left_out or {}).get("sources", ())]

    @property
    def evaluated(self) -> list[dict[str, Any]]:
        """The evaluations: ``where`` and ``choice`` in words, the ``overall`` row, ``classes``."""
        return [
            {
                "where": where(found),
                "choice": chosen_on(found),
                "overall": [_accuracies("all", found["images"], found)],
                "classes": [
                    _accuracies(one["name"], one["images"], one) for one in found.get("classes", ())
                ],
            }
            for found in self.evaluations
        ]

    @cached_property
    def _confusions(self) -> list[Figure]:
        measured = self._named([f"{one['data']} {one['split']}" for one in self.evaluations])
        found = [
            confusion_figure(
                f"{self._confusion}-truth-and-student-{name}",
                [_shares(row) for row in stated["confusion"]],
                classes=[one["name"] for one in stated["classes"]],
                rows_are="the true class is",
                title=f"Confusion of true class and student, on {where(stated)}",
                run=self.name,
            )
            for name, stated in zip(measured, self.evaluations, strict=True)
            if stated.get("confusion")
        ]
        if (told := confusion(self.run)) is not None:
            title = f"Confusion of teacher and student, estimated from releases: {told.about}"
            drawn = confusion_figure(
                f"{self._confusion}-teacher-and-student",
                told.shares,
                classes=self.classes,
                rows_are="the teacher says",
                title=f"{title} (standard errors up to {told.standard_error:.0%})",
                run=self.name,
            )
            found.insert(0, drawn)
        return [figure for figure in found if figure is not None]

    @property
    def _confusion(self) -> str:
        """How the names of files about confusion begin, which are unlike those of other runs."""
        return "-".join(filter(None, ("confusion", str(self.number), in_file_name(self.name))))

    @staticmethod
    def _named(texts: Sequence[str]) -> list[str]:
        """Make parts of names of files, of which those that are alike are numbered."""
        names = [in_file_name(text) for text in texts]
        return [
            f"{name}-{before + 1}" if (before := names[:place].count(name)) else name
            for place, name in enumerate(names)
        ]

    def confusions(self) -> list[Figure]:
        """The confusion matrices, by releases and by evaluations."""
        return self._confusions

    @cached_property
    def _said(self) -> dict[int, Said]:
        return said_of_generator(self.run)

    def gallery(self, most: int) -> list[dict[str, Any]]:
        """The generator's images: ``round``, ``path``, the alternative text and what is said.

        Args:
            most: the most rounds whose images are shown, at least 1.
        """
        return [
            {
                "round": number,
                "path": path,
                "alt": f"Images of the generator after round {number}, from the same noise in "
                "every round.",
                "said": self._sentence(number + 1),
            }
            for number, path in round_pictures(self.run, most=most).items()
        ]

    def first_shown(self, gallery: Sequence[Mapping[str, Any]]) -> int:
        """The place in a gallery of the images shown first: the last that were asked about.

        No round follows the last one, so nothing is said of its images.
        """
        asked = [place for place, one in enumerate(gallery) if one["round"] + 1 in self._said]
        return asked[-1] if asked else len(gallery) - 1

    def _sentence(self, asked_in: int) -> str:
        """What is said of the images that the generator made for a round."""
        said = self._said.get(asked_in)
        if said is None:
            return "No later round asked about images of the generator as it was then."
        text = (
            f"Of its images that round {asked_in} asked about, the student said: "
            f"{largest(said.student, self.classes)}"
        )
        if said.teacher is None:
            return f"{text}. The releases are too noisy to tell what the teacher says."
        return f"{text}; the teacher, by releases: {largest(said.teacher, self.classes)}."

    def pictures(self, most: int) -> list[list[Path]]:
        """The files of all pictures, with those of at most so many rounds, by picture."""
        of_attacks = (
            attack_pictures(self.run.path, picture.name)
            for found in self.findings
            for picture in found.pictures
        )
        return [*([one["path"]] for one in self.gallery(most)), *filter(None, of_attacks)]

    def file_of(self, picture: Picture) -> Path | None:
        """The file by which the page knows an attack's picture; ``None`` if it is lost."""
        return next(iter(attack_pictures(self.run.path, picture.name)), None)

    @property
    def seconds(self) -> int:
        """The seconds that the rounds took."""
        return sum(line["seconds"] for line in self.metrics)

    @property
    def spent(self) -> Rows:
        """The seconds and the memory that each part took, in the order of :data:`SPENT_HEADINGS`.

        ``-`` stands for memory that is not on record, as that of runs of earlier versions.
        """
        rounds = [
            (f"round {line['round']}", f"{line['seconds']:,}", peak([line]))
            for line in self.metrics
        ]
        attacks = [(f"attack: {one.kind}", f"{one.seconds:,.0f}", "-") for one in self.findings]
        return [*rounds, ("all rounds", f"{self.seconds:,}", peak(self.metrics)), *attacks]

    @property
    def sizes(self) -> Rows:
        """The megabytes on disk of each part that dpsd wrote and that a run may publish."""
        found = dict[str, int]()
        for path in sorted(self.run.path.rglob("*")):
            if path.is_file():
                part = path.relative_to(self.run.path).parts[0]
                found[part] = found.get(part, 0) + path.stat().st_size
        return [(part, f"{size / 1e6:,.2f}") for part, size in found.items() if part in _PARTS]

    @property
    def evaluation_files(self) -> list[str]:
        """The names by which :attr:`commands` call the files of evaluations."""
        return [f"evaluation-{self.number}-{n}.json" for n in range(1, len(self.evaluations) + 1)]

    @cached_property
    def objects(self) -> tuple[str, ...]:
        """What the run was given as objects in Python, which no command can be given."""
        is_described = mechanism_of(self.run) is not None
        return (*self.run.objects, *(() if is_described else ("mechanism",)))

    @property
    def commands(self) -> list[str]:
        """The commands that make the run and its measurements again, as far as commands can."""
        again = ("--config", f"{self.place}/config.toml", "--out", f"{self.place}-again")
        lines = [] if self.objects else [command_line("dpsd", "transcribe", *again)]
        lines.append(command_line("dpsd", "certify", self.place))
        if "student" not in self.objects:
            for found, file in zip(self.evaluations, self.evaluation_files, strict=True):
                measured = ("--data", found["data"], "--split", found["split"], "--json")
                lines.append(f"{command_line('dpsd', 'evaluate', self.place, *measured)} > {file}")
        return lines + [
            command_line("dpsd", "attack", self.place, *one.asking)
            for one in self.findings
            if is_repeatable(one, self.run)
        ]

    @property
    def without_command(self) -> list[str]:
        """What no command makes again, and how it is made instead, in sentences."""
        found = []
        if self.objects:
            as_what = "an object" if len(self.objects) == 1 else "objects"
            found.append(
                f"{self.name} was given its {' and '.join(self.objects)} as {as_what} in Python, "
                "so no command makes it again: call dpsd.transcribe with the same settings."
            )
        kinds = [one.kind for one in self.findings if not is_repeatable(one, self.run)]
        if kinds:
            found.append(
                f"{self.name} was attacked from Python ({', '.join(kinds)}), with what no command "
                "can be given: call the attack there again."
            )
        return found


#: The files and folders of a run whose sizes are shown. Owners may keep files of their own there.
_PARTS = {
    *("config.toml", "ledger.jsonl", "releases", "checkpoint.safetensors", "student.safetensors"),
    *("student.json", "generator.safetensors", "metrics.jsonl", "certificate.json", "images"),
}

#: The headings of a table of what parts took.
SPENT_HEADINGS = ("part", "seconds", MEMORY)

#: The headings of a table of rounds.
ROUND_HEADINGS = (
    *("round", "queries", "loss", "agreement ± s.e.", "on the probe ± s.e.", "constant ± s.e."),
    *("largest class", "from", "seconds"),
)


def is_repeatable(found: Findings, run: RunDirectory) -> bool:
    """Return whether ``dpsd attack`` can make findings again.

    It cannot where a function of the owner's trained the shadow teachers. Where the teacher was an
    object, it must have been told what the teacher was trained on, as it was if it was asked.
    """
    trained = found.details.get("teachers")
    by_function = isinstance(trained, Mapping) and "function" in trained
    return not by_function and (bool(found.asked) or "teacher" not in run.objects)


def _accuracies(name: str, images: int, found: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (found.get(f"{who}accuracy") for who in ("student_", "teacher_"))
    return (
        *(name, f"{images:,}"),
        *(with_interval(share, images) for share in (*shares, found.get("agreement"))),
    )


def _shares(counts: Sequence[int]) -> list[float] | None:
    """The shares of counts; ``None`` if there are none."""
    total = sum(counts)
    return [count / total for count in counts] if total else None
