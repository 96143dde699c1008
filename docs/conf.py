"""Sphinx configuration. `make docs` builds the pages, with every warning an error."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import obert  # noqa: E402

project = "obert"
author = "the obert contributors"
copyright = author
version = release = obert.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build", "**/_*.md"]
html_theme = "pydata_sphinx_theme"
html_title = f"obert {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navbar_end": ["theme-switcher"], "secondary_sidebar_items": ["page-toc"], "show_nav_level": 2}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 4

highlight_language = "none"

# Docstrings mark code with single backticks, as Markdown does.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_rtype = False

# Every reference must resolve. Left out are other projects' objects, whose inventories need a network, and names
# that a docstring or an annotation gives without their module.
nitpicky = True
OTHERS = "annotated_types argparse collections datasets matplotlib np numpy pandas pathlib pd pydantic torch types"
nitpick_ignore_regex = [
    (r"py:.*", rf"(transformers|{'|'.join(OTHERS.split())})\..*"),
    (r"py:(class|exc)", r"[A-Z]\w*"),
]
