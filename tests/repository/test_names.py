"""A name means one thing: public functions of two modules are called the same only where they do the same."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What each shared name stands for, everywhere.
SHARED = {
    "load": "what is known by a name, from disk",
    "main": "the command of a module",
    "setup": "what Sphinx calls of an extension",
    "train_inverter": "an inverter of one's own: of logits (ffi), or of whatever can be inverted (invkit)",
    "written": "a result as text",
}


def public_functions():
    """{name: the modules that define a function of that name at their top}."""
    found = defaultdict(list)
    for package in ("invkit", "recipes", "study"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    found[node.name].append(str(file.relative_to(ROOT)))
    return found


def test_no_function_has_the_name_of_another():
    shared = {name: files for name, files in public_functions().items() if len(files) > 1 and name not in SHARED}
    assert not shared, f"Give one of each another name: {shared}"


def test_only_names_that_are_shared_are_listed():
    found = public_functions()
    assert not [name for name in SHARED if len(found[name]) < 2]
