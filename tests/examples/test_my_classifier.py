"""The example, small: it trains on a folder of images, and what it keeps is a classifier by name."""

import ast
import importlib.util
import itertools
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import invkit
from study.notebook import source_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "my_classifier.py"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A copy of the example, imported, beside a folder of light and dark images."""
    for label in range(2):
        folder = tmp_path / "photos" / ("dark", "light")[label]
        folder.mkdir(parents=True)
        for i in range(30):
            level = 60 + 120 * label + i
            Image.new("RGB", (40, 48), (level, level, level)).save(folder / f"{i}.png")
    (tmp_path / "my_classifier.py").write_text(EXAMPLE.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.spec_from_file_location("my_classifier", tmp_path / "my_classifier.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_classifier", module)
    spec.loader.exec_module(module)
    return module


def test_it_learns_and_comes_back_by_name(example, capsys, monkeypatch):
    torch.manual_seed(0)
    seconds = itertools.count()  # a clock by which every step takes a second
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    example.train("photos", minutes=0.5)
    assert "% of" in capsys.readouterr().out
    classifier = invkit.load_classifier("my_classifier:network")
    assert (classifier.size, classifier.classes) == (64, 2)
    images = torch.stack([torch.full((3, 64, 64), level) for level in (0.3, 0.75)])
    assert classifier.logits(images).argmax(1).tolist() == [0, 1]
    assert [block.shape[0] for block in classifier.blocks[:4]] == [32, 64, 128, 128]


def test_the_chapter_shows_it_as_it_is():
    cells = json.loads((ROOT / "notebooks" / "14_your_classifier.ipynb").read_text())["cells"]
    assert any(EXAMPLE.read_text().rstrip() in source_of(cell) for cell in cells if cell["cell_type"] == "markdown")


def test_it_has_some_thirty_lines_of_code_that_fit_the_column_of_a_page():
    tree = ast.parse(EXAMPLE.read_text())
    words = [node.body[0] for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef)]
    docstrings = {line for node in words for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(EXAMPLE.read_text().splitlines(), start=1)
    assert sum(bool(line.strip()) for number, line in lines if number not in docstrings) <= 33
    assert max(map(len, EXAMPLE.read_text().splitlines())) <= 88
