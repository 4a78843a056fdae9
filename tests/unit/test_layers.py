"""Imports point one way, and nothing is imported before it is needed."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "nbllm"
LAYERS = (
    "errors", "paths", "_kernels", "formats", "tokenizers", "runtime", "catalogue", "text", "model", "bench", "chat",
    "jupyter", "cli",
)  # fmt: skip
FREE = {"__init__", "__main__"}  # the package itself, and its way to the command line
NOTEBOOK = {"IPython", "ipykernel", "ipywidgets", "traitlets"}  # only jupyter/ may know these

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def layer(file):
    return file.parts[0].removesuffix(".py")


def imports(file):
    """Dotted names of all that a file imports, also within functions."""
    package = ".".join(("nbllm", *file.parts[:-1]))
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            # of `from nbllm import x`, x may be a layer
            yield from (f"{source}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", [file for file in FILES if layer(file) not in FREE], ids=str)
def test_a_layer_imports_only_itself_and_those_above_it(file):
    known = LAYERS[: LAYERS.index(layer(file)) + 1]
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "nbllm" and rest.split(".")[0] in LAYERS:
            assert rest.split(".")[0] in known, f"{file} imports {name}"
        assert top not in NOTEBOOK or layer(file) == "jupyter", f"{file} imports {name}"


def loaded_after(statement):
    """Top-level names in sys.modules after a statement in a fresh process."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ran.stdout.split())


def test_all_that_is_below_the_notebook_works_without_it():
    names = [
        ".".join(("nbllm", *file.with_suffix("").parts)).removesuffix(".__init__")
        for file in FILES
        if layer(file) not in {*FREE, "_kernels", "jupyter", "cli"}
    ]
    assert not NOTEBOOK & loaded_after("import " + ", ".join(names))


def test_importing_the_package_loads_no_library():
    assert not {"numpy", "jinja2", "regex", "platformdirs", *NOTEBOOK} & loaded_after("import nbllm")
