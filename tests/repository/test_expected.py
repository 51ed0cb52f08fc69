"""The quick profile's headline numbers against the committed ones (`make check`, after `make book`)."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "profiles" / "quick.expected.json"
EXPECTATIONS = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def results_of(chapter):
    path = ROOT / "build" / "quick" / "executed" / f"{chapter}.results.json"
    if not path.exists():
        pytest.skip("the quick book is not built; `make book` first")
    return json.loads(path.read_text())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_headline_number_is_expected(chapter):
    compared = {id for id, result in results_of(chapter).items() if result["tolerance"] is not None}
    assert compared == set(EXPECTATIONS.get(chapter, {})), "`python -m invkit.book expect` writes the new ones"


@pytest.mark.parametrize(("chapter", "id"), [(chapter, id) for chapter, ids in EXPECTATIONS.items() for id in ids])
def test_headline_number_is_as_expected(chapter, id):
    value, expected = results_of(chapter)[id]["value"], EXPECTATIONS[chapter][id]
    assert value == pytest.approx(expected["value"], abs=expected["tolerance"], rel=0)
