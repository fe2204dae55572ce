"""Settings of the documentation site: `make docs-site`."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.util.docutils import SphinxDirective

import cyclewise

sys.path.insert(0, str(Path(__file__).parent))

import reference as public_names

project = "cyclewise"
version = release = cyclewise.__version__
html_title = f"cyclewise {version}"
html_show_copyright = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures"]

# The docstrings are reStructuredText in Google's form; single backticks are code.
default_role = "code"
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autoclass_content = "class"
python_maximum_signature_line_length = 88
myst_heading_anchors = 3

# The theme asks for nothing from elsewhere: no fonts, no scripts.
html_theme = "furo"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0067a5", "color-brand-content": "#0067a5"},
    "dark_css_variables": {"color-brand-primary": "#6db8f2", "color-brand-content": "#6db8f2"},
}


class PublicNames(SphinxDirective):
    """Put every public name here, under the titles of their parts."""

    def run(self) -> list[nodes.Node]:
        """Return the parsed page."""
        return self.parse_text_to_nodes(public_names.page(), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    """Add the directive, and call attributes so."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.add_directive("public-names", PublicNames)
