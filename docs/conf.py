# SPDX-License-Identifier: Apache-2.0
"""Settings of the manual (Sphinx, MyST, Breathe). Built by tools/docs.sh, which makes Doxygen's XML first."""

from pathlib import Path

project = "klaw"
author = "the klaw authors"
copyright = "the klaw authors, Apache-2.0"
release = version = next(
    line.split('"')[1]
    for line in Path(__file__).parent.parent.joinpath("include/klaw/klaw.h").read_text(encoding="utf-8").splitlines()
    if line.startswith("#define KLAW_VERSION")
)

extensions = ["myst_parser", "breathe", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["Doxyfile"]

breathe_projects = {"klaw": "../build/docs/xml"}
breathe_default_project = "klaw"
breathe_domain_by_extension = {"h": "c"}
breathe_show_define_initializer = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
# Type aliases of other packages that have no page here.
nitpicky = False
# The C domain knows no inline functions of two names for one thing; autodoc meets re-exports twice.
suppress_warnings = ["duplicate_declaration.c", "autodoc.import_object", "ref.python"]

html_theme = "furo"
html_title = f"klaw {release}"
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
