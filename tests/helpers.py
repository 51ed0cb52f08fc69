"""What several test modules share."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier
from study import live

REPOSITORY = Path(__file__).parents[1]
# Processes of their own, which can be killed; what a training takes seconds to import, they share.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["invkit.training", "accelerate", "torch._dynamo", "torch.utils.tensorboard"])


def write_notebook(path, cells):
    """A notebook source: ``cells`` are (type, source, tags)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = []
    for number, (kind, source, *tags) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {"tags": tags} if tags else {}, "source": source}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole), encoding="utf-8")


def small_study(folder, **notebooks):
    """A study whose notebooks, in their order, have such cells of code after `study` is opened; and a book of them."""
    for name, cells in notebooks.items():
        opening = f"from study import notebook\nstudy = notebook.open('{name}')"
        first = [("markdown", f"# {name}"), ("code", "number = 2.0", "parameters")]
        write_notebook(folder / f"notebooks/{name}.ipynb", [*first, *(("code", cell) for cell in (opening, *cells))])
    chapters = "".join(f"  - file: {name}\n" for name in notebooks)
    files = {"profiles/quick.yaml": "", "profiles/published.yaml": "", "book/intro.md": "# Book\n"}
    files |= {"book/_toc.yml": f"format: jb-book\nroot: intro\nchapters:\n{chapters}", "book/references.bib": ""}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("_config.yml", "Snakefile"):
        shutil.copy(REPOSITORY / name, folder)


@torch.no_grad()
def randomise(model):
    """Norms as training leaves them: with the untouched ones, a norm left out or applied twice would not show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    return model


def two_convolutions(size):
    """A classifier of two convolutions without bias, 3 -> 4 channels and 4 -> 5 at half the resolution, and a head."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 5, 3, 2, padding=1, bias=False)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    blocks = [("first", first), ("second", second), ("head", head)]
    return Classifier(nn.Sequential(first, second, head), "tiny", size=size, blocks=blocks)


def live_page(folder, kind, picture="png"):
    """The path of a page in a new folder, with the figure of one kind of `study.live` as the compiled book has it."""
    static = REPOSITORY / "book" / "_static"
    shutil.copytree(static, folder / "_static")
    # The book loads scripts in an order of its own; none may need another before the page is there.
    styles = [f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("study", "live")]
    scripts = [f'<script src="_static/{path.name}"></script>' for path in sorted(static.glob("*.js"), reverse=True)]
    (page := folder / "page.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'{"".join(styles + scripts)}<body>{live.FIGURE.format(kind)} data-time="some seconds"><div class="live-still">'
        f'<img src="_static/live_{kind}.{picture}" alt="Images and their reconstructions"></div></figure></body></html>'
    )
    return page


def live_page_with_networks(folder, kind, picture="png"):
    """The path of a `live_page` with its networks beside it; the test is skipped where these cannot be made."""
    page = live_page(folder, kind, picture)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "CACHE", REPOSITORY / "build" / "live")
        live.put_beside(page.parent)
    if "data-processor" not in page.read_text():
        pytest.skip("onnxruntime-web or the package onnx cannot be had here; the registry of npm has the first.")
    return page
