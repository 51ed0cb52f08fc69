"""Mistakes, their controls and the rule about them, where the right answer is known beforehand."""

import pytest
import torch

from invkit.statistics import Interval
from study.chapters import mistakes

SIDE = 32


def flat(colours):
    """(N, 3) -> images of one colour each."""
    return colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()


def interval(sign):
    return Interval(sign, sign - 0.5, sign + 0.5, 100)


def test_controls_are_the_nearest_of_the_same_group():
    wrong, groups = torch.tensor([0.3, 0.9, 0.5]), torch.tensor([1, 1, 2])
    right, right_groups = torch.tensor([0.2, 0.3, 0.8]), torch.tensor([1, 0, 1])
    assert mistakes.match(wrong, groups, right, right_groups).tolist() == [0, 2, -1]
    assert mistakes.match(wrong, groups, right[:0], right_groups[:0]).tolist() == [-1, -1, -1]


def test_distances_are_root_mean_squares():
    a, b = flat(torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]])), flat(torch.full((2, 3), 0.5))
    found = mistakes.distances(a, b)
    assert found.pixel.tolist() == pytest.approx([0, 0.3]) and found.perceptual[0] < found.perceptual[1]


def test_every_reconstruction_is_seen_as_one_thing():
    true, predicted, seen = torch.tensor([1, 1, 1, 2]), torch.tensor([2, 2, 2, 2]), torch.tensor([1, 2, 3, 2])
    masks = mistakes.seen_as(seen, true, predicted)
    assert [mask.long().tolist() for mask in masks.values()] == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_mistakes_are_judged_by_the_sign_of_both_intervals():
    assert mistakes.verdict(interval(-1), interval(1)) == "look like the input and are read as the true class"
    assert mistakes.verdict(interval(1), interval(-1)) == (
        "look like the wrong class and are read as the predicted class"
    )
    assert mistakes.verdict(interval(0), interval(0)) == "look as much like either and are read as either"
