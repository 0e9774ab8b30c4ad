"""The templates of pages, and the page of a certificate."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from dpsd.privacy.records import statement
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.statement import Statement


def certificate_page(certificate: Certificate, *, run: str = "", teacher: str = "") -> str:
    """Return the HTML of a page with a certificate, which prints on A4 without colours.

    Args:
        certificate: the certificate.
        run: the name of the run's directory, which the page shows if it is given.
        teacher: the name of the teacher, which the page shows if it is given.
    """
    return template("certificate.html.j2").render(
        statement=Statement(certificate=certificate, run=run, teacher=teacher),
        certificate=certificate,
        title=statement.TITLE,
        headings=(statement.LIMITS, statement.BASIS, statement.OPINIONS),
        about_opinions=statement.ABOUT_OPINIONS,
    )


def coded(text: str) -> Markup:
    """Return text as HTML, with what is between backticks as code, and no flag in two lines.

    >>> print(coded("`a < b` & c"))
    <code>a &lt; b</code> &amp; c
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(flagged(text))))


def flagged(text: str) -> Markup:
    """Return text as HTML in which no flag is broken into two lines.

    >>> print(flagged("dpsd report --public"))
    dpsd report <span class="flag">--public</span>
    """
    return Markup(_whole_flags(str(escape(text))))


def _whole_flags(html: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][\w-]*", r'<span class="flag">\g<0></span>', html)


def counted(number: int, noun: str) -> str:
    """Return a number of things, of which there may be one.

    >>> counted(1, "round"), counted(2000, "query")
    ('1 round', '2,000 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def part(name: str) -> str:
    """Return the text of a file that belongs to a template."""
    return files("dpsd.reporting").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Template:
    """Return a template, which escapes whatever it is given; it is compiled once."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(part),
    )
    environment.filters |= {"coded": coded, "counted": counted, "flagged": flagged}
    return environment.get_template(name)
