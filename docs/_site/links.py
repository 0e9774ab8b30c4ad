"""Pages of the documentation site that live elsewhere in the repository, and links to them.

The links in the repository's texts hold where one reads them there, as in ``../benchmarks/...`` or
``docs/privacy.md``. On the site the same texts are pages side by side, so each link to a file that
is a page is turned into a link to that page. A link to any other file of the repository leads
nowhere on the site, and is left for ``mkdocs build --strict`` to refuse.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

#: Texts outside ``docs/`` that are pages of the site too, by their place in the repository.
OUTSIDE = {
    "benchmarks/RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_IN_REPOSITORY = {page: source for source, page in OUTSIDE.items()}

#: The target of a Markdown link or picture that is a path, without a fragment.
_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the texts that live outside ``docs/``."""
    root = PurePosixPath(config.config_file_path).parent
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    return _LINK.sub(lambda found: found[1] + site_link(found[2], here), markdown)


def site_link(link: str, page: str) -> str:
    """Where a link on a page leads on the site.

    >>> site_link("../benchmarks/RESULTS.md", "privacy.md")
    'results.md'
    >>> site_link("docs/privacy.md", "security.md"), site_link("design.md", "privacy.md")
    ('privacy.md', 'design.md')
    >>> site_link("../tutorial.md", "how-to/resume.md")
    '../tutorial.md'
    """
    in_repository = _IN_REPOSITORY.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link))
    on_site = OUTSIDE.get(target, target.removeprefix("docs/"))
    if on_site == target:  # neither a page nor in docs/
        return link
    return posixpath.relpath(on_site, posixpath.dirname(page) or ".")
