"""What is called equal is equal to the bit, a difference has its size, and a tolerance is what is compared with."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PATH = ROOT / "benchmarks/determinism.py"


def whole(value):
    return abs(value - round(value)) < 1e-9


@pytest.fixture(scope="module")
def determinism():
    spec = importlib.util.spec_from_file_location("determinism", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_equal_numbers_are_equal(determinism):
    one = np.array([3.0, 4.0, 0.0, 0.0])  # of root mean square 2.5
    assert determinism.apart(one, one.copy()) == "equal"
    assert determinism.apart(one, one + np.array([0, 0, 0.0025, 0])) == "1e-03"
    assert determinism.apart(np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2))) != "equal"


def test_results_are_compared_with_their_tolerances(determinism):
    here = {
        "a": {"value": 1.0, "tolerance": 0.5},
        "b": {"value": 2.0, "tolerance": 0},
        "c": {"value": 3.0},
        "d": {"text": "x"},
    }
    there = {"a": {"value": 1.25}, "b": {"value": 2.0}, "c": {"value": 9.0}}
    assert determinism.shares_of_tolerance(here, there) == [0.5, 0.0]
    assert determinism.shares_of_tolerance(here, there | {"b": {"value": 2.1}}) == [0.5, 1.0]


def test_a_table_takes_the_place_of_the_one_before(determinism, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{determinism.BEGIN}\nold\n{determinism.END}\nafter\n")
    for table in (["| a |"], ["| b |"]):
        determinism.replace_between(page, determinism.BEGIN, determinism.END, table)
    assert page.read_text() == f"before\n{determinism.BEGIN}\n\n| b |\n\n{determinism.END}\nafter\n"


def test_tolerances_of_make_check_are_above_what_rounding_does(determinism):
    """As the page says: 0 for what no rounding touches, else ten times what it moves where nothing is trained."""
    table = (ROOT / "book/determinism.md").read_text(encoding="utf-8").split(determinism.BEGIN)[1]
    rows = [line.split(" | ") for line in table.split(determinism.END)[0].splitlines() if " | " in line][2:]
    assert any("steps" in cells[0] for cells in rows) and len(rows) > 5
    moved = [cell for cells in rows if "steps" not in cells[0] for cell in cells[1:]]
    largest = max(map(float, re.findall(r"\de-\d+", " ".join(moved))))
    assert 0 < largest < 1e-4 and rows[0][1] == "equal"
    expected = json.loads((ROOT / "profiles/quick.expected.json").read_text())
    numbers = [one for chapter in expected.values() for one in chapter.values() if "value" in one]
    untouched = [one["value"] for one in numbers if one["tolerance"] == 0]
    # parameters and numbers of images, and the chance of one among so many, in per cent
    assert all(whole(value) or whole(100 / value) for value in untouched)
    touched = [one for one in numbers if one["tolerance"]]
    assert all(one["tolerance"] > 10 * largest * abs(one["value"]) for one in touched) and len(touched) > 500
