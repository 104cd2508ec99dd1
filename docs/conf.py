"""Sphinx configuration of the documentation: `make docs` builds it, `make links` checks the links to other sites."""

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx

REPOSITORY = "https://github.com/tedee-exporter/tedee-exporter"
ROOT = Path(__file__).parent.parent

project = "Tedee exporter"
author = "the Tedee exporter's contributors"
project_copyright = author

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
# The anchors that GitHub gives to headings, so that a link works in both places.
myst_heading_anchors = 4
# Pygments does not know the colons in the names of recording rules and in subqueries. It highlights the rest.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "Tedee exporter"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}

linkcheck_timeout = 15
linkcheck_retries = 2
linkcheck_ignore = [
    r"http://localhost",  # the reader's own machine
    rf"{REPOSITORY}/(blob|tree)/main/",  # files of this repository; tests/docs checks that they exist
]
# GitHub renders these anchors with JavaScript.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]


def link_to_repository(_app: Sphinx, page: str, content: list[str]) -> None:
    """Replace links to files outside of `docs/`, which GitHub shows as they are, by their address on GitHub."""
    folder = posixpath.join("docs", posixpath.dirname(page))

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        if path.startswith("docs/"):
            return match[0]
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{path}{match[2] or ''})"

    content[0] = re.sub(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)", replace, content[0])


def setup(app: Sphinx) -> None:
    """Connect the transformation of links."""
    app.connect("source-read", link_to_repository)
