"""Charts are told from images by what is in the picture, and only charts change with the page's theme."""

import base64
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from invkit.statistics import Interval
from study import browser, plots
from study.page_pictures import grid_of, is_chart, picture_size, tile_width

ROOT = Path(__file__).parents[2]
COPIES = sorted((ROOT / "book/published").glob("*.ipynb"))
SERIES = {f"network {i}": [Interval(x, x - 0.5, x + 0.5, 10) for x in (i, i + 2.0, i + 1.5)] for i in range(8)}
PHOTOS = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CHARTS = {
    "lines": lambda: plots.curve([1, 2, 3], SERIES, "x", "y"),
    "bars": lambda: plots.bars({name: dict(zip("abc", values, strict=True)) for name, values in SERIES.items()}, "y"),
}
IMAGES = {
    "grid": lambda: plots.image_grid({"photos": PHOTOS, "again": PHOTOS}),
    "images in a chart": lambda: plots.vectors(PHOTOS, {"logits": torch.randn(4, 20)}),
}


def test_how_wide_an_image_of_a_grid_is(tmp_path):
    figure = plots.image_grid({"photos": PHOTOS, "again": PHOTOS}, columns=["a title", "b", "c", "d"])
    figure.savefig(tmp_path / "grid.png")
    drawn = figure.axes[0].get_window_extent().width
    assert abs(tile_width(tmp_path / "grid.png") - drawn) <= 3
    for name, colour in (("photo", "#808000"), ("white", "white")):
        Image.new("RGB", (120, 80), colour).save(tmp_path / f"{name}.png")
        assert tile_width(tmp_path / f"{name}.png") == 120 and grid_of(tmp_path / f"{name}.png") is None


def test_where_the_images_of_a_grid_lie(tmp_path):
    labels = {"photos": ["a caption", "b", "c", "d"]}
    figure = plots.image_grid({"photos": PHOTOS, "again": PHOTOS}, columns=["a title", "b", "c", "d"], captions=labels)
    figure.savefig(tmp_path / "grid.png")
    columns, rows = grid_of(tmp_path / "grid.png")
    boxes = [axis.get_position() for axis in figure.axes]
    assert np.allclose(columns, [[box.x0, box.x1] for box in boxes[:4]], atol=0.005)
    assert np.allclose(rows, [[1 - box.y1, 1 - box.y0] for box in boxes[::4]], atol=0.01)


@pytest.mark.parametrize("white", [(1, 2), (1, slice(None)), (slice(None), 2)], ids=["one", "a row", "a column"])
def test_a_grid_with_white_images_is_left_as_it_is(white, tmp_path):
    images = torch.full((3, 4, 3, 32, 32), 0.4)
    images[white] = 1
    plots.image_grid(dict(zip("abc", images, strict=True))).savefig(tmp_path / "grid.png")
    found = grid_of(tmp_path / "grid.png")
    assert found is None or list(map(len, found)) == [4, 3]  # a row is seen where its other images are


def drawn(make, folder):
    figure, path = make(), folder / "figure.png"
    figure.savefig(path)
    plt.close(figure)
    return path


@pytest.mark.parametrize("make", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_one(make, tmp_path):
    assert is_chart(drawn(make, tmp_path))


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_images_are_no_chart(make, tmp_path):
    assert not is_chart(drawn(make, tmp_path))


def test_a_grey_photo_is_no_chart(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (90, 90), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert not is_chart(tmp_path / "grey.png")


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_what_a_chapter_draws_as_a_grid_is_no_chart_and_what_it_plots_is_one(path, tmp_path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    plotted = dict(re.findall(r'study\.figure\(\s*"(\w+)",\s*([\w.]+)', code))
    gridded = set(re.findall(r'study\.grid\(\s*"(\w+)"', code))
    for output in (one for cell in cells for one in cell.get("outputs", [])):
        id = output.get("metadata", {}).get("scrapbook", {}).get("name")
        for form, data in output.get("data", {}).items():
            if "/image/" in form and id in plotted.keys() | gridded:
                picture = tmp_path / f"{id}.{form.rpartition('/')[2]}"
                picture.write_bytes(base64.b64decode(data))
                assert is_chart(picture) == (id in plotted and plotted[id] != "plots.vectors"), id


def test_an_svg_says_its_size(tmp_path):
    (tmp_path / "a.svg").write_text('<?xml version="1.0"?>\n<svg xmlns="x" width="72pt" height="36pt" viewBox="0"/>')
    (tmp_path / "b.svg").write_text('<svg viewBox="0 0 1 1"/>')
    assert picture_size(tmp_path / "a.svg") == (96, 48) and picture_size(tmp_path / "b.svg") is None
    assert picture_size(ROOT / "book/images/zero_shot.jpg")[0] > 100


PAGE = """<!doctype html><html data-theme="dark"><head><link rel="stylesheet" href="study.css"></head>
<body class="bd-content" style="background: #121212"><img class="chart" src="figure.png"><img src="photo.png">"""


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
def test_on_a_dark_page_a_chart_is_dark_with_words_that_contrast_and_a_photo_keeps_its_colours(tmp_path):
    drawn(CHARTS["lines"], tmp_path)
    Image.new("RGB", (80, 80), "#d55e00").save(tmp_path / "photo.png")
    (tmp_path / "study.css").write_text((ROOT / "book/_static/study.css").read_text(encoding="utf-8"))
    (tmp_path / "page.html").write_text(PAGE)
    with browser.Browser() as one:
        one.open((tmp_path / "page.html").as_uri(), width=1200)
        one.screenshot(tmp_path / "chart.png", ".chart")
        one.screenshot(tmp_path / "seen.png", "img:not(.chart)")
    chart = luminance(tmp_path / "chart.png")
    ground = np.median(chart)
    words = np.quantile(chart, 0.999)  # the few lightest pixels are those of letters
    assert ground < 0.02 and (words + 0.05) / (ground + 0.05) > 7
    middle = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))[40, 40]
    assert np.abs(middle - 0.9 * np.array([0xD5, 0x5E, 0x00])).max() < 3


def luminance(path):
    """Of each pixel, as WCAG has it."""
    channels = np.asarray(Image.open(path).convert("RGB")) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
