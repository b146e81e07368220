"""How the documents are built."""

project = "Paroma"
author = "The Paroma founders"
copyright = "The Paroma founders, Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "Paroma"
exclude_patterns = ["_build"]
