"""``report.html``: a run on one page, in a single self-contained file.

Everything on it comes from releases and public choices, so it may be published with the student.
"""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from dpsd.privacy.accounting import format_epsilon
from dpsd.privacy.records.certificate import NOT_PRIVATE, TRUST, Certificate
from dpsd.reporting.curves import progress_curves
from dpsd.runs.directory import RunDirectory
from dpsd.runs.pictures import sheet_path
from dpsd.storage.files import write_text

REPORT_FILE = "report.html"


def write_report(run: RunDirectory, certificate: Certificate) -> None:
    """Write ``report.html`` into the run directory.

    Raises:
        RunError: the disk is full, or the directory cannot be written to.
    """
    write_text(run.path / REPORT_FILE, report(run, certificate))


def report(run: RunDirectory, certificate: Certificate) -> str:
    """Return the HTML of the report."""
    metrics = run.metrics()
    return _template("report.html.j2").render(
        config=run.config(),
        facts=run.facts(),
        certificate=certificate,
        not_private=NOT_PRIVATE,
        privacy=_privacy(certificate),
        rounds=[_round(line) for line in metrics],
        queries=sum(line["queries"] for line in metrics),
        seconds=sum(line["seconds"] for line in metrics),
        curves=progress_curves(metrics) if metrics else "",
        sheet=_inline_image(run),
    )


def certificate_page(certificate: Certificate) -> str:
    """Return the HTML of a page with a certificate."""
    return _template("certificate.html.j2").render(
        certificate=certificate,
        privacy=_privacy(certificate),
        not_private=NOT_PRIVATE,
        trust=TRUST,
    )


def _template(name: str) -> Template:
    source = files("dpsd.reporting").joinpath(name).read_text(encoding="utf-8")
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)


def _privacy(certificate: Certificate) -> list[dict[str, Any]]:
    return [
        {
            "adjacency": adjacency.value,
            "meaning": meaning,
            "events": certificate.events[adjacency.value],
            "epsilon": format_epsilon(certificate.spent.under(adjacency)),
            "check": format_epsilon(certificate.spent.rdp[adjacency.value]),
            "is_target": adjacency.value == certificate.target["adjacency"],
        }
        for adjacency, meaning in certificate.meanings.items()
    ]


def _round(line: dict[str, Any]) -> dict[str, str]:
    agreement = line["agreement"]
    return {
        "round": str(line["round"]),
        "queries": f"{line['queries']:,}",
        "loss": f"{line['student_loss']:.4f}",
        "agreement": (
            f"{agreement['mean']:.1%} ± {agreement['standard_error']:.1%}" if agreement else "-"
        ),
        "largest": f"{max(line['label_shares']):.0%}",
        "sources": ", ".join(f"{name} {count:,}" for name, count in line["sources"].items()),
        "seconds": f"{line['seconds']:,}",
    }


def _inline_image(run: RunDirectory) -> str:
    """Return the contact sheet of the generator's images in base64; empty if there is none."""
    path = sheet_path(run)
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
