import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from invkit.statistics import Interval
from study import plots


def drawn(figure):
    """What the figure looks like, (height, width, 3) in 0 to 255."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def test_grid_shows_every_image_in_its_row_and_column():
    colours = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]]])  # row, column, RGB
    rows = {name: colours[i][:, :, None, None].expand(2, 3, 8, 8) for i, name in enumerate(["original", "copy"])}
    figure = plots.image_grid(rows, columns=["a", "b"], captions={"copy": ["20 dB", "21 dB"]})
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["original", "", "copy", ""]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "20 dB", "21 dB"]
    pixels = drawn(figure)
    for axis, colour in zip(figure.axes, colours.flatten(0, 1), strict=True):
        box = axis.get_position()
        y, x = int((1 - (box.y0 + box.y1) / 2) * pixels.shape[0]), int((box.x0 + box.x1) / 2 * pixels.shape[1])
        assert pixels[y, x].tolist() == (colour * 255).tolist()


def test_small_images_keep_hard_pixels():
    checkers = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    axis = plots.image_grid({"checkers": checkers}).axes[0]
    assert axis.images[0].get_interpolation() == "nearest"
    assert plots.image_grid({"large": torch.rand(1, 3, 400, 400)}).axes[0].images[0].get_interpolation() != "nearest"


def band_of(collection):
    """The lowest and the highest point of a band."""
    points = collection.get_paths()[0].vertices[:, 1]
    return points.min(), points.max()


def test_curve_draws_values_bands_and_gaps():
    values = [Interval(20, 19, 21, 5), None, Interval(16, 15, 17, 5)]
    figure = plots.curve([3, 9, 15], {"ours": values}, "convolutions", "PSNR, dB", reference={"chance": 10})
    axis = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axis.lines[:2]] == [
        [[3, 20]],
        [[15, 16]],
    ]  # cut where one is missing
    assert [band_of(band) for band in axis.collections] == [(19, 21), (15, 17)]
    assert axis.get_xlabel() == "convolutions" and axis.get_ylabel() == "PSNR, dB"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "chance"]


def test_panels_draw_each_measure_by_itself_under_one_legend():
    lines = {"standard": [1.0, 2.0], "robust": [Interval(3, 2, 4, 5), None]}
    groups = dict.fromkeys(("contrast", "sharpness", "brightness", "distance"), lines)
    figure = plots.panels([1, 10], groups, "logits kept", logx=True, reference={"distance": {"chance": 5.0}})
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == list(groups)
    assert [line.get_xydata().tolist() for line in shown[1].lines] == [[[1, 1], [10, 2]], [[1, 3]]]
    assert len(shown[3].lines) == 3 and len(shown[0].lines) == 2
    assert [axis.get_xlabel() for axis in shown] == ["", "logits kept", "logits kept", "logits kept"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["standard", "robust", "chance"]
    drawn(figure)


def test_lines_of_panels_are_cut_or_joined_where_a_value_is_missing():
    groups = {"dB": {"ours": [1.0, None, 3.0]}}
    found = {
        joined: [
            line.get_xydata().tolist() for line in plots.panels([1, 2, 3], groups, "x", joined=joined).axes[0].lines
        ]
        for joined in (False, True)
    }
    assert found == {False: [[[1, 1]], [[3, 3]]], True: [[[1, 1], [3, 3]]]}


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_have_the_height_of_their_value(horizontal):
    groups = {"depth 3": {"ours": Interval(30, 29, 31, 5), "theirs": 25}, "depth 8": {"ours": 20, "theirs": 15}}
    axis = plots.bars(groups, "PSNR, dB", horizontal=horizontal).axes[0]
    bars = [bar for container in axis.containers for bar in container]
    assert [bar.get_width() if horizontal else bar.get_height() for bar in bars] == [30, 20, 25, 15]  # series by series
    ends = [line.get_xydata()[:, 0 if horizontal else 1].tolist() for line in axis.lines]
    assert ends[0] == [29, 31]
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["ours", "theirs"]


def test_a_value_outside_its_interval_is_drawn_where_it_is():
    odd = Interval(3.0, 1.0, 2.0, 5)  # of a skewed statistic
    assert plots.curve([1, 2], {"a": [odd, odd]}, "x", "y").axes[0].lines[0].get_ydata().tolist() == [3, 3]
    assert plots.bars({"a": odd}, "y").axes[0].patches[0].get_height() == 3


def test_dots_stand_in_their_lanes_and_beyond_the_limits_are_arrows():
    series = {"ours": {"a": Interval(0.5, 0.4, 0.6, 9), "b": 3.0}, "theirs": {"a": 0.2}, "ours, again": {"b": 0.7}}
    figure = plots.dots(
        {"left": series, "right": {"ours": {"b": 0.1}}}, "share", hollow={"ours, again": "ours"},
        ticks={"left": {"ceiling": {"a": 0.9, "b": 0.8}}}, xlim=(0, 1),
    )  # fmt: skip
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "b"] and right.get_title() == "right"
    named = {line.get_label(): line for line in left.lines if not line.get_label().startswith("_")}
    lower, upper = -0.175, 0.175  # two lanes a row
    assert named["ours"].get_xydata().tolist() == [[0.5, lower], [3.0, 1 + lower]]
    assert named["theirs"].get_xydata().tolist() == [[0.2, upper]]
    assert named["ours, again"].get_xydata().tolist() == [[0.7, 1 + lower]]
    assert named["ours, again"].get_markerfacecolor() == "white"
    arrows = [line for line in left.lines if line.get_marker() == ">"]
    assert [arrow.get_xydata().tolist() for arrow in arrows] == [[[1, 1 + lower]]]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == ["ceiling", "ours", "ours, again", "theirs"]
    drawn(figure)


def test_scatter_names_its_points():
    points = {"ours": (0.05, Interval(25, 24, 26, 9)), "Adam": (39, 16)}
    figure = plots.scatter(points, "seconds", "PSNR, dB", logx=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "Adam"]  # beside points they collide
    assert figure.axes[0].get_xscale() == "log" and not figure.axes[0].texts


def test_vectors_name_the_largest_entries():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 2.0]])
    figure = plots.vectors(torch.zeros(2, 3, 4, 4), {"standard": logits, "robust": -logits}, names="abc", top=2)
    panels = [axis for axis in figure.axes if axis.patches]
    assert [[bar.get_height() for bar in axis.patches] for axis in panels[::2]] == logits.tolist()
    assert [{text.get_text() for text in axis.texts} for axis in panels] == [
        {"b", "c"},
        {"a", "c"},
        {"a", "c"},
        {"b", "c"},
    ]


def test_figures_are_white_closed_and_small():
    figure = plots.image_grid({"noise": torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))})
    assert not plt.get_fignums()
    assert drawn(figure)[0, 0].tolist() == [255, 255, 255]
    assert drawn(figure).shape[1] <= 1100


def shown_sides(n, shown, columns=None):
    """Pixels a side of the pictures of a row of n photos, in full size, and where the figure is shown so wide."""
    figure = plots.image_grid({"a photo": torch.rand(n, 3, 224, 224)}, columns)
    drawn(figure)  # lays it out
    width = figure.axes[0].get_window_extent().width
    return width, width / figure.get_window_extent().width * shown


@pytest.mark.parametrize("n, shown", [(1, 352), (2, 704), (3, 957)])  # pixels of the column, and with the margin
def test_few_photos_are_shown_large(n, shown):
    full, side = shown_sides(n, shown)
    assert full >= side >= 300


def test_many_photos_can_be_looked_at_in_full_size():
    assert shown_sides(7, 957)[0] >= 200
    labelled = plots.image_grid({"a photo": torch.rand(3, 3, 224, 224)}, columns=["a", "b", "c"])
    assert labelled.axes[0].get_ylabel() == "a photo" and labelled.axes[0].get_title(loc="left") == ""
    assert plots.image_grid({"a photo": torch.rand(3, 3, 224, 224)}).axes[0].get_title(loc="left") == "a photo"


def test_the_style_does_not_leak():
    before = dict(plt.rcParams)
    plots.bars({"a": 1.0}, "units")
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plots.image_grid({}), "nothing to draw"),
        (lambda: plots.image_grid({"a": torch.rand(2, 3, 4, 4), "b": torch.rand(3, 3, 4, 4)}), "'b' has 3, not 2"),
        (lambda: plots.image_grid({"a": torch.rand(2, 3, 4, 4)}, columns=["x"]), "'columns' has 1, not 2"),
        (lambda: plots.image_grid({"a": torch.rand(1, 3, 4, 4)}, captions={"c": ["x"]}), "captions for"),
        (lambda: plots.curve([1, 2], {"a": [1]}, "x", "y"), "'a' has 1 values for 2"),
        (lambda: plots.bars({}, "y"), "nothing to draw"),
        (lambda: plots.dots({}, "x"), "nothing to draw"),
        (lambda: plots.vectors(torch.zeros(2, 3, 4, 4), {"a": torch.zeros(3, 5)}), "one vector for each of 2"),
    ],
)
def test_wrong_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
