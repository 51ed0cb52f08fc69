"""Climbing to an optimum that is known."""

import math

import pytest

from study.tuning import climb


def peak(at):
    return lambda value: -((math.log2(value) - math.log2(at)) ** 2)


def test_it_climbs_to_an_optimum_outside_the_first_values_and_sees_both_sides_of_it():
    tuned = climb(peak(8.0), 1.0)
    assert tuned.best == 8.0 and tuned.interior and list(tuned.tried) == [0.5, 1, 2, 4, 8, 16]
    assert "inside the grid" in tuned.words


@pytest.mark.parametrize("options", [{"between": (0.0, 2.0)}, {"tries": 3}])
def test_it_says_when_the_best_lies_at_the_edge(options):
    tuned = climb(peak(8.0), 1.0, **options)
    assert tuned.best == 2.0 and not tuned.interior and "at the grid's edge" in tuned.words


def test_it_needs_a_place_to_start_from_and_a_way():
    with pytest.raises(ValueError, match="a positive number by a factor above 1, not from 0 by 2"):
        climb(peak(1.0), 0, 2)
    with pytest.raises(ValueError, match="factor above 1"):
        climb(peak(1.0), 1.0, 1.0)
