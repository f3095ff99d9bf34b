"""The documentation's site: `make docs`. Sphinx reads the pages beside this file, and the docstrings of hf_lelp."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from hf_lelp import __version__  # noqa: E402

project = "hf-lelp"
author = "The hf-lelp authors"
project_copyright = author
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "site_parts.docstrings",
    "site_parts.generated",
]
exclude_patterns = ["_build", "README.md"]
html_theme = "furo"
html_title = f"hf-lelp {release}"
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
highlight_language = "none"  # of blocks that name no language

# ---- Pages ----
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "

# ---- Docstrings ----
default_role = "code"  # what docstrings name in backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # the attributes of a dataclass are described once
autodoc_mock_imports = ["ray"]  # an extra that the site is built without
