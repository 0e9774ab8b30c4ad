"""The run directory: everything a transcription leaves behind, and never a pickle.

    config.toml           the resolved configuration
    ledger.jsonl          what was asked, recorded before it was answered
    releases/             the releases, one safetensors file per round
    checkpoint.safetensors  student and generator after the last finished round
    student.safetensors, student.json, generator.safetensors
    features.*            the frozen backbone that the student is linear on, if it is on one
    metrics.jsonl         one line per round
    certificate.json
    images/               some of the generator's images after each round, and all on one sheet
    report.html           the results on one page

Nothing in it depends on a raw answer except through a release. An owner who attacks the run gets a
folder more, which is theirs alone: what is in it was measured on private data.

    attacks/              what attacks found, with pictures that may show private records
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from torch import nn

from dpsd.privacy.records.certificate import Certificate
from dpsd.runs.certifying import certify_run
from dpsd.runs.files import JOURNAL_FILE
from dpsd.runs.folder import RunFolder
from dpsd.runs.journal import Client
from dpsd.runs.models import load_generator, load_student
from dpsd.runs.pictures import save_sheet
from dpsd.storage.files import file_hash, save_tensors


class RunDirectory(RunFolder):
    """A run: its files, its spending, and the models that it produced.

    Args:
        path: the run directory.
    """

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run, or the directory of a federation's server.

        Raises:
            RunError: there is no run, it contains links, or its settings were changed since it
                began.
        """
        if cls is RunDirectory and (Path(path) / JOURNAL_FILE).exists():
            from dpsd.runs.federation import FederationDirectory

            return cast("Self", FederationDirectory.open(path))  # as it is a RunDirectory
        return super().open(path)

    def clients(self) -> Sequence[Client]:
        """The clients of a federation in the order in which they appeared; none in other runs."""
        return ()

    def certify(self) -> Certificate:
        """Compute the certificate from the run's records, after checking that they are complete.

        Raises:
            RunError: the ledger, the releases and the models do not belong together.
        """
        return certify_run(self)

    def student(self, module: nn.Module | None = None) -> nn.Module:
        """The trained student; in an unfinished run, as it was after the last finished round.

        Args:
            module: the module to load the weights into, if the student was not a named model.

        Raises:
            RunError: no round is finished, or the file is damaged.
        """
        return load_student(self, module)

    def generator(self, module: nn.Module | None = None) -> nn.Module:
        """The trained generator; arguments and errors are those of :meth:`student`."""
        return load_generator(self, module)

    def finish(self, *, student: nn.Module, generator: nn.Module, **facts: int) -> Certificate:
        """Write the models and the certificate; arguments and errors are :meth:`conclude`'s."""
        self.conclude(student=student, generator=generator, **facts)
        certificate = self.certify()
        certificate.save(self.path / "certificate.json")
        return certificate

    def conclude(self, *, student: nn.Module, generator: nn.Module, **facts: int) -> None:
        """Write the final models, and record that the run is finished.

        Args:
            student: the final student.
            generator: the final generator.
            facts: what the ledger's last entry also states; see :meth:`.Ledger.finish`.

        Raises:
            WriteError: the disk is full, or the directory cannot be written to.
        """
        save_tensors(self.path / "student.safetensors", student.state_dict())
        save_tensors(self.path / "generator.safetensors", generator.state_dict())
        save_sheet(self)
        self.ledger.finish(
            student=file_hash(self.path / "student.safetensors"),
            generator=file_hash(self.path / "generator.safetensors"),
            **facts,
        )


@dataclass(frozen=True)
class Run:
    """A finished transcription.

    Args:
        directory: the run directory, which holds everything.
        student: the trained student, in eval mode; it maps images in [0, 1] to logits.
        generator: the trained generator.
        certificate: the privacy that the run spent.
        metrics: the metrics, one entry per round.
    """

    directory: RunDirectory
    student: nn.Module = field(repr=False)
    generator: nn.Module = field(repr=False)
    certificate: Certificate = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)
