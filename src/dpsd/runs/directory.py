"""The run directory: everything a transcription leaves behind, and never a pickle.

    config.toml           the resolved configuration
    ledger.jsonl          what was asked, written down before it was answered
    releases/             the releases, a safetensors file a round
    checkpoint.safetensors  student and generator after the last finished round
    student.safetensors, student.json, generator.safetensors
    metrics.jsonl         one line a round
    certificate.json
    images/               some of the generator's images after each round, and all on one sheet
    report.html           all that in one page

Nothing here depends on a raw answer except through a release.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dpsd.privacy.records.certificate import Certificate
from dpsd.runs.certifying import certify_run
from dpsd.runs.folder import RunFolder
from dpsd.runs.models import load_generator, load_student
from dpsd.runs.pictures import save_sheet
from dpsd.storage.files import file_hash, save_tensors


class RunDirectory(RunFolder):
    """A run: its files, what it spent, and the models that came of it.

    Args:
        path: of the directory.
    """

    def certify(self) -> Certificate:
        """Compute the certificate from what was recorded, after checking that it is all there.

        Raises:
            RunError: the ledger, the releases and the models do not belong together.
        """
        return certify_run(self)

    def student(self, module: nn.Module | None = None) -> nn.Module:
        """The trained student, of the last finished round while the run is not finished.

        Args:
            module: to fill, if it was no named model.

        Raises:
            RunError: no round is finished, or the file is damaged.
        """
        return load_student(self, module)

    def generator(self, module: nn.Module | None = None) -> nn.Module:
        """The trained generator, as :meth:`student` gives the student."""
        return load_generator(self, module)

    def finish(self, *, student: nn.Module, generator: nn.Module) -> Certificate:
        """Write the models and the certificate.

        Raises:
            WriteError: the disk is full, or the place cannot be written to.
        """
        save_tensors(self.path / "student.safetensors", student.state_dict())
        save_tensors(self.path / "generator.safetensors", generator.state_dict())
        save_sheet(self)
        self.ledger.finish(
            student=file_hash(self.path / "student.safetensors"),
            generator=file_hash(self.path / "generator.safetensors"),
        )
        certificate = self.certify()
        certificate.save(self.path / "certificate.json")
        return certificate


@dataclass(frozen=True)
class Run:
    """A finished transcription.

    Args:
        directory: where everything is.
        student: the trained student, in eval mode; logits from images in [0, 1].
        generator: the trained generator.
        certificate: what privacy was bought.
        metrics: one entry a round.
    """

    directory: RunDirectory
    student: nn.Module = field(repr=False)
    generator: nn.Module = field(repr=False)
    certificate: Certificate = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)
