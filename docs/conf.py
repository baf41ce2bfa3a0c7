"""How Sphinx builds the manual: `make docs`."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOP = HERE.parent
sys.path[:0] = [str(TOP / root) for root in ("broker", "api", "workers")] + [str(TOP)]

from docs.tables import LINKS_OUT, PAGES  # noqa: E402
from rabbitry import __version__  # noqa: E402

project = "rabbitry"
author = "the authors of rabbitry"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated/*", "_build"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "code"
nitpicky = False  # types in signatures stand for themselves; links between pages are checked all the same
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"rabbitry {release}"
html_copy_source = False
html_show_copyright = False
linkcheck_ignore = [r"http://(localhost|127\.0\.0\.1)"]

# Tables that are made from the code, each read by the page that includes it.
GENERATED = HERE / "generated"
GENERATED.mkdir(exist_ok=True)
for name, text in PAGES.items():
    path = GENERATED / name
    if not path.exists() or path.read_text(encoding="utf-8") != text():
        path.write_text(text(), encoding="utf-8")


def _lead_links_in(_app: Any, _name: str, source: list[str]) -> None:
    for outside, inside in LINKS_OUT.items():
        source[0] = source[0].replace(f"]({outside})", f"]({inside})")


def setup(app: Any) -> None:
    """Register what is above."""
    app.connect("source-read", _lead_links_in)
