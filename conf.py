"""Sphinx settings; everything particular to the specification is in ``specctrl.site``."""

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))
os.environ["PYTHONPATH"] = str(ROOT / "src")  # what runs the pages inherits it
os.environ.setdefault("PYTHONHASHSEED", "0")  # and print sets in one order, in every build
warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx_autodoc_typehints")

from specctrl.evidence.mutants import rule_modules  # noqa: E402 - the path had to be set first

project = "Virtual IA32_SPEC_CTRL"
author = "the specctrl authors"
copyright = "2026, the specctrl authors"
release = "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "specctrl.site.extension",
]
root_doc = "index"
include_patterns = ["index.md", "spec/**"]
exclude_patterns = ["_build", "spec/_*.md"]  # spec/_*.md: passages on their way to another page
source_suffix = {".md": "markdown"}
nitpicky = True
nitpick_ignore_regex = [
    # The standard library's inventory would have to be fetched. Nothing of specctrl is ever ignored.
    (r"py:.*", r"(abc|argparse|ast|collections|concurrent|contextlib|datetime|doctest|enum)\..*"),
    (r"py:.*", r"(functools|mmap|os|pathlib|types|typing)\..*"),
    (r"py:.*", r"(Any|Callable|Iterator|Iterable|Mapping|Path|Sequence)"),
    # Sphinx cuts an attribute's type at the first comma in its brackets.
    (r"py:class", r"(dict|list|tuple)\[[^,\]]*"),
]

# Pages
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Code
autodoc_preserve_defaults = True  # a default that is a path would name this machine
autodoc_member_order = "bysource"
autodoc_default_options = {"no-value": True}  # a table's value is shown where it is explained
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them
always_use_bars_union = True
typehints_use_signature = True
typehints_use_signature_return = True
typehints_document_rtype = False
python_use_unqualified_type_names = True
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
reading_unconverted = []  # pages whose order specctrl.site.reading need not check: none
page_runner = True  # code runs in the page, where npm can fetch Pyodide
rule_evidence = True  # a MUST that no example and no scenario shows is a warning, so an error
source_modules = [  # every public function, class and method of these stands in a chapter
    f"specctrl.model.{module}" for module in (*rule_modules(), "kvm.state")
    if module != "vmm.policies"  # its chapter shows how the policies differ, and what they do
]

# Site
html_theme = "furo"
html_title = "Virtual IA32_SPEC_CTRL — executable specification"
html_static_path = ["spec/_static"]
templates_path = ["spec/_templates"]
html_css_files = ["spec.css"]
html_js_files = [("spec.js", {"defer": "defer"})]
html_theme_options = {"top_of_page_buttons": []}  # they stand outside every landmark
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None  # two builds of one commit are the same bytes
