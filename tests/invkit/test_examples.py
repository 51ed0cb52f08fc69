"""The examples in the library's docstrings are true."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import invkit

MODULES = ["invkit", *(module.name for module in pkgutil.walk_packages(invkit.__path__, "invkit."))]
FINDER, RUNNER_OPTIONS = doctest.DocTestFinder(exclude_empty=True), doctest.NORMALIZE_WHITESPACE


def examples():
    """{name: its examples} of every function, class and module that has some."""
    modules = [import_module(name) for name in MODULES if not name.endswith("__main__")]
    found = [test for module in modules for test in FINDER.find(module, module.__name__) if test.examples]
    return {test.name: test for test in found}


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_comes_out(name):
    said = []
    result = doctest.DocTestRunner(optionflags=RUNNER_OPTIONS).run(EXAMPLES[name], out=said.append)
    assert result.attempted and not result.failed, "".join(said)


def test_what_one_begins_with_has_an_example():
    first = {"load_classifier", "load_inverter", "load", "psnr", "bootstrap", "retrieval_accuracy", "dead_leaves"}
    assert first <= {name.rpartition(".")[2] for name in EXAMPLES}
