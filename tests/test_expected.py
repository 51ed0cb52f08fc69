"""The quick profile's headline numbers against the committed ones (`make check`, after `make book`)."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPECTED = ROOT / "profiles" / "quick.expected.json"
NUMBERS = [
    pytest.param(chapter, id, expected, id=f"{chapter}-{id}")
    for chapter, numbers in (json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}).items()
    for id, expected in numbers.items()
]


@pytest.mark.parametrize(("chapter", "id", "expected"), NUMBERS)
def test_headline_number(chapter, id, expected):
    results = ROOT / "build" / "quick" / "executed" / f"{chapter}.results.json"
    if not results.exists():
        pytest.skip("the quick book is not built; `make book` first")
    assert json.loads(results.read_text())[id]["value"] == pytest.approx(
        expected["value"], abs=expected["tolerance"], rel=0
    )
