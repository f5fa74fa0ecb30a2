"""Settings of the site; `docs/build.py` lays out the pages and calls Sphinx."""

import poolkit

project = "poolkit"
author = "The poolkit developers"
version = release = poolkit.__version__
html_title = f"poolkit {version}"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "tools.docstrings",
    "tools.public_names",
]
exclude_patterns = ["made"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"  # docstrings write code in single backticks

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Sphinx would have to ask their servers where other projects' names are documented.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|np|numpy|nn|typing|collections|keras|pathlib|dataclasses)\..*"),
    (
        r"py:.*",
        r"(Tensor|Data|Watch|Module|Parameter|Any|Callable|Iterator|Iterable|Sequence|Mapping|Path|optional|Rows|Draws)",
    ),
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["poolkit.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
