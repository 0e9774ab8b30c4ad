"""The commands on finished runs: ``sample``, ``export`` and ``certify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpsd.cli.choices import Words
from dpsd.cli.console import (
    RESULTS,
    STATUS,
    put_page,
    say,
    shown_warnings,
    warn,
)
from dpsd.cli.federate import client_folder
from dpsd.cli.privacy import show_certificate
from dpsd.errors import ConfigError, DpsdError, RunError
from dpsd.results.destinations import Destination
from dpsd.runs.files import ATTACKS_FOLDER, JOURNAL_FILE, check_run
from dpsd.shell import command_line

if TYPE_CHECKING:
    from dpsd.privacy.records.certificate import Certificate
    from dpsd.runs.directory import RunDirectory
    from dpsd.runs.reconciliation import Reconciliation

RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run directory.", show_default=False)
]
Device = Annotated[
    str | None,
    typer.Option(help="Where models run: auto, cpu, cuda, …", show_default="as in the run"),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]


def opened(run: Path, *, to: str = "") -> RunDirectory:
    """Open a run; warn if it is unfinished, or if anybody can reproduce its noise.

    Args:
        run: the run's directory.
        to: what an unfinished run is refused for, as in ``"attack it"``; by default it is not.

    Raises:
        RunError: the folder is not a run, or the run is refused.
    """
    check_run(run)

    from dpsd.privacy.records.certificate import NOT_PRIVATE
    from dpsd.runs.directory import RunDirectory

    directory = RunDirectory.open(run)
    if not directory.is_federation and directory.config().privacy.reproducible_noise is not None:
        warn(NOT_PRIVATE)
    if not directory.is_finished():
        if to:
            raise RunError(f"{run} is not finished: to {to}, finish it with {directory.resuming}")
        warn("the run is not finished: this is its student after the last finished round")
    return directory


def measurable_on(directory: RunDirectory) -> tuple[str, ...]:
    """The words that say what a run's student can be measured on, as its teacher's record says."""
    from dpsd.teachers import read_record

    try:
        record = read_record(directory.config().teacher.teacher)
    except DpsdError:  # the teacher has no record
        return ("--data", "NAME")
    # Of a data set that nothing was held out of, there is at least the test split.
    has_part = record.validation_share or record.validation_accuracy is not None
    return ("--data", record.data or "NAME", *(("--split", "validation") if has_part else ()))


def show_written(
    path: Path, pages: str, *last: object, measured_on: Sequence[str] = ("--data", "NAME")
) -> None:
    """Show which files a run wrote, and the commands that go on from there.

    Args:
        path: the directory of the run.
        pages: a line about the files that are for people.
        last: the words of the last command.
        measured_on: the words that say what the student can be measured on.
    """
    say(f"\nWritten to {path}:")
    say("  student.safetensors, student.json   the student")
    say("  generator.safetensors               the generator of synthetic images")
    say(f"  {pages}")
    say("\nNext:")
    for words in (
        ("evaluate", path, *measured_on),
        ("sample", path, "--count", 10_000, "--out", "synthetic"),
        ("export", path, "--to", "student.onnx"),
        ("report", path, "--out", "report.html"),
        last,
    ):
        say(f"  {command_line('dpsd', *words)}")


def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="The number of images to make.")] = 10_000,
    out: Annotated[Path, typer.Option(help="The directory to write to.")] = Path("synthetic"),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the images; the same seed makes the same images.")
    ] = 0,
    device: Device = None,
    force: Force = False,
) -> None:
    """Make synthetic images with the student's labels, at no cost in privacy.

    Example: dpsd sample runs/digits --count 1000 --out synthetic

    The flags to know first are --count and --out. The images show what the student learned from.
    They were poor training data for another model where that was measured: deploy the student.
    """
    check_run(run)

    from dpsd.results.synthetic import CONTACT_SHEET_FILE, DATA_FILE, synthesise, write_synthetic

    for name in (DATA_FILE, CONTACT_SHEET_FILE):
        refuse_inside_a_run(out / name)
        if not force:
            refuse_existing(out / name)
    data = synthesise(opened(run), count, seed=seed, device=device)
    for path in write_synthetic(data, out):
        say(f"wrote {path}")
    shares = data.class_counts().tolist()
    names = data.class_names or [str(number) for number in range(len(shares))]
    counts = ", ".join(f"{name}: {many:,}" for name, many in zip(names, shares, strict=True))
    say(f"images per class: {counts}")


def export(
    run: RunPath,
    to: Annotated[
        str,
        typer.Option(
            help="What to write: a file that ends in .onnx, .pt2 or .safetensors; onnx, pt2 or "
            "safetensors, for a file called student in the current folder; or hf:FOLDER, for a "
            "folder as the Hugging Face Hub has them, with a model card.",
            metavar="FILE|FORMAT|hf:FOLDER",
            show_default=False,
        ),
    ],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="For hf:FOLDER, a file that `dpsd evaluate --json` wrote about this run, whose "
            "accuracy the model card publishes. No ε covers it. The flag may be repeated.",
            metavar="FILE",
            show_default="none: the card says that the student was not evaluated",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Export the student for use elsewhere: as ONNX, torch.export, safetensors, or for the Hub.

    Example: dpsd export runs/digits --to student.onnx

    The flag to know first is --to, which decides the format. Every file states the names of the
    classes and the hash of the run's certificate. hf:FOLDER is a folder with model.safetensors,
    model.pt2, config.json, preprocessor_config.json, certificate.json and a model card, README.md;
    `hf upload` publishes it, and dpsd uploads nothing.
    """
    check_run(run)
    destination = Destination.of(to)
    for path in destination.files:
        refuse_inside_a_run(path)
        if not force:
            refuse_existing(path)

    from dpsd.results.export import export_student

    for path in export_student(opened(run), to, evaluations=evaluation or ()):
        say(f"wrote {path}")
    _tell_of_attacks(run)


def certify(
    run: RunPath,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            click_type=Words(["text", "markdown", "html", "json"]),
            help="The format to print in.",
        ),
    ] = "text",
) -> None:
    """State the privacy that a run, or a federation's client, spent, recomputed from its ledger.

    The command fails if the ledger, the releases, the models and the stored certificate do not
    belong together, and names the line that is wrong. It also compares the ledger with the
    teacher's budget, if that is found where the settings say.

    Given the directory of a client, it states what that client spent: its noise is local, and the
    server that it answered is trusted with nothing.

    Example: dpsd certify runs/digits --format html > certificate.html

    The flag to know first is --format.
    """
    if (client := client_folder(run)) is not None:
        _certify_client(client, format, name=run.resolve().name)
        return
    check_run(run)

    from dpsd.runs.directory import RunDirectory
    from dpsd.runs.reconciliation import reconcile

    directory = RunDirectory.open(run)
    with shown_warnings():
        certificate = directory.certify()
    compared = reconcile(directory)
    _put(certificate, format, run=directory.name, teacher=directory.teacher_name)
    _compare_with_stored(directory, certificate)
    _tell_of_budgets(compared)
    _tell_of_attacks(run)


def _tell_of_attacks(run: Path) -> None:
    """Say that what attacks found is for the owner, if the run was attacked."""
    if (run / ATTACKS_FOLDER).exists():
        warn(
            f"{run / ATTACKS_FOLDER} is for the owner of the data alone, as it was measured on "
            "private records and may show some: no certificate covers it, so leave it out when "
            "the run is handed over"
        )


def _certify_client(place: Path, format: str, *, name: str) -> None:
    from dpsd.federated.client.folder import ClientFolder

    folder = ClientFolder.open(place)
    # First, so that what a running client writes meanwhile is not taken for what a ledger lacks.
    stored, head = folder.stored()
    with shown_warnings():
        certificate = folder.certify()
    compared = folder.reconcile()
    _put(certificate, format, run=name, teacher="")
    if head == certificate.ledger:
        _compare_with(
            folder.certificate,
            stored,
            certificate,
            parts="the answers, the settings",
            unchecked="keys and logs",
        )
    else:
        warn(
            f"{folder.certificate} is not about the last line of the ledger, as after a crash or "
            "while the client answers: the client writes it anew"
        )
    _tell_of_budgets(compared)


def _put(certificate: Certificate, format: str, **names: str) -> None:
    """Print a certificate in a format."""
    if format == "json":
        RESULTS.file.write(certificate.to_json())
    elif format == "markdown":
        RESULTS.file.write(certificate.to_markdown(**names))
    elif format == "html":
        from dpsd.reporting.html import certificate_page

        put_page(certificate_page(certificate, **names))
    else:
        show_certificate(certificate, **names)


def _tell_of_budgets(compared: Reconciliation) -> None:
    for shortfall in compared.shortfalls:
        warn(shortfall)
    STATUS.print(compared.describe(), style="dim", soft_wrap=True)


def _compare_with_stored(directory: RunDirectory, certificate: Certificate) -> None:
    from dpsd.storage.files import read_json

    path = directory.path / "certificate.json"
    if not path.is_file():
        if directory.is_finished():
            raise DpsdError(f"{path} is lost; what is printed here takes its place")
        warn("the run is not finished: this is what it has spent so far")
        return
    read_json(path)  # gives a better message if the file is not a JSON object
    _compare_with(
        path,
        path.read_text(encoding="utf-8"),
        certificate,
        parts="the releases, the student, the generator, the settings",
        unchecked="report.html, metrics.jsonl and the images",
    )


def _compare_with(
    path: Path, stored: str, certificate: Certificate, *, parts: str, unchecked: str
) -> None:
    """Compare a certificate with the text of the stored one, and say what else was compared."""
    from dpsd.privacy.records.certificate import VERSION
    from dpsd.privacy.records.comparison import difference

    different = difference(certificate, stored)
    if different is not None:
        raise DpsdError(
            f"{path}, {different}. What is printed here is computed from the ledger and what "
            "belongs to it"
        )
    is_older = json.loads(stored)["version"] != VERSION
    words = ", nor the words of the certificate, which an earlier version wrote" * is_older
    STATUS.print(
        f"checked: every line of the ledger, {parts} and the stored certificate belong together; "
        f"{unchecked} were not checked{words}",
        style="dim",
        soft_wrap=True,
    )


def refuse_inside_a_run(path: Path) -> None:
    """Refuse to write into a run's directory, or into a folder in it."""
    records = ("ledger.jsonl", JOURNAL_FILE)
    folders = path.absolute().parents
    run = next((one for one in folders if any((one / name).exists() for name in records)), None)
    if run is not None:
        raise ConfigError(
            f"{run} is a run, whose files must not be replaced or added to: give another place"
        )


def refuse_existing(path: Path) -> None:
    """Refuse to replace a file without ``--force``."""
    if path.exists():
        raise ConfigError(f"{path} already exists: give another place, or --force")
