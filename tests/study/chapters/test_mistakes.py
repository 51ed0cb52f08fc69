"""Mistakes, their controls and the rule about them, where the right answer is known beforehand."""

from types import SimpleNamespace

import pytest
import torch

from invkit.statistics import Interval
from study.chapters import mistakes
from study.reconstructions import Reconstruction

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


def test_every_reconstruction_is_seen_as_one_thing():
    true, predicted, seen = torch.tensor([1, 1, 1, 2]), torch.tensor([2, 2, 2, 2]), torch.tensor([1, 2, 3, 2])
    masks = mistakes.seen_as(seen, true, predicted)
    assert [mask.long().tolist() for mask in masks.values()] == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_mistakes_are_judged_by_the_sign_of_both_intervals():
    assert mistakes.look_verdict(interval(-1), interval(1)) == "look like the input and are seen as the true class"
    assert mistakes.look_verdict(interval(1), interval(-1)) == (
        "look like the wrong class and are seen as the predicted class"
    )
    assert mistakes.look_verdict(interval(0), interval(0)) == "look as much like either and are seen as either"


def test_controls_are_correct_predictions_of_the_same_classes():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = torch.tensor([[5.0, 0, 0], [1.0, 0, 0], [0, 1.1, 0], [0, 1.2, 0], [0, 6.0, 0], [3.0, 0, 0]])
    chosen = mistakes.matched_mistakes(
        logits, labels, 10
    )  # image 2 is taken for 1; image 5 for 0, but no 2 is ever right
    assert {kind: (places.tolist(), other.tolist()) for kind, (places, other) in chosen.items()} == {
        "mistakes": ([2], [1]),
        "right true": ([1], [1]),
        "right predicted": ([3], [0]),
    }


def test_groups_measure_towards_the_input_and_the_wrong_class():
    inputs, others = flat(torch.full((2, 3), 0.5)), flat(torch.full((2, 3), 0.9))
    targets = {"input": inputs, "true mean": inputs, "other mean": others}
    true, other = torch.tensor([0, 1]), torch.tensor([1, 0])

    class Judge:
        model = torch.nn.Linear(1, 1)

        def logits(self, images):
            return torch.eye(2)[[0] * len(images)]

    group = mistakes.examine(Reconstruction(inputs, inputs), targets, true, other, Judge())
    floor = mistakes.examine_colours(group, Judge())  # flat inputs are their own mean colours
    assert floor.distances()["input"]["pixel"].value == pytest.approx(0, abs=1e-6)
    assert floor.differences()["look_pixel"].value == group.differences()["look_pixel"].value
    assert group.wrong == "other mean" and group.differences()["look_pixel"].value == pytest.approx(-0.4)
    assert group.shares()["true class"]["seen"].value == group.shares()["predicted class"]["input"].value == 0.5
    assert mistakes.others_words({"standard": "x", "robust": "look well"}).endswith(
        "those of the robust classifier look well."
    )


@pytest.mark.parametrize(
    ("wrong", "said"), [("twin", "its twin of the wrong"), ("other mean", "the mean of the wrong")]
)
def test_what_the_look_is_compared_with_is_said_with_its_article(wrong, said):
    words = mistakes.place_words("test", SimpleNamespace(wrong=wrong))
    assert words["wrong_words"] == f"{said} class"
