"""``dpsd report``: one run, or several side by side, on one page for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.console import say, shown_warnings
from dpsd.cli.results import Force, opened, refuse_existing, refuse_inside_a_run
from dpsd.errors import ConfigError, RunError, Setting, unwritable
from dpsd.runs.files import JOURNAL_FILE, check_run
from dpsd.shell import command_line

if TYPE_CHECKING:
    from dpsd.privacy.records.certificate import Certificate
    from dpsd.reporting.sections import Subject
    from dpsd.runs.directory import RunDirectory
    from dpsd.runs.findings import Findings


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…",
            help="The run directory; several are shown side by side.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    public: Annotated[
        bool,
        typer.Option(
            "--public",
            help="Leave out what was measured on private data, so that the page may be published "
            "with the students.",
        ),
    ] = False,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that `dpsd evaluate --json` wrote about one of the runs. No ε covers what "
            "it says. The flag may be repeated.",
            metavar="FILE",
            show_default="none: the page shows no accuracy",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Also write the figures, as SVG and PNG, into this folder.",
            metavar="FOLDER",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Make one page that shows what runs spent and learned, in a single file.

    Example: dpsd report runs/digits --out digits.html

    The flags to know first are --evaluation and --public. The page opens from disk and fetches
    nothing. It shows everything that is known of the runs: also the findings of `dpsd attack`, and
    then it is for the owner of the data. With --public it shows releases and public choices alone.
    """
    for number, run in enumerate(runs):
        check_run(run)
        if run.resolve() in (other.resolve() for other in runs[:number]):
            raise ConfigError(f"{run} is given twice: give each run once")
    if public and evaluation:
        raise ConfigError(
            Setting("evaluation"), " is measured on private data, which --public leaves out"
        )
    refuse_inside_a_run(out)
    if not force:
        refuse_existing(out)
    if figures is not None:
        refuse_inside_a_run(figures / "any")
        if not force and figures.exists() and any(figures.iterdir()):
            raise ConfigError(
                Setting("figures"), f" is {figures}, which is not empty: give another, or --force"
            )

    from dpsd.reporting.report import Report
    from dpsd.storage.files import write_text

    federations = [run for run in runs if (run / JOURNAL_FILE).exists()]
    if federations:
        if len(runs) > 1 or figures is not None:
            raise ConfigError(
                f"{federations[0]} is of a federation, whose report stands alone and has no "
                "figures of its own: give it as the only RUN, without --figures"
            )
        write_text(_folder_of(out), _federation_page(runs[0], evaluation or [], is_public=public))
        say(f"wrote {out}")
        return
    with shown_warnings():
        subjects = _subjects(runs, evaluation or [], is_public=public)
    made = Report(
        subjects=subjects, commands=[_command(subjects, is_public=public)], is_public=public
    )
    page = made.html()  # fails if there are too many runs, before anything is written
    write_text(_folder_of(out), page)
    say(f"wrote {out}")
    for path in made.save_figures(figures) if figures is not None else ():
        say(f"wrote {path}")
    if any(subject.is_private for subject in subjects):
        say("The page contains measurements on private data: it is for the owner of the data.")


def _folder_of(out: Path) -> Path:
    """Create the folder of the page, but no folder above it, and return the page's path.

    Raises:
        RunError: the folder cannot be created.
    """
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(
            error, f"{out.parent} cannot be created", mend="give another --out", kind=RunError
        ) from None
    return out


def _federation_page(run: Path, evaluations: list[Path], *, is_public: bool) -> str:
    """The report of a federation, with the evaluations that are about its student."""
    from dpsd.reporting.evaluations import read_evaluation
    from dpsd.reporting.federations import federation_page
    from dpsd.runs.federation import FederationDirectory

    directory = FederationDirectory.open(run)
    student = str(directory.ledger.ending().get("student", ""))
    measured = [(path, read_evaluation(path)) for path in evaluations]
    for path, found in measured:
        if (found["run"], found["student"]) != (directory.identity, student):
            raise ConfigError(
                Setting("evaluation"), f": {path} is about another student; evaluate this one"
            )
    return federation_page(
        directory,
        evaluations=[found for _, found in measured],
        name="RUN" if is_public else directory.name,
    )


def _subjects(runs: list[Path], evaluations: list[Path], *, is_public: bool) -> list[Subject]:
    """The runs, each with the evaluations that are about its student."""
    from dpsd.reporting.evaluations import is_about, read_evaluation
    from dpsd.reporting.sections import Subject

    directories = [opened(run) for run in runs]
    names = [directory.name for directory in directories]
    certificates = [directory.certify() for directory in directories]
    measured = [(path, read_evaluation(path)) for path in evaluations]
    for path, found in measured:
        if not any(is_about(found, certificate) for certificate in certificates):
            raise ConfigError(
                *(Setting("evaluation"), f": {path} is about no student of these runs; "),
                "evaluate them as they are now",
            )
    return [
        Subject(
            run=directory,
            certificate=certificate,
            name=_named(run, number, names, is_public=is_public),
            place="" if is_public else str(run),
            number=number,
            evaluations=[found for _, found in measured if is_about(found, certificate)],
            findings=() if is_public else _findings(directory, certificate),
        )
        for number, (run, directory, certificate) in enumerate(
            zip(runs, directories, certificates, strict=True), start=1
        )
    ]


def _named(run: Path, number: int, names: list[str], *, is_public: bool) -> str:
    """What the page calls a run; what its owner calls the folder is not for the public."""
    if is_public:
        return "RUN" if len(names) == 1 else f"RUN-{number}"
    return names[number - 1] if names.count(names[number - 1]) == 1 else str(run)


def _findings(directory: RunDirectory, certificate: Certificate) -> list[Findings]:
    """The findings of attacks on this very student."""
    from dpsd.reporting.sections import is_repeatable
    from dpsd.runs.findings import read_findings

    found = read_findings(directory.path)
    for one in found:
        if (one.run, one.student) != (certificate.run, certificate.student):
            again = "from Python, as before"
            if is_repeatable(one, directory):
                again = f"with {command_line('dpsd', 'attack', directory.path, *one.asking)}"
            raise RunError(
                f"{directory.path}: the findings of {one.kind} are about another student than this "
                f"run's: attack it again {again}"
            )
    return found


def _command(subjects: list[Subject], *, is_public: bool) -> str:
    """The command that makes the page, with the names of files that its page gives."""
    files = [file for subject in subjects for file in subject.evaluation_files]
    flags = [word for file in files for word in ("--evaluation", file)]
    places = [subject.place for subject in subjects]
    return command_line("dpsd", "report", *places, *flags, *["--public"] * is_public)
