"""Files that were changed at random end in right results or in sentences; `benchmarks/fuzz.py` tries thousands."""

import importlib.util
from pathlib import Path

import pytest

SPECIFICATION = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "benchmarks" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(fuzz)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_changed_file_is_read_right_or_told_of_in_one_sentence(kind):
    ends = fuzz.fuzz((kind,), 30)[kind]
    assert ends["right"] + ends["sentence"] == 30, ends
    assert ends["sentence"]


def test_unchanged_files_are_read_right(monkeypatch):
    monkeypatch.setattr(fuzz, "mutated", lambda content, random: content)
    assert all(ends == {"right": 2} for ends in fuzz.fuzz(fuzz.KINDS, 2).values())


@pytest.mark.parametrize("number", [484, 1064])
def test_a_profile_that_is_nested_too_deeply_is_a_sentence(number):
    assert fuzz.fuzz(("profile",), 1, number)["profile"] == {"sentence": 1}


def test_another_end_is_seen():
    """What would fail the test above."""

    def fails(random):
        raise KeyError("size")

    assert fuzz.tried(fails, 0) == "KeyError: \"'size'\""
