"""The frame: the files that declare what is needed agree, and importing the package costs nothing."""

import re
import subprocess
import sys
import tomllib
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


def test_constraints_hold_every_requirement_still(required):
    held = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert required.items() <= held.items()


def test_what_is_installed_is_what_is_pinned(required):
    from importlib.metadata import version

    installed = {name: version(name).split("+")[0] for name in required}  # "+cpu" is the same torch without CUDA
    assert installed == required


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
    assert sum(mib.values()) <= 80
    for name, size in mib.items():
        assert size <= {"dci-lite0": 30, "dci-facegan": 10}.get(name, 5), name
    assert sum(size for name, size in mib.items() if name.startswith(("glyphs-", "tiny-"))) <= 10
