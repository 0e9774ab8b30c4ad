"""``report.html``: a run on one page, in a single self-contained file.

Everything on it comes from releases and public choices, so it may be published with the student.
"""

from __future__ import annotations

import base64
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from dpsd.privacy.records import statement
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.statement import Statement
from dpsd.reporting.agreement import WITHOUT_PROBE, final_probe, left_out, shown
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
        statement=Statement(certificate=certificate),
        teacher=run.teacher_name,
        rounds=[_round(line) for line in metrics],
        probe=final_probe(run),
        left_out=left_out(run),
        has_probe=any("probe" in line for line in metrics),
        without_probe=WITHOUT_PROBE,
        queries=sum(line["queries"] for line in metrics),
        seconds=sum(line["seconds"] for line in metrics),
        curves=progress_curves(metrics) if metrics else "",
        sheet=_inline_image(run),
    )


def certificate_page(certificate: Certificate, *, run: str = "", teacher: str = "") -> str:
    """Return the HTML of a page with a certificate, which prints on A4 without colours.

    Args:
        certificate: the certificate.
        run: the name of the run's directory, which the page shows if it is given.
        teacher: the name of the teacher, which the page shows if it is given.
    """
    return _template("certificate.html.j2").render(
        statement=Statement(certificate=certificate, run=run, teacher=teacher),
        certificate=certificate,
        title=statement.TITLE,
        headings=(statement.LIMITS, statement.BASIS, statement.OPINIONS),
        about_opinions=statement.ABOUT_OPINIONS,
    )


def coded(text: str) -> Markup:
    """Return text as HTML, with what is between backticks as code.

    >>> print(coded("`a < b` & c"))
    <code>a &lt; b</code> &amp; c
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def counted(number: int, noun: str) -> str:
    """Return a number of things, of which there may be one.

    >>> counted(1, "round"), counted(2000, "query")
    ('1 round', '2,000 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _template(name: str) -> Template:
    source = files("dpsd.reporting").joinpath(name).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"coded": coded, "counted": counted}
    return environment.from_string(source)


def _round(line: dict[str, Any]) -> dict[str, str]:
    return {
        "round": str(line["round"]),
        "queries": f"{line['queries']:,}",
        "loss": f"{line['student_loss']:.4f}",
        "agreement": shown(line["agreement"]),
        "probe": shown(line.get("probe", {}).get("agreement")),
        "largest": f"{max(line['label_shares']):.0%}",
        "sources": ", ".join(f"{name} {count:,}" for name, count in line["sources"].items()),
        "seconds": f"{line['seconds']:,}",
    }


def _inline_image(run: RunDirectory) -> str:
    """Return the contact sheet of the generator's images in base64; empty if there is none."""
    path = sheet_path(run)
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
