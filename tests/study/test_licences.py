"""The page of licences is complete: a row for each pinned package and each shipped network, none without a licence."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from study import licences
from study.notebook import StudyError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows(monkeypatch):
    """``{first cell: [the others]}`` of both tables, as the page shows them."""
    monkeypatch.chdir(ROOT)
    found = re.findall(r"^\| (.*) \|$", licences.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {first: others for first, *others in (line.split(" | ") for line in found)}


def test_every_package_and_network_has_its_row(rows):
    networks = {names: facts for names, *facts in licences.of_networks()}
    assert {"package", "networks", "---"} == rows.keys() - licences.pins().keys() - networks.keys()
    assert {name: rows[name][0] for name in licences.pins()} == licences.pins()
    assert {names: rows[names] for names in networks} == networks
    named = {name: tuple(facts) for names, facts in networks.items() for name in names.split(", ")}
    assert named == licences.shipped_networks()
    assert all(cells[1].strip() for cells in rows.values())


def test_what_is_installed_says_what_stands_there(rows):
    here = {name for name, pinned in licences.pins().items() if installed(name) == pinned}
    assert len(here) > 150
    assert {name: rows[name][1] for name in here} == {name: licences.licence(name) for name in here}


def installed(name):
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:  # those of CUDA, where PyTorch is without it
        return None


def test_a_package_that_is_not_here_is_one_sentence(monkeypatch):
    monkeypatch.setattr(licences, "pins", lambda: {"no-such-package": "1.0"})
    with pytest.raises(StudyError, match="^no-such-package is not installed: run this after `make TORCH=cuda"):
        licences.packages()


def test_elsewhere_it_says_where_to_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r"There is no constraints.txt here: run this in the folder of the repository\."
    ):
        licences.main()
