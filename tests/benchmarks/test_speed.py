"""The page on speed can be drawn again from the numbers that stand in it."""

import importlib.util
import sys
from pathlib import Path

import torch

PAGE = Path("book/speed.md")
SPECIFICATION = importlib.util.spec_from_file_location("speed", Path(__file__).parents[2] / "benchmarks" / "speed.py")
speed = sys.modules["speed"] = importlib.util.module_from_spec(SPECIFICATION)  # where its dataclass looks for itself
SPECIFICATION.loader.exec_module(speed)


def test_a_table_is_read_as_it_was_written(tmp_path):
    for folder in ("images", "_static"):
        (tmp_path / folder).mkdir()
    page = tmp_path / "speed.md"
    page.write_text(f"Before.\n{speed.BEGIN}\n{speed.END}\nAfter.")
    rows = [
        speed.Row("a step", "another", 1.25, 1.5, 2.0, "≥", 1000, "times as fast"),
        speed.Row("a batch", "a step", 0.75, 0.75, 0.75, "≤", 5, "%"),
        speed.Row("a pass", "a search", 1200.0, 1300.0, 1400.0, "≤", 3, "times as long"),
    ]
    speed.write(page, rows, "a machine")
    assert speed.read(page) == rows
    assert "1 of 3 reach it" in page.read_text() and page.read_text().startswith("Before.")
    assert {path.name for path in tmp_path.rglob("*.svg")} == {"speed.svg", "speed_narrow.svg"}


def test_the_page_of_the_book_is_read_whole():
    made = PAGE.read_text().split(speed.BEGIN)[1].split(speed.END)[0]
    table = [line for line in made.splitlines() if line.startswith("| ")][1:]
    assert table and [row.what for row in speed.read(PAGE)] == [line.split(" | ")[0][2:] for line in table]


def test_the_convolutions_of_a_step_are_noted_forward_and_backward():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    images = torch.rand(2, 3, 8, 8)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            layers(images).float().square().mean().backward()

    with speed.Convolutions() as noted:
        step()
    seen = [(str(operation), arguments[0].dtype, tuple(arguments[0].shape)) for operation, arguments in noted.calls]
    forward, backward = "aten.convolution.default", "aten.convolution_backward.default"
    assert seen == [
        (forward, torch.bfloat16, (2, 3, 8, 8)),
        (forward, torch.bfloat16, (2, 4, 6, 6)),
        (backward, torch.bfloat16, (2, 2, 4, 4)),
        (backward, torch.bfloat16, (2, 4, 6, 6)),
    ]
    before = [weight.grad.clone() for weight in layers.parameters()]
    speed.convolutions_of(step)()  # once by itself, and once without anything else
    assert all(torch.equal(2 * old, weight.grad) for old, weight in zip(before, layers.parameters(), strict=True))
