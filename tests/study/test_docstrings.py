"""Docstrings become a page: signs stay signs, and the page names what there is."""

import re
from importlib import import_module
from pathlib import Path

import invkit
from study.docstrings import for_sphinx

NAMES = re.findall(r"^\.\. auto\w+:: (\S+)", (Path(__file__).parents[2] / "book/api.md").read_text(), re.MULTILINE)


def test_signs_stay_signs_and_code_and_examples_as_they_are():
    lines = ["(N, *shape), |z|^2 and `*names` of `Block`s.", "", ">>> a * b", "a * b", "", "x * y"]
    shown = ["(N, \\*shape), \\|z\\|^2 and `*names` of `Block`\\ s.", "", ">>> a * b", "a * b", "", "x \\* y"]
    assert for_sphinx(lines) == shown


def found(name):
    """What a dotted name stands for: an attribute of a module of invkit."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def test_the_page_names_each_public_name_once_and_every_one_has_a_docstring():
    assert len(NAMES) == len(set(NAMES)) and all(found(name).__doc__ for name in NAMES)
    own = {f"invkit.{name}" for name in invkit.__all__ if callable(getattr(invkit, name))}
    assert own <= set(NAMES)
